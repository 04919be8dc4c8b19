"""KubernetesCluster against a small API server: who looks changes nothing; adoption, resize, healing and ending, each again and again."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from obstore.store import MemoryStore

from api.bucket import Bucket
from api.errors import LaunchRejected
from services.launch import kubernetes
from services.launch.cluster import AppPhase, LaunchRequest
from services.launch.kubernetes import KubernetesCluster
from services.reconciler import Reconciler
from services.store import open_store
from tests.builders import START, make_experiment, make_spec
from tests.services.kube_server import KubeServer, kube_server
from tests.services.test_appdef import request
from tests.services.test_kubernetes_manifests import PLAIN

ELASTIC = make_spec(compute={"proxy": {"replicas": {"min": 1, "max": 3}}})
PROXY = request(ELASTIC, "proxy")


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with kube_server() as server:
        yield server


@pytest.fixture
def cluster(kube: KubeServer) -> Iterator[KubernetesCluster]:
    made = KubernetesCluster(PLAIN, kube.client())
    yield made
    made.close()


def pods_of(kube: KubeServer) -> list[str]:
    return sorted(name.removeprefix(PROXY.app) for name in kube.pods)


def test_a_resize_is_one_patch_that_keeps_pod_0_and_the_same_again_is_none(kube: KubeServer, cluster: KubernetesCluster) -> None:
    cluster.launch(PROXY)
    assert cluster.status(PROXY.app).replicas == 3
    uid = kube.pods[f"{PROXY.app}-trainer-0-0"]["metadata"]["uid"]
    for wanted, left in (
        (1, ["-trainer-0-0"]),
        (3, ["-trainer-0-0", "-trainer-1-0", "-trainer-2-0"]),
        (2, ["-trainer-0-0", "-trainer-1-0"]),
    ):
        kube.calls.clear()
        cluster.resize(PROXY.app, wanted)
        cluster.resize(PROXY.app, wanted)
        assert [call.partition(" ")[0] for call in kube.calls] == ["PATCH"]
        assert pods_of(kube) == left
        assert cluster.status(PROXY.app).replicas == wanted
        assert kube.pods[f"{PROXY.app}-trainer-0-0"]["metadata"]["uid"] == uid
    assert kube.jobs[PROXY.app]["spec"]["minAvailable"] == 1


def test_fewer_than_the_spec_allows_is_refused_by_the_cluster_itself(kube: KubeServer, cluster: KubernetesCluster) -> None:
    fixed = request(make_spec(compute={"proxy": {"replicas": {"min": 2, "max": 2}}}), "proxy")
    cluster.launch(fixed)
    with pytest.raises(LaunchRejected, match="minAvailable"):
        cluster.resize(fixed.app, 1)
    assert len(kube.pods) == 2


def test_a_launch_after_a_resize_begins_with_so_many_and_a_repeated_one_is_an_adoption(
    kube: KubeServer, cluster: KubernetesCluster
) -> None:
    fewer = replace(PROXY, replicas=1)
    full, less = cluster.manifest(PROXY), copy.deepcopy(cluster.manifest(fewer))
    assert [task.pop("replicas") for task in less["spec"]["tasks"]] == [1, 0, 0]
    assert [task.pop("replicas") for task in full["spec"]["tasks"]] == [1, 1, 1]
    assert less == full  # the world's range too: torchrun takes in what comes later
    cluster.launch(fewer)
    assert pods_of(kube) == ["-trainer-0-0"]
    cluster.launch(PROXY)
    cluster.launch(fewer)
    cluster.resize(PROXY.app, 2)
    cluster.launch(fewer)
    assert len(pods_of(kube)) == 2
    other = PROXY.config.model_copy(update={"spec_sha256": "1" * 64})
    with pytest.raises(LaunchRejected, match="another request"):
        cluster.launch(LaunchRequest(PROXY.app, PROXY.config_key, other))


def test_a_job_of_the_same_name_made_since_is_not_resized(kube: KubeServer, cluster: KubernetesCluster) -> None:
    cluster.launch(PROXY)
    seen = copy.deepcopy(kube.jobs[PROXY.app])
    kube.jobs[PROXY.app]["metadata"]["uid"] = "another"
    with pytest.raises(LaunchRejected):
        cluster._server.patch_job(seen, {"/spec/tasks/2/replicas": 0})
    assert len(kube.pods) == 3


def test_what_is_absent_ending_or_ended_is_left_alone(kube: KubeServer, cluster: KubernetesCluster) -> None:
    for call in (cluster.cancel, cluster.heal, cluster.remove, lambda app: cluster.resize(app, 1)):
        call("none")
    kube.ends = False
    cluster.launch(PROXY)
    cluster.cancel(PROXY.app)
    assert cluster.status(PROXY.app).ending
    calls = len(kube.calls)
    cluster.cancel(PROXY.app)
    cluster.resize(PROXY.app, 1)
    assert len(kube.calls) == calls
    kube.ends = True
    kube.settle(kube.jobs[PROXY.app])
    assert cluster.status(PROXY.app).phase is AppPhase.CANCELLED
    cluster.resize(PROXY.app, 1)
    assert len(kube.calls) == calls


def strand(kube: KubeServer, pod: str) -> None:
    """As when its node has died, and the pod was asked to leave it."""
    kube.pods[pod]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    kube.pods[pod]["status"]["conditions"][0]["status"] = "False"


def test_a_look_changes_nothing_whatever_it_sees(kube: KubeServer, cluster: KubernetesCluster) -> None:
    """Any replica of the service may look, for a request: only who holds the lease may act."""
    cluster.launch(PROXY)
    kube.crashes(f"{PROXY.app}-trainer-0-0", 3, restarts=5)
    strand(kube, f"{PROXY.app}-trainer-1-0")
    kube.calls.clear()
    seen = cluster.status(PROXY.app)
    assert (seen.crashes, seen.stranded, seen.exit_code, seen.failed_replica) == (True, True, 3, 0)
    assert kube.calls == []


def test_what_is_stranded_is_replaced_and_no_other(kube: KubeServer, cluster: KubernetesCluster) -> None:
    cluster.launch(PROXY)
    before = {name: pod["metadata"]["uid"] for name, pod in kube.pods.items()}
    strand(kube, f"{PROXY.app}-trainer-1-0")
    cluster.heal(PROXY.app)
    cluster.heal(PROXY.app)
    after = {name: pod["metadata"]["uid"] for name, pod in kube.pods.items()}
    assert {name.removeprefix(PROXY.app) for name in after if after[name] != before[name]} == {"-trainer-1-0"}
    assert not cluster.status(PROXY.app).stranded
    strand(kube, f"{PROXY.app}-trainer-0-0")
    cluster.cancel(PROXY.app)  # a pod that nobody can reach must not hold up its end
    assert cluster.status(PROXY.app).phase is AppPhase.CANCELLED


def test_one_look_says_of_each_what_its_status_says(kube: KubeServer, cluster: KubernetesCluster) -> None:
    running, waiting, ending, orphaned = (replace(PROXY, app=f"xaaaaaaaaa{letter}-proxy-1") for letter in "abcd")
    for one in (running, waiting, ending, orphaned):
        cluster.launch(one)
    for name in [name for name in kube.pods if name.startswith(waiting.app)]:
        kube.pods[name]["status"]["phase"] = "Pending"
    kube.jobs[ending.app]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    del kube.jobs[orphaned.app]  # its pods are still there, so nothing else may run in their place
    seen = cluster.look()
    assert seen == {one.app: cluster.status(one.app) for one in (running, waiting, ending, orphaned)}
    assert [seen[one.app].phase for one in (running, waiting)] == [AppPhase.RUNNING, AppPhase.PENDING]
    assert [(seen[one.app].phase, seen[one.app].ending) for one in (ending, orphaned)] == [(AppPhase.RUNNING, True)] * 2


def test_a_look_asks_as_much_of_the_server_for_many_as_for_one(kube: KubeServer, cluster: KubernetesCluster) -> None:
    asked = []
    for letter in "abcdef":
        cluster.launch(replace(PROXY, app=f"xaaaaaaaaa{letter}-proxy-1"))
        kube.looks.clear()
        cluster.look()
        asked.append(len(kube.looks))
    assert asked == [2] * 6, "jobs and pods"


def test_events_of_what_waits_are_not_asked_for_at_every_look(
    kube: KubeServer, cluster: KubernetesCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(kubernetes, "time", SimpleNamespace(monotonic=lambda: now))
    cluster.launch(PROXY)
    for pod in kube.pods.values():
        pod["status"]["phase"] = "Pending"
    for later, asked in ((0.0, 4), (1.0, 2), (kubernetes.EVENTS_SECONDS, 4)):
        kube.looks.clear()
        now = 100.0 + later
        cluster.look()
        assert len(kube.looks) == asked


def test_what_is_launched_carries_its_project(kube: KubeServer, cluster: KubernetesCluster, tmp_path: Path) -> None:
    """For a person's `kubectl get pods -l`, a network policy and the chart's monitor of training pods; not for the trainer."""
    store = open_store(f"sqlite:///{tmp_path}/solfa.db")
    store.create(make_experiment().model_copy(update={"project": "speech-2"}), None, START)
    Reconciler(store, cluster, Bucket(MemoryStore(), "memory://")).run_once()
    store.close()
    (job,) = kube.jobs.values()
    labels = [job["metadata"]["labels"], *(pod["metadata"]["labels"] for pod in kube.pods.values())]
    assert len(labels) == 2
    assert {one["solfa.dev/project"] for one in labels} == {"speech-2"}
    assert "speech-2" not in str([task["template"]["spec"] for task in job["spec"]["tasks"]])
