"""Cancelled while it is launched, nothing is left; of two that want a queue that fits one, the second waits, says so, and has its turn."""

import json

import pytest

from tests.cluster.kube import run
from tests.cluster.survival import House, Outcome, survivor_spec, watched
from tests.services.waiting import wait_for

ALL_OF_IT = "jobs.batch.volcano.sh,podgroups.scheduling.volcano.sh,pods,services,configmaps"


@pytest.mark.parametrize("phase", ["blocked", "launching", "queued", "running"])
def test_cancelled_while_it_is_launched_nothing_is_left(house: House, phase: str) -> None:
    with watched(house, survivor_spec(f"cancelled-{phase}")) as survivor:
        wait_for(lambda: phase in ("blocked", house.phases(survivor.id)["prepare"]) or _is_past(house, survivor.id), 120, every=0.005)
        with house.release.client() as client:
            client.cancel(survivor.id)
        record = house.release.finished(survivor.id)
        assert {stage.phase.value for stage in record.stages} == {"cancelled"}
        wait_for(lambda: not _left(house, survivor.id), 120, every=0.5)


def test_the_second_of_two_waits_for_a_queue_that_fits_one(house: House, undisturbed: Outcome) -> None:
    _limit(house, {"cpu": "700m"})  # two pods of 300m each
    try:
        with watched(house, survivor_spec("first")) as first:
            wait_for(lambda: house.phases(first.id)["prepare"] == "running", 180, every=0.2)
            with watched(house, survivor_spec("second")) as second:
                wait_for(lambda: "queue is full" in _message(house, second.id), 120, every=0.5)
                assert not any(pod["status"]["phase"] == "Running" for pod in second.pods("prepare"))
                assert first.outcome() == undisturbed
                assert second.outcome() == undisturbed
                assert (first.attempts(), second.attempts()) == (1, 1)
    finally:
        _limit(house, None)


def _is_past(house: House, experiment: str) -> bool:
    """A phase that lasts milliseconds may be over before it is seen."""
    return house.phases(experiment)["prepare"] not in ("blocked", "launching", "queued")


def _left(house: House, experiment: str) -> set[str]:
    found = house.namespace.get(ALL_OF_IT)
    return {one["metadata"]["name"] for one in found if one["metadata"]["name"].startswith(experiment)}


def _message(house: House, experiment: str) -> str:
    with house.release.client() as client:
        return next(stage.message for stage in client.get(experiment).stages if stage.name == "prepare")


def _limit(house: House, capability: dict[str, str] | None) -> None:
    patch = {"spec": {"capability": capability}}
    run("kubectl", "patch", "queue.scheduling.volcano.sh", house.namespace.name, "--type=merge", "--patch", json.dumps(patch))
