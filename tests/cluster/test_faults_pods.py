"""Pods, processes, apps and nodes that go while a proxy trains: it ends in the weights that it would have ended in.

SOLFA_CLUSTER_TOOL names the program that kills nodes (`node-kill n1`, `node-up n1`).
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest

from api.stage_config import StageReport
from tests.cluster.kube import Json, run
from tests.cluster.survival import SERVICE, House, Outcome, Survivor, survivor_spec, watched
from tests.services.waiting import wait_for

TOOL = os.environ.get("SOLFA_CLUSTER_TOOL", "")
needs_tool = pytest.mark.skipif(not TOOL, reason="needs SOLFA_CLUSTER_TOOL, which kills nodes")
Measured = Callable[[str, str], None]
WHERE_THE_WORLD_CHANGED = 1e-3  # of a weight: sums over ranks are rounded otherwise
KILL_WORKER = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
    if b"trainer" in words and b"torch.distributed.run" not in words:
        os.kill(int(pid), signal.SIGKILL)
"""


def test_a_deleted_worker_pod_is_replaced(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("pod-deleted")) as survivor:
        for number in (1, 0):
            before = survivor.until_training()
            house.namespace.kubectl("delete", "pod", survivor.pods()[number]["metadata"]["name"], "--wait=false")
            measured(f"pod {number} of 2 deleted: both train again", _resumed(survivor, before))
        assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 1


def test_a_killed_worker_process_is_started_again(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("process-killed")) as survivor:
        for number in (1, 0):
            before = survivor.until_training()
            house.namespace.kubectl("exec", survivor.pods()[number]["metadata"]["name"], "--", "python", "-c", KILL_WORKER)
            measured(f"worker process of pod {number} killed: both train again", _resumed(survivor, before))
        assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 1


def test_an_app_that_somebody_deleted_is_followed_by_another_attempt(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("app-deleted")) as survivor:
        before = survivor.until_training()
        house.namespace.kubectl("delete", "jobs.batch.volcano.sh", "--selector", f"solfa.dev/experiment={survivor.id}", "--wait=false")
        measured("the app deleted: the next attempt trains", _resumed(survivor, before))
        assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 2


@needs_tool
def test_a_lost_follower_is_done_without_and_taken_back(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("follower-lost", least=1)) as survivor:
        before = survivor.until_training()
        with dead(node_of(survivor, 1)):
            measured("the follower's node killed: the other trains alone", _resumed(survivor, before, 1))
            before = survivor.until_training(world=1)
        measured("the follower's node back: both train", _resumed(survivor, before))
        assert survivor.outcome().difference(undisturbed) < WHERE_THE_WORLD_CHANGED
        assert survivor.attempts() == 1


@needs_tool
@pytest.mark.parametrize("returns", [True, False], ids=["returns", "for-good"])
def test_pod_0_is_made_anew_on_another_node(house: House, undisturbed: Outcome, measured: Measured, returns: bool) -> None:
    with watched(house, survivor_spec(f"pod-0-lost-{'returns' if returns else 'for-good'}", least=1)) as survivor:
        before = survivor.until_training()
        with dead(node_of(survivor, 0)):
            how = _resumed(survivor, before, 1, 2)
            measured(f"the node of pod 0 killed{'' if returns else ' for good'}: it trains elsewhere", how)
            if not returns:
                assert survivor.outcome().difference(undisturbed) < WHERE_THE_WORLD_CHANGED
        assert survivor.outcome().difference(undisturbed) < WHERE_THE_WORLD_CHANGED
        assert survivor.attempts() == 1


def test_a_drain_of_every_node_in_turn(house: House, undisturbed: Outcome, measured: Measured) -> None:
    nodes = run("kubectl", "get", "nodes", "--output", "name").split()
    with watched(house, survivor_spec("drained")) as survivor:
        for node in nodes:
            before = survivor.until_training()
            try:
                run("kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
                measured(f"{node.removeprefix('node/')} drained: both train on what is left", _resumed(survivor, before))
            finally:
                run("kubectl", "uncordon", node)
        assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 1


def test_a_pod_that_matters_more_takes_the_place_of_one(house: House, undisturbed: Outcome, measured: Measured) -> None:
    with watched(house, survivor_spec("preempted")) as survivor:
        before = survivor.until_training()
        with preempting(house, survivor.pods()[1]["spec"]["nodeName"]):
            measured("a pod preempted: both train again", _resumed(survivor, before))
            assert survivor.outcome() == undisturbed
        assert survivor.attempts() == 1
        assert "Preempted" in house.namespace.kubectl("get", "events", "--output", "custom-columns=:reason", "--no-headers").split()


@contextmanager
def preempting(house: House, node: str) -> Iterator[None]:
    """While the context lasts, a pod of a higher priority is on `node` that had no room for it: the scheduler made it, of the youngest."""
    name = f"{house.namespace.name}-first"
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1000}
    run("kubectl", "create", "--filename", "-", stdin=json.dumps(priority))
    try:
        house.namespace.kubectl("create", "--filename", "-", stdin=json.dumps(_sleeper(house, name, node, _free(node) + Decimal("0.1"))))
        house.namespace.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=180s")
        yield
    finally:
        house.namespace.kubectl("delete", "pod", name, "--ignore-not-found", "--grace-period=1")
        run("kubectl", "delete", "priorityclass", name)


def _sleeper(house: House, name: str, node: str, cpus: Decimal) -> Json:
    """A pod that does nothing, in the image of the service."""
    (image,) = {pod["spec"]["containers"][0]["image"] for pod in house.namespace.get("pods", SERVICE)}
    container = {
        "name": "sleeper",
        "image": image,
        "command": ["python", "-c", "import time; time.sleep(36000)"],
        "resources": {"requests": {"cpu": str(cpus)}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "priorityClassName": name,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _free(node: str) -> Decimal:
    """CPUs of a node that nobody has asked for."""
    chosen = ("--all-namespaces", f"--field-selector=spec.nodeName={node}")
    pods = json.loads(run("kubectl", "get", "pods", *chosen, "--output", "json"))["items"]
    live = [pod for pod in pods if pod["status"]["phase"] not in ("Succeeded", "Failed")]
    asked = [one.get("resources", {}).get("requests", {}).get("cpu", "0") for pod in live for one in pod["spec"]["containers"]]
    there = json.loads(run("kubectl", "get", "node", node, "--output", "json"))["status"]["allocatable"]["cpu"]
    return _cpus(there) - sum(map(_cpus, asked))


def _cpus(quantity: str) -> Decimal:
    return Decimal(quantity[:-1]) / 1000 if quantity.endswith("m") else Decimal(quantity)


def node_of(survivor: Survivor, replica: int) -> str:
    """Whose pods are on two nodes."""
    nodes = [pod["spec"]["nodeName"] for pod in survivor.pods()]
    assert len(set(nodes)) == 2, nodes
    return str(nodes[replica])


@contextmanager
def dead(node: str) -> Iterator[None]:
    """While the context lasts, all of `node` is dead."""
    run(TOOL, "node-kill", node)
    try:
        yield
    finally:
        run(TOOL, "node-up", node)
        wait_for(lambda: " Ready " in run("kubectl", "get", "node", node), 120, every=1)


def _resumed(survivor: Survivor, before: StageReport, *worlds: int) -> str:
    """The seconds until it trains again, in a world of one of `worlds`; none given: of two."""
    began = time.monotonic()
    survivor.until_resumed(before, worlds or (2,))
    return f"{time.monotonic() - began:.0f} s"
