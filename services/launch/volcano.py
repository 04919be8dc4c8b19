"""A Volcano job and its pods as an AppStatus: a total table of phases, and no more than was said. Pure."""

from typing import Any

from services.launch.cluster import AppPhase, AppStatus
from services.launch.pods import Pod, container_status, find_crash, is_up, replica
from services.launch.reasons import one_line, why_waiting

PHASES: dict[str, AppPhase] = {
    "": AppPhase.PENDING,  # Volcano has not looked at it yet
    "Pending": AppPhase.PENDING,
    "Running": AppPhase.RUNNING,
    "Restarting": AppPhase.RUNNING,
    "Aborting": AppPhase.RUNNING,  # its pods may still be there, and no other attempt may start beside them
    "Completing": AppPhase.RUNNING,
    "Terminating": AppPhase.RUNNING,
    "Aborted": AppPhase.CANCELLED,
    "Completed": AppPhase.SUCCEEDED,
    "Terminated": AppPhase.FAILED,
    "Failed": AppPhase.FAILED,
}
ENDED = (AppPhase.CANCELLED, AppPhase.SUCCEEDED, AppPhase.FAILED)


def phase_word(job: dict[str, Any]) -> str:
    """Volcano's own word."""
    return str(((job.get("status") or {}).get("state") or {}).get("phase") or "")


def is_ending(job: dict[str, Any]) -> bool:
    """Whether its pods are being taken away."""
    return "deletionTimestamp" in job["metadata"] or phase_word(job) in ("Aborting", "Completing", "Terminating")


def read_status(job: dict[str, Any] | None, pods: list[Pod], events: list[dict[str, Any]]) -> AppStatus:
    """`events` are those on the job and its pod group; they are asked for no more than where it waits."""
    if job is None:
        return AppStatus(AppPhase.RUNNING, message="It is being removed.", ending=True) if pods else AppStatus(AppPhase.ABSENT)
    up = sum(is_up(pod) for pod in pods)
    if is_ending(job):
        return AppStatus(AppPhase.RUNNING, up, "It is being ended.", ending=True)
    phase = PHASES.get(phase_word(job), AppPhase.UNKNOWN)
    if phase in ENDED:
        return _ended(job, pods, phase)
    if phase is AppPhase.RUNNING and waits(job, pods):
        phase = AppPhase.PENDING  # evicted, preempted, or a node too few: Volcano calls Running whatever has once run
    asked = asked_replicas(job)
    if crash := find_crash(pods):
        return AppStatus(phase, up, crash.message, crash.exit_code, crash.replica, crashes=True, replicas=asked)
    return AppStatus(phase, up, why_waiting(pods, events) if waits(job, pods) else "", replicas=asked)


def asked_replicas(job: dict[str, Any]) -> int:
    """Machines that the job is asked to have: each is a task of its own. Volcano leaves a nought out."""
    return sum(task.get("replicas", 0) for task in job["spec"].get("tasks", []))


def waits(job: dict[str, Any], pods: list[Pod]) -> bool:
    """Whether fewer pods are up than the job needs."""
    return not is_ending(job) and sum(map(is_up, pods)) < job["spec"].get("minAvailable", 1)


def _ended(job: dict[str, Any], pods: list[Pod], phase: AppPhase) -> AppStatus:
    """An end that nobody here asked for, and no container shows, is the platform's."""
    if phase is not AppPhase.FAILED:
        return AppStatus(phase, exit_code=0 if phase is AppPhase.SUCCEEDED else None)
    for pod in sorted(pods, key=replica):
        ended = container_status(pod).get("state", {}).get("terminated") or {}
        if ended.get("exitCode") and not pod["status"].get("reason"):  # a pod that has a reason was evicted
            how = "ran out of memory (OOMKilled)" if ended.get("reason") == "OOMKilled" else f"ended with exit code {ended['exitCode']}"
            return AppStatus(phase, message=f"Replica {replica(pod)} {how}.", exit_code=ended["exitCode"], failed_replica=replica(pod))
    told = [pod["status"].get("message") for pod in pods] + [((job.get("status") or {}).get("state") or {}).get("message")]
    said = next((one_line(message) for message in told if message), "")
    return AppStatus(phase, message=f"The cluster ended it: {said}." if said else "The cluster ended it.", lost=True)
