"""The service goes while a search runs: killed in every phase of a stage's life, killed while it leads, upgraded and rolled back."""

import time
from collections.abc import Callable
from dataclasses import replace

from tests.cluster.images import Images, relabelled
from tests.cluster.survival import SERVICE, House, Outcome, Survivor, survivor_spec, watched
from tests.services.waiting import wait_for

Measured = Callable[[str, str], None]
SEEN = {("prepare", "queued"), ("prepare", "running"), ("prepare", "succeeded"), ("proxy", "queued"), ("proxy", "running")}


def test_all_its_pods_are_killed_in_each_phase_of_a_stage(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("service-killed")) as survivor:
        killed = _at_each_phase(survivor, lambda: _kill(house, house.service_pods()))
        assert killed >= SEEN
        assert survivor.outcome() == undisturbed
        assert (survivor.attempts("prepare"), survivor.attempts()) == (1, 1)
        measured("both pods of the service killed: one answers", _answers_again(house, house.service_pods()))


def test_the_leader_is_killed_in_each_phase_of_a_stage(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("leader-killed")) as survivor:
        first = house.leader()[1]
        killed = _at_each_phase(survivor, lambda: _kill(house, [house.leader()[0]]))
        assert killed >= {("proxy", "queued"), ("proxy", "running")}
        assert survivor.outcome() == undisturbed
        assert (survivor.attempts("prepare"), survivor.attempts()) == (1, 1)
        assert house.leader()[1] > first  # another took over
    before = house.leader()
    began = time.monotonic()
    _kill(house, [before[0]])
    wait_for(lambda: house.leader()[1] > before[1], 120, every=0.1)
    measured("the leading pod killed: the other leads", f"{time.monotonic() - began:.0f} s")


def test_an_upgrade_and_a_rollback_leave_what_trains_alone(house: House, undisturbed: Outcome, images: Images) -> None:
    newer = relabelled(images)
    with watched(house, survivor_spec("upgraded")) as survivor:
        survivor.until_training()
        before = {pod["metadata"]["uid"] for pod in survivor.pods()}
        upgraded = replace(house.release, values=(*house.release.values, *newer.values()))
        upgraded.install()
        assert _images(house) == {newer.control}
        assert {pod["metadata"]["uid"] for pod in survivor.pods()} <= before  # untouched, or done already
        house.namespace.helm("rollback", "solfa", "--wait", "--timeout", "10m")
        assert _images(house) == {images.control}
        assert {pod["metadata"]["uid"] for pod in survivor.pods()} <= before
        assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 1


def _at_each_phase(survivor: Survivor, act: Callable[[], None]) -> set[tuple[str, str]]:
    """`act` as soon as a stage is seen in a phase for the first time, until the last has ended. What was seen."""
    seen: set[tuple[str, str]] = set()

    def over() -> bool:
        phases = survivor.house.phases(survivor.id)
        if fresh := set(phases.items()) - seen:
            seen.update(fresh)
            act()
        return all(phase in ("succeeded", "failed", "cancelled") for phase in phases.values())

    wait_for(over, 600, every=0.02)
    return seen


def _kill(house: House, pods: list[str]) -> None:
    """At once, as when their machine loses power: nothing is asked to stop."""
    if pods:
        house.namespace.kubectl("delete", "pod", *pods, "--grace-period=0", "--force", "--ignore-not-found", "--wait=false")


def _answers_again(house: House, pods: list[str]) -> str:
    _kill(house, pods)
    began = time.monotonic()
    wait_for(house.ready_pods, 120, every=0.2)
    return f"{time.monotonic() - began:.0f} s"


def _images(house: House) -> set[str]:
    pods = [pod for pod in house.namespace.get("pods", SERVICE) if "deletionTimestamp" not in pod["metadata"]]
    return {container["image"] for pod in pods for container in pod["spec"]["containers"]}
