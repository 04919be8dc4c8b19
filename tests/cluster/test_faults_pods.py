"""Pods, processes, apps and nodes that go while a proxy trains: it ends in the weights that it would have ended in.

SOLFA_CLUSTER_TOOL names the program that kills nodes (`node-kill n1`, `node-up n1`).
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from api.stage_config import StageReport
from tests.cluster.kube import run
from tests.cluster.survival import House, Outcome, Survivor, survivor_spec, watched
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
