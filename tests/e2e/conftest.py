"""Fixtures of the tests that run a whole search."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.finished import copy_of, finished_search
from tests.solfa import Solfa


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed search's folder; read only."""
    return finished_search(tmp_path_factory)


@pytest.fixture(scope="module")
def solfa(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Solfa]:
    """A running service over a copy of the finished home."""
    made = copy_of(finished, tmp_path_factory.mktemp("copy"))
    try:
        made.up("--slots", "2")
        yield made
    finally:
        made.end()
