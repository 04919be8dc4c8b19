"""What the chart makes of four sets of values, as a reviewer can read it, and what it refuses. Skipped where helm is not installed."""

import json
from pathlib import Path

import pytest

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


def test_the_role_is_the_list_of_what_the_launcher_does() -> None:
    (role,) = (one for one in objects(render(VALUES[0])) if one["kind"] == "Role" and one["metadata"]["name"] == "solfa")
    assert [(rule["resources"], rule["verbs"]) for rule in role["rules"]] == [
        (["jobs"], ["create", "get", "list", "watch", "delete", "patch"]),
        (["jobs/status"], ["get", "update"]),
        (["pods"], ["get", "list", "watch", "delete"]),
        (["pods/log"], ["get"]),
        (["events"], ["list", "create"]),
        (["leases"], ["get", "create", "update"]),
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("bucket.url=", "bucket.url is needed"),
        ("replicas=2", "More than one replica needs PostgreSQL"),
        ("autoscaling.enabled=true", "More than one replica needs PostgreSQL"),
        ("bucket.accessKeyId=me", "goes with bucket.secretAccessKey"),
        ("ingress.enabled=true", "ingress.host is needed"),
        ("bucket.url=file:///data", "bucket"),
        ("bucket.urll=s3://x", "urll"),
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


def test_training_pods_get_the_buckets_address_but_no_key_in_plain_sight() -> None:
    text = render(next(path for path in VALUES if path.stem == "airgapped"))
    (deployment,) = (one for one in objects(text) if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    handed_on = json.loads(variables["SOLFA_TRAINER_ENV"])
    assert handed_on == {"AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": "http://10.0.0.6:8333", "AWS_REGION": "us-east-1"}
    assert variables["SOLFA_TRAINER_SECRET"] == "solfa-bucket"
    assert "not-a-secret" not in json.dumps(deployment)
