"""Processes that are killed on purpose start as forks of one that has imported everything: a start takes milliseconds, and not seconds.

There is one such process for each that runs tests, and whoever asks first says what it imports; so all is named here.
"""

import multiprocessing

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["trainer.__main__", "transformers.models.llama.modeling_llama", "tests.services.test_crashes"])
