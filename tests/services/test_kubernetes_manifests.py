"""What is created on a cluster, as a reviewer can read it: the Volcano job of a stage for three places, against golden files."""

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.client import ApiClient, Configuration

from api.errors import ClusterUnavailable, LaunchRejected
from api.spec import ExperimentSpec
from services.launch.appdef import identity
from services.launch.kubernetes import KubernetesCluster
from services.launch.manifest import Place
from services.server import place
from services.settings import Settings
from tests.builders import make_spec
from tests.reference import assert_golden
from tests.services.test_appdef import request

PLAIN = Place("s3://weights/solfa", "registry.example/solfa-trainer:1")
FULL = {
    "SOLFA_CLUSTER": "kubernetes",
    "SOLFA_BUCKET_URL": "s3://weights/solfa",
    "SOLFA_NAMESPACE": "research",
    "SOLFA_TRAINER_IMAGE": "registry.example/solfa-trainer:1",
    "SOLFA_QUEUE": "night",
    "SOLFA_PRIORITY_CLASS": "batch-low",
    "SOLFA_TRAINER_SERVICE_ACCOUNT": "solfa-trainer",
    "SOLFA_TRAINER_SECRET": "solfa-s3",
    "SOLFA_IMAGE_PULL_SECRETS": "registry, mirror",
    "SOLFA_NODE_SELECTOR": '{"pool": "gpu"}',
    "SOLFA_TRAINER_ENV": '{"AWS_ENDPOINT_URL": "http://s3.example:8333", "AWS_ALLOW_HTTP": "true"}',
    "SOLFA_SHM_MB": "8192",
    "SOLFA_GPU_RESOURCE": "devices.example/gpu",
    "SOLFA_DATA_CLAIMS": '{"pile": "/data/pile"}',
    "SOLFA_RELEASE": "doremi",
    "SOLFA_TRAINER_METRICS_PORT": "9400",
}
GPUS = {"replicas": {"min": 2, "max": 4}, "processes": 8, "cpus": 64, "gpus": 8, "memory_mb": 1_000_000, "parallelism": "fsdp"} | {
    "resources": {"rdma/hca": 2}
}
CASES: dict[str, tuple[Place, ExperimentSpec, str]] = {
    "plain": (PLAIN, make_spec(), "prepare"),
    "elastic": (PLAIN, make_spec(compute={"proxy": {"replicas": {"min": 1, "max": 2}, "cpus": 0.5, "memory_mb": 1024}}), "proxy"),
    "gpus": (place(Settings.from_environment(FULL), "s3://weights/solfa"), make_spec(compute={"main": GPUS}), "main"),
}


def cluster(where: Place) -> KubernetesCluster:
    """One that no server answers: rendering needs none."""
    nowhere = Configuration(host="http://127.0.0.1:9")
    nowhere.retries = False
    return KubernetesCluster(where, ApiClient(nowhere))


def rendered(where: Place, spec: ExperimentSpec, stage: str, attempt: int = 1) -> dict[str, Any]:
    return cluster(where).manifest(request(spec, stage, attempt))


@pytest.mark.parametrize("case", CASES)
def test_the_job_is_as_its_golden_file_says(case: str) -> None:
    shown = yaml.safe_dump(rendered(*CASES[case]), sort_keys=True)
    shown = re.sub("torchx.pytorch.org/version: .*", "torchx.pytorch.org/version: any", shown)
    assert_golden(f"manifests/{case}.yaml", shown)


def test_the_same_request_gives_the_same_job_and_its_name_is_the_apps() -> None:
    spec = make_spec()
    first, again = rendered(PLAIN, spec, "proxy"), rendered(PLAIN, spec, "proxy")
    assert first == again
    assert first["metadata"]["name"] == request(spec, "proxy").app
    assert first["metadata"]["annotations"]["solfa.dev/request"] == identity(request(spec, "proxy"))
    assert rendered(PLAIN, spec, "proxy", 2)["metadata"]["annotations"] != first["metadata"]["annotations"]


def test_without_a_server_that_answers_it_is_shown_all_the_same() -> None:
    assert cluster(PLAIN).render(request(make_spec(), "proxy")) == rendered(PLAIN, make_spec(), "proxy")


