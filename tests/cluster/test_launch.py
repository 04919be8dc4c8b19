"""Stages as elastic jobs of a real cluster: two pods in one world, adoption, failures, cancel, and what is said of one that waits."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import load_kube_config

from api.errors import ClusterUnavailable, LaunchRejected
from services.launch.cluster import AppPhase, LaunchRequest
from services.launch.kubernetes import KubernetesCluster
from tests.cluster.images import Images
from tests.cluster.kube import Namespace, run
from tests.cluster.launching import Launching, apply, make_launching, reaching
from tests.cluster.object_store import ObjectStore
from tests.services.waiting import wait_for

Make = Callable[..., Launching]


@pytest.fixture(scope="module")
def make(namespace: Namespace, images: Images, object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    folder = tmp_path_factory.mktemp("launching")
    with reaching(object_store):
        yield lambda **changes: make_launching(namespace, object_store, images.trainer, folder, **changes)


def test_two_pods_train_in_one_world_and_commit_and_nothing_is_left(make: Make) -> None:
    one = make(steps=60, compute={"replicas": {"min": 2, "max": 2}})
    one.runner.run("prepare")
    request = one.request("reference")
    one.cluster.launch(request)
    one.cluster.launch(request)  # a repeated launch finds the first
    assert list(one.cluster.look()) == [request.app]
    wait_for(lambda: one.cluster.status(request.app).workers_up == 2, 180, every=0.5)
    wait_for(lambda: (seen := one.report("reference")) and seen.world_size == 2, 120, every=0.5)
    one.until(request.app, AppPhase.SUCCEEDED)
    assert one.runner.result("reference").trained is not None
    lines = one.cluster.logs(request.app)
    assert {line[:3] for line in lines} == {"[0]", "[1]"}
    told = list(filter(None, one.cluster.follow(request.app)))  # a follower's pod may be gone by now; what it wrote is kept
    assert [line for line in told if line.startswith("[0]")] == [line for line in lines if line.startswith("[0]")]
    assert len(one.cluster.logs(request.app, 2)) == 2
    one.cluster.remove(request.app)
    one.until(request.app, AppPhase.ABSENT, seconds=60)
    wait_for(lambda: one.is_gone(request.app), 30, every=0.5)
    one.cluster.remove(request.app)  # an absent app is fine
    one.cluster.cancel(request.app)


def test_a_name_that_another_request_holds_is_refused(make: Make) -> None:
    one = make()
    request = one.request("prepare")
    one.cluster.launch(request)
    changed = request.config.model_copy(update={"spec_sha256": "1" * 64})
    with pytest.raises(LaunchRejected, match="another request"):
        one.cluster.launch(LaunchRequest(request.app, request.config_key, changed))
    one.cluster.remove(request.app)


def test_a_program_that_fails_ends_its_attempt_and_says_why(make: Make) -> None:
    one = make()
    request = one.request("reference")  # its data was never prepared
    one.cluster.launch(request)
    assert one.until(request.app, AppPhase.SUCCEEDED, AppPhase.FAILED).phase is AppPhase.SUCCEEDED
    failure = one.failure("reference")
    assert failure is not None
    assert not failure.retryable
    assert not one.is_committed("reference")
    assert any(failure.message in line for line in one.cluster.logs(request.app))
    one.cluster.remove(request.app)


def test_a_program_that_cannot_even_start_is_ended_and_is_not_called_lost(make: Make, namespace: Namespace) -> None:
    one = make(compute={"replicas": {"min": 1, "max": 1}})
    request = one.request("prepare")
    job = one.cluster.manifest(request)
    job["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["command"] = ["python", "-c", "import sys; print('no'); sys.exit(3)"]
    apply(namespace, job)
    ended = one.until(request.app, AppPhase.FAILED, seconds=300)
    assert (ended.exit_code, ended.lost) == (3, False)
    assert "exit code 3" in ended.message
    assert one.cluster.logs(request.app)[-1] == "[0] no"  # though its pod is gone
    one.cluster.remove(request.app)


def test_memory_that_runs_out_is_said(make: Make, namespace: Namespace) -> None:
    one = make(compute={"replicas": {"min": 1, "max": 1}})
    request = one.request("prepare")
    job = one.cluster.manifest(request)
    container = job["spec"]["tasks"][0]["template"]["spec"]["containers"][0]
    container["command"] = ["python", "-c", "held = [bytearray(1 << 26) for _ in range(1000)]"]
    apply(namespace, job)
    ended = one.until(request.app, AppPhase.FAILED)
    assert "OOMKilled" in ended.message
    assert not ended.lost
    one.cluster.remove(request.app)


def test_cancelled_it_saves_ends_and_keeps_its_last_lines(make: Make) -> None:
    one = make(steps=5000, save_every=5000)
    one.runner.run("prepare")
    request = one.request("reference")
    one.cluster.launch(request)
    wait_for(lambda: (seen := one.report("reference")) and seen.world_size == 2 and seen.step > 2, 240, every=0.5)
    one.cluster.cancel(request.app)
    one.cluster.cancel(request.app)
    assert one.until(request.app, AppPhase.CANCELLED, seconds=120).workers_up == 0
    failure = one.failure("reference")
    assert failure is not None
    assert failure.code == "interrupted"
    assert one.cluster.logs(request.app)
    one.cluster.remove(request.app)
    wait_for(lambda: one.is_gone(request.app), 60, every=0.5)


def test_a_stage_that_waits_says_for_what(make: Make, namespace: Namespace, images: Images) -> None:
    meta, capability = {"name": namespace.name}, {"cpu": "100m"}
    queue = {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue", "metadata": meta, "spec": {"capability": capability}}
    run("kubectl", "apply", "-f", "-", stdin=json.dumps(queue))
    cases = {
        "nvidia.com/gpu": make(compute={"gpus": 1}),
        "queue is full": make(place={"queue": namespace.name}),
        "cannot be pulled": make(place={"image": images.trainer.rpartition(":")[0] + ":none"}),
        'secret "none" not found': make(place={"secret": "none"}),
    }
    apps = {}
    for said, one in cases.items():
        apps[said] = one.request("prepare")
        one.cluster.launch(apps[said])
    for said, one in cases.items():
        wait_for(lambda one=one, said=said: said in one.cluster.status(apps[said].app).message, 90, every=0.5)
        assert one.cluster.status(apps[said].app).phase is not AppPhase.RUNNING or said.startswith("secret")
    for said, one in cases.items():
        one.cluster.remove(apps[said].app)
    run("kubectl", "delete", "queue.scheduling.volcano.sh", namespace.name, "--wait=false")


def test_a_used_up_quota_is_said(make: Make, namespace: Namespace) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    apply(namespace, quota)
    one = make()
    request = one.request("prepare")
    one.cluster.launch(request)
    try:
        wait_for(lambda: "quota" in one.cluster.status(request.app).message, 60, every=0.5)
    finally:
        namespace.kubectl("delete", "resourcequota", "none")
        one.cluster.remove(request.app)


def test_what_is_shown_is_what_is_created_and_admission_has_seen_it(make: Make, namespace: Namespace) -> None:
    one = make()
    request = one.request("prepare")
    shown = one.cluster.render(request)
    assert one.cluster.look() == {}  # nothing was created
    one.cluster.launch(request)
    found = json.loads(namespace.kubectl("get", f"jobs.batch.volcano.sh/{request.app}", "-o", "json"))
    assert shown["spec"].items() <= without_defaults(found["spec"], shown["spec"]).items()
    one.cluster.remove(request.app)
    elsewhere = make(place={"queue": "no-such-queue"})
    with pytest.raises(LaunchRejected, match="no-such-queue"):
        elsewhere.cluster.render(elsewhere.request("prepare"))


def without_defaults(found: Any, wanted: Any) -> Any:
    """`found`, without what the server added to it."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return {name: without_defaults(value, wanted[name]) for name, value in found.items() if name in wanted}
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [without_defaults(one, other) for one, other in zip(found, wanted, strict=True)]
    return found


def test_missing_verbs_are_named_at_start(make: Make, namespace: Namespace) -> None:
    rules = [
        {"apiGroups": ["batch.volcano.sh"], "resources": ["jobs"], "verbs": ["create", "get", "list", "delete", "patch"]},
        {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    meta = {"name": "poor"}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules}
    subject = {"kind": "ServiceAccount", "name": "poor", "namespace": namespace.name}
    bound = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "poor"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": bound,
        "subjects": [subject],
    }
    apply(namespace, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}, role, binding)
    token = namespace.kubectl("create", "token", "poor").strip()
    with pytest.raises(ClusterUnavailable) as told:
        KubernetesCluster(make().place, as_account(token)).check()
    assert "update jobs/status.batch.volcano.sh, delete pods" in told.value.message
    make().cluster.check()  # as an administrator all is well


def as_account(token: str) -> ApiClient:
    configuration = Configuration()
    load_kube_config(client_configuration=configuration)
    configuration.cert_file = configuration.key_file = None
    configuration.api_key = {"authorization": f"Bearer {token}"}
    return ApiClient(configuration)
