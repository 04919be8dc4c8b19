"""What the chart makes of four sets of values, as a reviewer can read it, and what it refuses. Skipped where helm is not installed."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.launch.access import NEEDED
from services.quotas import Quota
from services.server import place
from services.settings import Settings
from tests.charts.rendering import CHART, HELM, ROOT, VALUES, containers, helm, objects, pods, refusal, render
from tests.reference import assert_golden

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed")
EXAMPLES = ROOT / "examples" / "cluster"
by_name = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


@by_name
def test_a_set_of_values_makes_what_its_golden_file_says(values: Path) -> None:
    text = render(values)
    assert_golden(f"chart/{values.name}", text)


def test_lint_finds_nothing() -> None:
    for values in (CHART / "values.yaml", EXAMPLES / "values.yaml", *VALUES):
        done = helm("lint", "--strict", CHART, "--values", values)
        assert done.returncode == 0, done.stdout + done.stderr


@by_name
def test_every_pod_passes_the_restricted_profile_with_a_root_that_nobody_writes(values: Path) -> None:
    found = pods(objects(render(values)))
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            security = container["securityContext"]
            assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
            assert security["capabilities"] == {"drop": ["ALL"]}


@by_name
def test_nothing_is_pulled_that_the_values_do_not_list(values: Path) -> None:
    rendered = objects(render(values, "--set", "images.control.repository=one,images.trainer.repository=two"))
    images = {container["image"] for pod in pods(rendered) for container in containers(pod)}
    (deployment,) = (one for one in rendered if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    images |= {one["value"] for one in container["env"] if one["name"] == "SOLFA_TRAINER_IMAGE"}
    assert {image.rpartition("/")[2].partition("@")[0].partition(":")[0] for image in images} == {"one", "two"}


def test_the_role_is_the_list_of_what_the_service_asks_for_at_start() -> None:
    (role,) = (one for one in objects(render(VALUES[0])) if one["kind"] == "Role" and one["metadata"]["name"] == "solfa")
    assert [(rule["resources"], rule["verbs"]) for rule in role["rules"]] == [
        ([resource], list(verbs)) for (_, resource), verbs in NEEDED.items()
    ]
    assert [rule["apiGroups"] for rule in role["rules"]] == [[group] for group, _ in NEEDED]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("bucket.url=,bucket.endpoint=http://s3", "say which bucket with bucket.url"),
        ("bucket.url=,replicas=2,database.existingSecret=pg", "needs a bucket that every node reaches"),
        ("images.credentials.username=me", "goes with images.credentials.password and images.registry"),
        ("gateway.enabled=true", "gateway.parentRefs is needed"),
        ("training.gpuResource=gpu", "gpuResource"),
        ("replicas=2", "More than one replica needs PostgreSQL"),
        ("autoscaling.enabled=true", "More than one replica needs PostgreSQL"),
        ("bucket.accessKeyId=me", "goes with bucket.secretAccessKey"),
        ("ingress.enabled=true", "ingress.host is needed"),
        ("bucket.url=file:///data", "bucket"),
        ("bucket.urll=s3://x", "urll"),
        ("limits.quotas.speech.cpus=3", "cpus"),
        ("limits.dataRoots={data}", "dataRoots"),
        ("service.trustedProxies={ingress}", "trustedProxies"),
        ("replicas=many", "replicas"),
        ("monitoring.monitor=Nagios", "monitor"),
        ("images.control.digest=sha256:1", "digest"),
    ],
)
def test_values_that_cannot_work_are_refused_before_anything_is_installed(change: str, sentence: str) -> None:
    assert sentence in refusal("--set", change)


def test_a_secret_that_changes_makes_new_pods() -> None:
    def checksum(key: str) -> str:
        text = render(VALUES[0], "--set", f"bucket.accessKeyId=me,bucket.secretAccessKey={key}")
        (deployment,) = (one for one in objects(text) if one["kind"] == "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/secrets"])

    assert checksum("one") != checksum("two")
    assert checksum("one") == checksum("one")


def variables_of(rendered: list[dict[str, Any]]) -> dict[str, str | None]:
    (deployment,) = (one for one in rendered if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value") for one in container["env"]}


def test_an_installation_without_a_word_of_values_is_whole() -> None:
    """SQLite and the bucket on volumes of their own; the service's settings are such as it takes."""
    rendered = objects(render(CHART / "values.yaml"))
    claims = {one["metadata"]["name"] for one in rendered if one["kind"] == "PersistentVolumeClaim"}
    (deployment,) = (one for one in rendered if one["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume} == claims
    assert claims == {"solfa-database", "solfa-bucket"}
    settings = Settings.from_environment({name: value or "x" * 20 for name, value in variables_of(rendered).items()})
    where = place(settings, settings.bucket)
    assert (where.bucket_claim, where.bucket_url, where.gpu_resource) == (
        "solfa-bucket",
        "file:///var/lib/solfa-bucket/objects",
        "nvidia.com/gpu",
    )
    assert "/var/lib/solfa-bucket" in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def notes(*more: str) -> str:
    """What a person is told who installs it."""
    done = helm("install", "solfa", CHART, "--dry-run=client", *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_metrics_of_training_pods_which_ask_for_no_token_reach_nobody_but_those_who_are_named() -> None:
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}

    def rules(*more: str) -> list[dict[str, Any]]:
        policies = [one for one in objects(render(CHART / "values.yaml", *more)) if one["kind"] == "NetworkPolicy"]
        (found,) = (one["spec"]["ingress"] for one in policies if one["metadata"]["name"] == "solfa-trainer")
        return list(found)

    (ours,) = rules()
    assert "ports" not in ours
    named = ("--set-json", f"networkPolicy.clients=[{json.dumps(prometheus)}]")
    assert rules(*named)[1:] == [{"ports": [{"port": 9400, "protocol": "TCP"}], "from": [prometheus]}]
    sentence = "Metrics of training pods reach nobody"
    assert sentence in notes()
    assert sentence not in notes(*named)
    assert sentence not in notes("--set", "networkPolicy.enabled=false")


def test_who_installs_it_is_told_what_goes_when_it_goes() -> None:
    both = notes()
    assert "every weight and model with it" in both
    assert "database.volume.keep" in both
    for name in ("keep=true", "existingClaim=mine"):
        said = notes("--set", f"bucket.volume.{name},database.volume.{name}")
        assert "when the release goes" not in said
    assert "bucket.volume.keep" not in notes("--set", "bucket.url=s3://solfa")


def test_a_registrys_credentials_become_a_secret_that_all_pods_pull_with() -> None:
    rendered = objects(render(next(path for path in VALUES if path.stem == "airgapped")))
    made = {one["metadata"]["name"]: one for one in rendered if one["kind"] == "Secret" and one.get("type")}
    held = {"auths": {"10.0.0.5:5000": {"username": "puller", "password": "not-a-secret"}}}
    for secret in made.values():
        assert (secret["type"], json.loads(secret["stringData"][".dockerconfigjson"])) == ("kubernetes.io/dockerconfigjson", held)
    used = [[one["name"] for one in pod["imagePullSecrets"]] for pod in pods(rendered)]
    assert sorted(used) == [["solfa-registry"], ["solfa-registry"], ["solfa-sweep"]]  # the sweep comes when the release's are gone
    assert made.keys() == {"solfa-registry", "solfa-sweep"}
    assert "post-delete" in made["solfa-sweep"]["metadata"]["annotations"]["helm.sh/hook"]
    assert variables_of(rendered)["SOLFA_IMAGE_PULL_SECRETS"] == "solfa-registry"


def test_a_stream_of_events_is_cut_by_no_gateway() -> None:
    rendered = objects(render(next(path for path in VALUES if path.stem == "monitoring")))
    (route,) = (one for one in rendered if one["kind"] == "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    (service,) = (one for one in rendered if one["kind"] == "Service")
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}]
    assert not [one for one in rendered if one["kind"] == "Ingress"]


def test_what_a_project_may_have_and_read_reaches_the_service() -> None:
    rendered = objects(render(next(path for path in VALUES if path.stem == "production")))
    settings = Settings.from_environment({name: value or "x" * 20 for name, value in variables_of(rendered).items()})
    assert settings.quotas == {"speech": Quota(experiments=5, gpus=64), "*": Quota(replicas=8)}
    assert settings.reach.roots == ("/data/pile", "/data/code")
    assert settings.quota_of_requests == 3_000_000
    assert place(settings, settings.bucket).slots == 4
    assert settings.trusted_proxies == ("10.244.0.0/16", "10.0.0.5")


def test_training_pods_get_the_buckets_address_but_no_key_in_plain_sight() -> None:
    text = render(next(path for path in VALUES if path.stem == "airgapped"))
    (deployment,) = (one for one in objects(text) if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    handed_on = json.loads(variables["SOLFA_TRAINER_ENV"])
    assert handed_on == {"AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": "http://10.0.0.6:8333", "AWS_REGION": "us-east-1"}
    assert variables["SOLFA_TRAINER_SECRET"] == "solfa-bucket"
    assert "not-a-secret" not in json.dumps(deployment)
