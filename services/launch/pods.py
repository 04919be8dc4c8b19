"""What the pods of an app say of it, read from the objects that the API server sent: who is up, who is stranded, what crashes. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

Pod = dict[str, Any]

OVERDUE = timedelta(seconds=30)  # after a pod's own grace: its node has not confirmed its end, and will not
CRASHES = 3  # restarts of pod 0's container, close together, that make a crash loop; one of them is torchrun's all RESTARTS
BRIEF = timedelta(minutes=10)  # a run shorter than this is a crash; the kubelet forgives after the same time


@dataclass(frozen=True)
class Crash:
    """Why an app is to be ended, because it cannot do it by itself: its pods would restart for ever."""

    replica: int
    exit_code: int
    message: str


def replica(pod: Pod) -> int:
    """Its number within the app."""
    return int(pod["metadata"]["labels"].get("torchx.pytorch.org/replica-id", 0))


def is_up(pod: Pod) -> bool:
    """Whether it has its node, as far as that is known to live; its container may be starting again."""
    running = pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    return running and not is_cut_off(pod)


def is_stranded(pod: Pod, now: datetime) -> bool:
    """Whether it will neither run nor go by itself: evicted, or asked to end on a node that is dead. Volcano replaces it once gone."""
    metadata = pod["metadata"]
    if "deletionTimestamp" not in metadata:
        return bool(pod["status"].get("phase") == "Failed")
    return is_cut_off(pod) or now > parse_time(metadata["deletionTimestamp"]) + OVERDUE


def is_cut_off(pod: Pod) -> bool:
    """Whether its node is dead. It shows: the control plane takes `Ready` back, and the kubelet's own `ContainersReady` stays."""
    return _condition(pod, "Ready").get("status") == "False" and _condition(pod, "ContainersReady").get("status") == "True"


def find_crash(pods: list[Pod]) -> Crash | None:
    """A crash that comes again for ever: out of memory, or pod 0's container time after time. A follower's is left to the others."""
    for pod in sorted(pods, key=replica):
        status = container_status(pod)
        last = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
        if last is None or last.get("exitCode", 0) == 0:
            continue
        if last.get("reason") == "OOMKilled":
            return Crash(replica(pod), last["exitCode"], f"Replica {replica(pod)} ran out of memory (OOMKilled); give it more memory_mb.")
        if replica(pod) == 0 and status.get("restartCount", 0) >= CRASHES and _was_brief(last):
            return Crash(0, last["exitCode"], f"Its program ended with exit code {last['exitCode']}, {status['restartCount'] + 1} times.")
    return None


def container_status(pod: Pod) -> dict[str, Any]:
    """Of its only container; empty before there is one."""
    found: list[dict[str, Any]] = pod["status"].get("containerStatuses") or [{}]
    return found[0]


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _was_brief(terminated: dict[str, Any]) -> bool:
    if not (terminated.get("startedAt") and terminated.get("finishedAt")):
        return True
    return parse_time(terminated["finishedAt"]) - parse_time(terminated["startedAt"]) < BRIEF


def _condition(pod: Pod, kind: str) -> dict[str, Any]:
    return next((one for one in pod["status"].get("conditions", []) if one["type"] == kind), {})
