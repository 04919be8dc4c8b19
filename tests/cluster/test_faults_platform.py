"""What a search stands on goes for a while: API server, Volcano, PostgreSQL, S3. It ends in the weights that it would have ended in.

SOLFA_CLUSTER_TOOL names the program that hangs and restarts the cluster's components (`signal kube-apiserver STOP`, `restart ...`).
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.client import Client
from api.errors import SolfaError
from tests.cluster.kube import run
from tests.cluster.survival import House, Outcome, survivor_spec, watched
from tests.services.waiting import wait_for

TOOL = os.environ.get("SOLFA_CLUSTER_TOOL", "")
needs_tool = pytest.mark.skipif(not TOOL, reason="needs SOLFA_CLUSTER_TOOL, which hangs and restarts components")
Measured = Callable[[str, str], None]
AWAY = 60.0  # seconds that a thing is gone: not a wait for something, but the fault itself


@needs_tool
def test_the_api_server_is_restarted(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("api-server-restarted")) as survivor:
        survivor.until_training(further=1)
        run(TOOL, "restart", "kube-apiserver")
        measured("the API server restarted: the service reads the cluster again", _reads_again(house))
        assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 1


@needs_tool
def test_the_api_server_hangs_for_a_minute(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("api-server-hung")) as survivor:
        survivor.until_training(further=1)
        with hung():
            time.sleep(AWAY)
        measured("the API server hung for 60 s: the service reads the cluster again", _reads_again(house))
        assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 1


@needs_tool
def test_volcano_is_restarted_while_a_stage_is_launched(house: House, undisturbed: Outcome) -> None:
    with watched(house, survivor_spec("volcano-restarted")) as survivor:
        wait_for(lambda: house.phases(survivor.id)["proxy"] in ("launching", "queued"), 300, every=0.05)
        for component in ("vc-controller-manager", "vc-scheduler"):
            run(TOOL, "restart", component)
        survivor.until_training(further=1)
        for component in ("vc-controller-manager", "vc-scheduler"):
            run(TOOL, "restart", component)
        assert survivor.outcome() == undisturbed
        assert (survivor.attempts("prepare"), survivor.attempts()) == (1, 1)


def test_the_database_is_restarted_and_stops_for_a_minute(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("database-away")) as survivor:
        wait_for(lambda: house.phases(survivor.id)["proxy"] == "queued", 300, every=0.05)
        house.database.restart()
        measured("PostgreSQL restarted: the service answers", _answers_again(house))
        survivor.until_training(further=1)
        house.database.stop()  # as in a crash
        try:
            time.sleep(AWAY)
        finally:
            house.database.start()
        measured("PostgreSQL stopped for 60 s: the service answers", _answers_again(house))
        assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 1


def test_the_bucket_hangs_for_a_minute(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("s3-stopped")) as survivor:
        before = survivor.until_training()
        house.store.server.send(signal.SIGSTOP)
        try:
            time.sleep(AWAY)
        finally:
            house.store.server.send(signal.SIGCONT)
        began = time.monotonic()
        wait_for(lambda: (report := survivor.report()) and report.step > before.step + 10, 240, every=0.3)
        measured("the S3 hung for 60 s: training goes on", f"{time.monotonic() - began:.0f} s")
        assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 1


def test_the_bucket_is_busy_slow_and_loses_answers(house: House, undisturbed: Outcome) -> None:
    """From the first request of the search to its last: every seventh is refused, all are late, and conditional writes seem to fail."""
    faults = house.faults
    refused, delayed, lost = faults.refused, faults.delayed, faults.lost
    try:
        with watched(house, survivor_spec("s3-busy")) as survivor:
            faults.refuse_every, faults.delay, faults.lose_answers = 7, 0.05, 1_000
            found = survivor.outcome()
            assert survivor.attempts() == 1
        assert found == undisturbed
        assert faults.refused > refused
        assert faults.delayed > delayed
        assert faults.lost > lost
    finally:
        faults.refuse_every, faults.delay, faults.lose_answers = 0, 0.0, 0


@contextmanager
def hung() -> Iterator[None]:
    run(TOOL, "signal", "kube-apiserver", "STOP")
    try:
        yield
    finally:
        run(TOOL, "signal", "kube-apiserver", "CONT")


def _reads_again(house: House) -> str:
    """The seconds until a validation, which asks the API server, is answered."""
    return _until_answered(house, lambda client: client.validate(survivor_spec("looked-at")).launches)


def _answers_again(house: House) -> str:
    """The seconds until the list of experiments, which asks the database, is answered."""
    return _until_answered(house, lambda client: list(client.experiments()))


def _until_answered(house: House, ask: Callable[[Client], Any]) -> str:
    began = time.monotonic()

    def answers() -> bool:
        try:
            with house.release.client() as client:
                return bool(ask(client))
        except (SolfaError, AssertionError):
            return False  # not yet

    wait_for(answers, 240, every=0.5)
    return f"{time.monotonic() - began:.0f} s"
