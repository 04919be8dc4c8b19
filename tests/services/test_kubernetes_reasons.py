"""Why an app waits, in one sentence, from what a real cluster said (Kubernetes 1.34, Volcano 1.14): in tests/golden/seen, its job, pods
and events."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.launch.cluster import AppPhase
from services.launch.volcano import read_status

SEEN = Path(__file__).parent.parent / "golden" / "seen"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpu", "No node has room for it: too little nvidia.com/gpu is free"),
        ("queue", "Its queue is full: too little cpu is left in it"),
        ("image", "Its image registry.example/none:1 cannot be pulled"),
    ],
)
def test_what_a_cluster_said(name: str, told: str) -> None:
    seen = json.loads((SEEN / f"{name}.json").read_text())
    status = read_status(seen["job"], seen["pods"], seen["events"])
    assert status.phase is AppPhase.PENDING
    assert status.message.startswith(told)
    assert status.message.endswith(".")


def pending(*conditions: dict[str, str]) -> dict[str, Any]:
    labels = {"torchx.pytorch.org/replica-id": "0"}
    return {"metadata": {"name": "x", "labels": labels}, "spec": {}, "status": {"phase": "Pending", "conditions": list(conditions)}}


def placed() -> dict[str, Any]:
    pod = pending({"type": "PodScheduled", "status": "True"})
    return {**pod, "spec": {"nodeName": "n0"}}


JOB = {"metadata": {"name": "x"}, "spec": {"minAvailable": 1}, "status": {"state": {"phase": "Pending"}}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
KUBERNETES = "0/3 nodes are unavailable: 1 Insufficient memory, 2 Insufficient nvidia.com/gpu."


@pytest.mark.parametrize(
    ("pods", "events", "told"),
    [
        ([pending({**UNSCHEDULABLE, "message": KUBERNETES})], [], "too little memory and nvidia.com/gpu is free"),
        (
            [pending({**UNSCHEDULABLE, "message": "0/3 nodes are unavailable: 3 node(s) had untolerated taint."})],
            [],
            "It waits for a node: 0/3",
        ),
        ([placed()], [{"type": "Warning", "reason": "Unschedulable", "message": "2 Binding"}], "pulls its image"),
        ([], [{"type": "Warning", "reason": "FailedCreate", "message": "pods is forbidden: exceeded quota: none"}], "quota is used up"),
        ([], [{"type": "Warning", "reason": "PluginError", "message": "no such\nplugin."}], "The cluster says: no such plugin."),
        ([], [{"type": "Normal", "reason": "Scheduled", "message": "all well"}], "It waits for its pods to start."),
        ([], [], "It waits for its pods to start."),
    ],
)
def test_other_words(pods: list[dict[str, Any]], events: list[dict[str, Any]], told: str) -> None:
    assert told in read_status(JOB, pods, events).message