def test_no_secret_is_in_it_but_by_name() -> None:
    shown = yaml.safe_dump(rendered(*CASES["gpus"]))
    assert "secretRef" in shown
    assert "AWS_SECRET_ACCESS_KEY" not in shown


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    st.fixed_dictionaries(
        {
            "replicas": st.integers(1, 3).flatmap(
                lambda least: st.fixed_dictionaries({"min": st.just(least), "max": st.integers(least, 4)})
            ),
            "processes": st.integers(1, 8),
            "cpus": st.floats(0.1, 32),
            "gpus": st.integers(0, 8),
            "memory_mb": st.integers(64, 100_000),
            "resources": st.dictionaries(st.sampled_from(["rdma/hca", "example.com/Nic_0"]), st.integers(1, 4)),
        }
    ),
    st.sampled_from(["prepare", "proxy", "main", "evaluate"]),
)
def test_every_pod_is_restricted_and_every_job_elastic(compute: dict[str, Any], stage: str) -> None:
    job = rendered(PLAIN, make_spec(compute={"default": compute}), stage)
    tasks, least, most = job["spec"]["tasks"], compute["replicas"]["min"], compute["replicas"]["max"]
    assert (job["spec"]["minAvailable"], len(tasks)) == (least, most)
    assert [task["minAvailable"] for task in tasks] == [1] * least + [0] * (most - least)
    assert [bool(task["policies"]) for task in tasks] == [True] + [False] * (most - 1)
    hosts = []
    for task in tasks:
        pod = task["template"]["spec"]
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (security["allowPrivilegeEscalation"], security["capabilities"]) == (False, {"drop": ["ALL"]})
        assert security["readOnlyRootFilesystem"]
        assert {item["name"] for item in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
        assert all("hostPath" not in volume for volume in pod["volumes"])
        assert f"{least}:{most}" in container["command"]
        hosts += [entry["value"] for entry in container["env"] if entry["name"] == "SOLFA_HOSTS_RENDEZVOUS"]
        assert container["resources"]["limits"].get("nvidia.com/gpu", "0") == str(compute["gpus"])
        given, limited = container["resources"]["requests"], container["resources"]["limits"]
        for name, count in compute["resources"].items():
            assert given[name] == limited[name] == str(count)
        assert set(given) == set(limited) == {"cpu", "memory", *compute["resources"], *(["nvidia.com/gpu"] if compute["gpus"] else [])}
        assert len({entry["name"] for entry in container["env"]}) == len(container["env"])
    assert hosts == ["true"] + ["false"] * (most - 1)


def test_a_gpu_by_its_own_name_is_refused_where_it_would_be_counted_twice() -> None:
    spec = make_spec(compute={"proxy": {"gpus": 1, "resources": {"nvidia.com/gpu": 1}}})
    with pytest.raises(
        LaunchRejected, match=r"proxy asks for nvidia\.com/gpu by name, which is a GPU here; say how many with compute\.gpus"
    ):
        rendered(PLAIN, spec, "proxy")
    assert rendered(replace(PLAIN, gpu_resource="amd.com/gpu"), spec, "proxy")


def test_a_bucket_on_a_volume_is_mounted_in_every_pod_where_its_address_says() -> None:
    settings = {
        "SOLFA_CLUSTER": "kubernetes",
        "SOLFA_TRAINER_IMAGE": "t",
        "SOLFA_BUCKET_URL": "file:///var/lib/b/objects",
        "SOLFA_BUCKET_CLAIM": "c",
    }
    where = place(Settings.from_environment(settings), "file:///var/lib/b/objects")
    for task in rendered(where, CASES["elastic"][1], "proxy")["spec"]["tasks"]:
        pod = task["template"]["spec"]
        assert {"name": "bucket", "persistentVolumeClaim": {"claimName": "c"}} in pod["volumes"]
        assert {"name": "bucket", "mountPath": "/var/lib/b"} in pod["containers"][0]["volumeMounts"]
        assert pod["securityContext"]["fsGroup"] == 10001  # of the service's pod too, so that both may write


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"SOLFA_CLUSTER": "kubernetes"}, "SOLFA_TRAINER_IMAGE"),
        ({"SOLFA_NODE_SELECTOR": "pool=gpu"}, "SOLFA_NODE_SELECTOR"),
        ({"SOLFA_CLUSTER": "slurm"}, "SOLFA_CLUSTER"),
        ({"SOLFA_SHM_MB": "0"}, "SOLFA_SHM_MB"),
        ({"SOLFA_GPU_RESOURCE": "gpu"}, "SOLFA_GPU_RESOURCE"),
        ({"SOLFA_BUCKET_CLAIM": "c", "SOLFA_BUCKET_URL": "s3://b"}, "SOLFA_BUCKET_CLAIM"),
        ({"SOLFA_BUCKET_CLAIM": "c", "SOLFA_BUCKET_URL": "file:///b"}, "a folder within the volume"),
    ],
)
def test_settings_that_cannot_be_used_are_named(environment: dict[str, str], told: str) -> None:
    with pytest.raises(Exception, match=told):
        Settings.from_environment(environment)


def test_a_server_that_is_not_there_is_unavailable_in_one_sentence() -> None:
    gone = cluster(PLAIN)
    for call in (
        gone.look,
        gone.check,
        lambda: gone.status("a"),
        lambda: gone.cancel("a"),
        lambda: gone.remove("a"),
        lambda: gone.logs("a"),
    ):
        with pytest.raises(ClusterUnavailable, match="did not answer"):
            call()
