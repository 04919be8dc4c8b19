"""A node dies under an elastic stage: the follower's, and that of pod 0, which keeps the rendezvous. What is measured is printed.

SOLFA_CLUSTER_TOOL names the program that kills nodes (`node-kill n1`, `node-up n1`).
"""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from services.launch.cluster import AppPhase
from tests.cluster.images import Images
from tests.cluster.kube import Namespace, run
from tests.cluster.launching import Launching, make_launching, reaching
from tests.cluster.object_store import ObjectStore
from tests.services.waiting import wait_for

TOOL = os.environ.get("SOLFA_CLUSTER_TOOL", "")
pytestmark = pytest.mark.skipif(not TOOL, reason="needs SOLFA_CLUSTER_TOOL, which kills nodes")
Make = Callable[..., Launching]


@pytest.fixture(scope="module")
def make(namespace: Namespace, images: Images, object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    folder = tmp_path_factory.mktemp("launching")
    with reaching(object_store):
        yield lambda **changes: make_launching(namespace, object_store, images.trainer, folder, **changes)


def node_of(namespace: Namespace, app: str, replica: int) -> str:
    return str(namespace.get("pods", f"volcano.sh/job-name={app},torchx.pytorch.org/replica-id={replica}")[0]["spec"].get("nodeName", ""))


class Watch:
    """An app, looked at as the reconciler looks, until something is seen; and how long that took."""

    def __init__(self, one: Launching, app: str) -> None:
        self.one, self.app = one, app

    def world(self, size: int, beyond: int, seconds: float) -> float:
        """Until a world of `size` has trained past step `beyond`. Returns the seconds it took."""
        began = time.monotonic()

        def seen() -> bool:
            self.one.cluster.status(self.app)
            report = self.one.report("reference")
            return report is not None and report.world_size == size and report.step > beyond

        wait_for(seen, seconds, every=0.5)
        return time.monotonic() - began

    @property
    def step(self) -> int:
        report = self.one.report("reference")
        return report.step if report else 0


@pytest.fixture
def training(make: Make) -> Iterator[Watch]:
    """A stage that trains in a world of two, a pod on each node, saving often."""
    one = make(steps=100_000, save_every=20, evaluate_every=100_000, compute={"cpus": 0.3, "memory_mb": 1000})
    one.runner.run("prepare")
    request = one.request("reference")
    began = time.monotonic()
    one.cluster.launch(request)
    watch = Watch(one, request.app)
    watch.world(2, 20, 300)
    print(f"\nMEASURED two pods train {time.monotonic() - began:.0f} s after the launch")
    yield watch
    one.cluster.remove(request.app)
    one.until(request.app, AppPhase.ABSENT, seconds=120)


def test_a_lost_follower_is_done_without_and_taken_back(training: Watch, namespace: Namespace) -> None:
    lost = node_of(namespace, training.app, 1)
    assert lost != node_of(namespace, training.app, 0)
    run(TOOL, "node-kill", lost)
    try:
        print(f"\nMEASURED alone {training.world(1, 0, 120):.0f} s after the follower's node died")
    finally:
        run(TOOL, "node-up", lost)
    print(f"MEASURED together again {training.world(2, 0, 240):.0f} s after the node came back")
    assert training.one.failure("reference") is None or training.one.failure("reference").code == "interrupted"  # type: ignore[union-attr]


def test_a_lost_pod_0_is_made_anew_elsewhere(training: Watch, namespace: Namespace) -> None:
    lost = node_of(namespace, training.app, 0)
    before = training.step
    run(TOOL, "node-kill", lost)
    try:
        began = time.monotonic()
        wait_for(
            lambda: training.one.cluster.status(training.app) and node_of(namespace, training.app, 0) not in ("", lost), 120, every=0.5
        )
        print(f"\nMEASURED pod 0 is elsewhere {time.monotonic() - began:.0f} s after its node died")
        training.world(2, before, 240)
        print(f"MEASURED trains again {time.monotonic() - began:.0f} s after the node of pod 0 died")
    finally:
        run(TOOL, "node-up", lost)
