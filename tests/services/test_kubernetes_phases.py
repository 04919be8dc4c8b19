"""What is read from a Volcano job and its pods: total, whatever they hold or lack."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchx.schedulers.kubernetes_scheduler import JOB_STATE

from services.launch.cluster import AppPhase
from services.launch.phases import to_phase
from services.launch.pods import BRIEF, CRASHES, OVERDUE, find_crash, is_stranded
from services.launch.volcano import PHASES, asked_replicas, read_status

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def job(phase: str, minimum: int = 1, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x", **metadata}, "spec": {"minAvailable": minimum}, "status": {"state": {"phase": phase}}}


def pod(replica: int = 0, phase: str = "Running", ready: str = "True", kubelet: str = "True", **more: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": kubelet}]
    labels = {"torchx.pytorch.org/replica-id": str(replica)}
    metadata = {"name": f"x-trainer-{replica}-0", "labels": labels, **more.pop("metadata", {})}
    return {"metadata": metadata, "spec": {"containers": [{"image": "i"}]}, "status": {"phase": phase, "conditions": conditions, **more}}


def ended(exit_code: int, seconds: float = 10, reason: str = "Error", restarts: int = CRASHES) -> dict[str, Any]:
    run = {"exitCode": exit_code, "reason": reason, "startedAt": at(-seconds), "finishedAt": at(0)}
    return {"containerStatuses": [{"restartCount": restarts, "lastState": {"terminated": run}, "state": {"running": {}}}]}


def test_every_phase_that_torchx_knows_is_ours_and_means_the_same() -> None:
    assert set(JOB_STATE) <= set(PHASES)
    assert {word: to_phase(state) for word, state in JOB_STATE.items()} == {word: PHASES[word] for word in JOB_STATE}


@pytest.mark.parametrize(
    ("seen", "pods", "expected"),
    [
        (None, [], (AppPhase.ABSENT, 0)),
        (None, [pod()], (AppPhase.RUNNING, 0)),  # its pods outlive it for a while, and no other attempt may start meanwhile
        (job("Pending"), [pod(phase="Pending", ready="False")], (AppPhase.PENDING, 0)),
        (job("Running"), [pod(0), pod(1)], (AppPhase.RUNNING, 2)),
        (job("Running"), [pod(0), pod(1, ready="False")], (AppPhase.RUNNING, 1)),
        (job("Running"), [pod(phase="Pending", ready="False")], (AppPhase.PENDING, 0)),  # preempted
        (job("Running"), [], (AppPhase.PENDING, 0)),
        (job("Running", minimum=2), [pod(0), pod(1, ready="False")], (AppPhase.PENDING, 1)),  # a node too few to train
        (job("Aborting"), [pod()], (AppPhase.RUNNING, 1)),
        (job("Running", deletionTimestamp=at(0)), [pod()], (AppPhase.RUNNING, 1)),
        (job("Aborted"), [], (AppPhase.CANCELLED, 0)),
        (job("Completed"), [pod(phase="Succeeded", ready="False")], (AppPhase.SUCCEEDED, 0)),
        (job("Sleeping"), [pod()], (AppPhase.UNKNOWN, 1)),
    ],
)
def test_phases(seen: dict[str, Any] | None, pods: list[dict[str, Any]], expected: tuple[AppPhase, int]) -> None:
    status = read_status(seen, pods, [])
    assert (status.phase, status.workers_up) == expected
    assert not status.lost


def test_an_end_that_the_cluster_made_is_no_failure_of_the_program() -> None:
    evicted = pod(phase="Failed", ready="False", reason="Evicted", message="The node was low on resource: memory.")
    status = read_status(job("Failed"), [evicted], [])
    assert (status.phase, status.lost) == (AppPhase.FAILED, True)
    assert "low on resource" in status.message


def test_a_crash_that_comes_again_for_ever_is_told_with_where_and_how() -> None:
    status = read_status(job("Running"), [pod(0), pod(1, **ended(137, reason="OOMKilled", restarts=1))], [])
    assert (status.phase, status.crashes, status.exit_code, status.failed_replica) == (AppPhase.RUNNING, True, 137, 1)
    assert not read_status(job("Aborting"), [pod(**ended(1))], []).crashes  # it is being ended for it
    assert not read_status(job("Completed"), [pod(**ended(1))], []).crashes


@pytest.mark.parametrize(("phase", "asked"), [("Running", 2), ("Pending", 2), ("Aborting", None), ("Completed", None)])
def test_the_machines_asked_for_are_told_while_they_can_be_changed(phase: str, asked: int | None) -> None:
    seen = job(phase)
    seen["spec"]["tasks"] = [{"replicas": 1}, {"replicas": 1}, {}]  # Volcano writes no nought
    assert read_status(seen, [pod()], []).replicas == asked
    assert asked_replicas(seen) == 2


@pytest.mark.parametrize(
    ("pods", "told"),
    [
        ([pod(**ended(1))], "exit code 1"),
        ([pod(**ended(137, reason="OOMKilled", restarts=1))], "OOMKilled"),
        ([pod(0), pod(1, **ended(137, reason="OOMKilled", restarts=1))], "OOMKilled"),
        ([pod(**ended(1, restarts=CRASHES - 1))], None),  # an agent may lose its rendezvous now and then
        ([pod(**ended(1, seconds=BRIEF.total_seconds() + 1))], None),  # it ran for long
        ([pod(0), pod(1, **ended(1, restarts=99))], None),  # the others go on without a follower
        ([pod(**ended(0))], None),
        ([pod()], None),
    ],
)
def test_a_program_that_would_crash_for_ever_is_told_from_one_that_lost_its_peers(pods: list[dict[str, Any]], told: str | None) -> None:
    crash = find_crash(pods)
    assert (crash is None) if told is None else (crash is not None and told in crash.message)


def test_a_pod_is_stranded_when_its_node_can_no_longer_end_it() -> None:
    asked = {"deletionTimestamp": at(45)}
    assert not is_stranded(pod(), NOW)
    assert not is_stranded(pod(ready="False"), NOW)  # its node may come back before it is asked to leave
    assert is_stranded(pod(ready="False", metadata=asked), NOW)  # the kubelet has not agreed that it is not ready: it is dead
    assert not is_stranded(pod(ready="False", kubelet="False", metadata=asked), NOW)  # a living kubelet is ending it
    overdue = NOW + timedelta(seconds=46) + OVERDUE
    assert is_stranded(pod(ready="False", kubelet="False", metadata=asked), overdue)
    assert is_stranded(pod(phase="Failed", ready="False"), NOW)  # evicted: Volcano replaces deleted pods, never failed ones


words = st.sampled_from([*PHASES, "Sleeping"])
fields = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "Running", "Failed", "Succeeded", "Unknown"]),
        "reason": st.text(max_size=5),
        "message": st.text(max_size=20),
        "conditions": st.lists(st.fixed_dictionaries({"type": st.sampled_from(["Ready", "PodScheduled"]), "status": st.just("False")})),
        "containerStatuses": st.lists(
            st.fixed_dictionaries(
                {"restartCount": st.integers(0, 9)},
                optional={
                    "state": st.sampled_from(
                        [{}, {"waiting": {}}, {"waiting": {"reason": "ErrImagePull"}}, {"terminated": {"exitCode": 1}}]
                    ),
                    "lastState": st.sampled_from(
                        [{}, {"terminated": {"exitCode": 1}}, {"terminated": {"exitCode": 9, "reason": "OOMKilled"}}]
                    ),
                },
            ),
            max_size=1,
        ),
    },
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(words, st.lists(fields, max_size=3), st.lists(st.dictionaries(st.sampled_from(["reason", "message", "type"]), st.text(max_size=9))))
def test_whatever_is_there_something_is_said(word: str, statuses: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
    pods = [{"metadata": {"name": "x", "labels": {}}, "spec": {"containers": [{"image": "i"}]}, "status": one} for one in statuses]
    seen = job(word)
    status = read_status(seen, pods, events)
    assert status.phase in AppPhase
    assert "\n" not in status.message
    find_crash(pods)
    assert read_status({"metadata": {}, "spec": {}}, pods, events).phase is AppPhase.PENDING
