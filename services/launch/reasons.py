"""Why an app waits, in one sentence for a person: from its pods' conditions, its job's, and the events on them. Pure."""

import re
from typing import Any

from services.launch.pods import Pod, container_status, is_up, replica

NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
NOT_MADE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
PLAIN = "It waits for its pods to start."


def why_waiting(pods: list[Pod], events: list[dict[str, Any]]) -> str:
    """The first that is known, from the most telling to the least."""
    waiting = [pod for pod in sorted(pods, key=replica) if not is_up(pod)]
    told = [_of_container, _of_scheduling, _of_ending, _of_making]
    sentences = [sentence for tell in told for pod in waiting if (sentence := tell(pod))]
    return next(iter([*sentences, *_of_events(events)]), PLAIN)


def _of_container(pod: Pod) -> str | None:
    status = container_status(pod)
    waiting = status.get("state", {}).get("waiting") or {}
    reason, said = waiting.get("reason", ""), one_line(waiting.get("message", ""))
    if reason in NO_IMAGE:
        image = pod["spec"]["containers"][0]["image"]
        return f"Its image {image} cannot be pulled{_because(said)}."
    if reason in NOT_MADE:
        return f"The container of replica {replica(pod)} cannot be started{_because(said or reason)}."
    return None


def _of_scheduling(pod: Pod) -> str | None:
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unschedulable(condition.get("message", ""))
    return None


def _of_ending(pod: Pod) -> str | None:
    return f"Replica {replica(pod)} is leaving its node, and a new one follows." if "deletionTimestamp" in pod["metadata"] else None


def _of_making(pod: Pod) -> str | None:
    """It has its node; whatever was said of the time before is over."""
    placed = bool(pod["spec"].get("nodeName")) and pod["status"].get("phase") == "Pending"
    return f"Replica {replica(pod)} has a node, which pulls its image and makes its container." if placed else None


def _of_events(events: list[dict[str, Any]]) -> list[str]:
    """Warnings and refusals, newest first."""
    newest = sorted(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), reverse=True)
    sentences = []
    for event in newest:
        said = one_line(event.get("message", ""))
        if "exceeded quota" in said:
            sentences.append(f"The namespace's quota is used up: {said}.")
        elif event.get("reason") in ("Unschedulable", "NotEnoughResources", "FailedScheduling"):
            sentences.append(_unschedulable(said))
        elif event.get("type") == "Warning":
            sentences.append(f"The cluster says: {said}.")
    return sentences


def _unschedulable(said: str) -> str:
    """Volcano's words ("queue resource quota insufficient: insufficient cpu", "overused nvidia.com/gpu") and Kubernetes' own."""
    text = one_line(said)
    missing = " and ".join(sorted(set(re.findall(r"(?:[Ii]nsufficient|overused) ([a-z0-9./-]*[a-z0-9])(?=$|[,.; (])", text))))
    if "quota insufficient" in text or "not enough quota" in text:
        return f"Its queue is full: too little {missing or 'room'} is left in it ({text})."
    if missing:
        return f"No node has room for it: too little {missing} is free ({text})."
    return f"It waits for a node: {text}." if text else PLAIN


def _because(said: str) -> str:
    return f": {said}" if said else ""


def one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
