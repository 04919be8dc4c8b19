"""The ordinary way, for real: install, a posted spec, two pods a stage, weights in S3, uninstall with nothing left.

The tests of this module run in order, over one release.
"""

import json

import pytest

from api import keys
from api.access import NewToken, Scope
from api.errors import Forbidden, NotFound, SpecError
from api.exports import FORMATS
from api.replay import replay
from tests.api.s3_servers import SECRET
from tests.cluster.kube import KINDS, Json, Namespace
from tests.cluster.object_store import ObjectStore
from tests.cluster.release import NAME, Release
from tests.cluster.search import DOMAINS, STEPS, search_spec
from tests.services.waiting import wait_for

pytestmark = pytest.mark.quick
STAGES = ["prepare", "reference", "proxy", "main", "baseline-uniform", "evaluate"]
TRAINING, SERVICE = "app.kubernetes.io/name=solfa-trainer", "app.kubernetes.io/name=solfa"
PROCESSES = """
from pathlib import Path
for path in Path("/proc").glob("[0-9]*/cmdline"):
    print(path.read_bytes().replace(bytes(1), b" ").decode())
"""


def test_the_service_is_ready_and_passes_its_own_test(release: Release, namespace: Namespace) -> None:
    with release.client() as client:
        assert list(client.experiments()) == []
    assert "Succeeded" in namespace.helm("test", NAME)


def test_its_pod_runs_the_image_that_the_values_name(release: Release, namespace: Namespace) -> None:
    (pod,) = namespace.get("pods", f"app.kubernetes.io/instance={NAME},app.kubernetes.io/name=solfa")
    images = {container["image"] for kind in ("containers", "initContainers") for container in pod["spec"][kind]}
    control = dict(value.split("=", 1) for value in release.values)
    assert images == {f"{control['images.control.repository']}:{control['images.control.tag']}"}


def test_validation_shows_the_jobs_that_the_api_server_would_take(release: Release, namespace: Namespace) -> None:
    with release.client() as client:
        validated = client.validate(search_spec("search"))
    assert [launch["kind"] for launch in validated.launches] == ["Job"] * len(STAGES)
    for launch in validated.launches:
        namespace.kubectl("create", "--dry-run=server", "--filename", "-", stdin=json.dumps(launch))
    assert namespace.get("jobs.batch.volcano.sh") == []


def test_a_posted_spec_becomes_weights(release: Release, namespace: Namespace, object_store: ObjectStore) -> None:
    with release.client() as client:
        submitted = client.submit(search_spec("search"))
    pods = wait_for(lambda: _running(namespace, submitted.id), seconds=600, every=1)
    assert {pod["metadata"]["labels"]["solfa.dev/stage"] for pod in pods} == {"prepare"}
    _no_secret_is_shown(release, namespace, pods)

    record = release.finished("search")
    assert [(stage.name, stage.phase.value, len(stage.attempts)) for stage in record.stages] == [
        (name, "succeeded", 1) for name in STAGES
    ], namespace.describe()
    by_name = {stage.name: stage for stage in record.stages}
    weights_at, baseline_at = by_name["proxy"].finished_at, by_name["baseline-uniform"].attempts[0].launched_at
    assert weights_at
    assert baseline_at
    assert weights_at < baseline_at  # with room for one, a baseline does not begin beside the search
    bucket = object_store.bucket(namespace.name)
    assert all(bucket.exists(keys.result(record.id, name)) for name in STAGES)


def _no_secret_is_shown(release: Release, namespace: Namespace, pods: list[Json]) -> None:
    """While a stage runs: in any object but the Secrets, in an event, a log or a list of processes."""
    secrets = {"the bucket's": SECRET, "the administrator's": release.admin_token()}
    kinds = ",".join(kind for kind in KINDS.split(",") if kind != "secrets")
    shown = {kind: namespace.kubectl("get", kind, "--output", "json") for kind in (kinds, "events")}
    of_service = namespace.get("pods", SERVICE)
    for pod in (*pods, *of_service):
        name = pod["metadata"]["name"]
        shown[f"log of {name}"] = namespace.kubectl("logs", name, "--all-containers")
        shown[f"processes of {name}"] = namespace.kubectl("exec", name, "--", "python", "-c", PROCESSES)
    assert all("python" in shown[f"processes of {pod['metadata']['name']}"] for pod in (*pods, *of_service))
    assert SECRET in {namespace.secret("solfa-bucket", "AWS_SECRET_ACCESS_KEY")}  # where it is to be
    assert not {(whose, where) for whose, secret in secrets.items() for where, text in shown.items() if secret in text}


def _running(namespace: Namespace, experiment: str) -> list[Json]:
    """The two pods of a stage, once both run."""
    pods = namespace.get("pods", f"{TRAINING},solfa.dev/experiment={experiment}")
    return pods if len(pods) == 2 and all(pod["status"]["phase"] == "Running" for pod in pods) else []


def test_the_weights_replay_and_go_into_every_format(release: Release) -> None:
    with release.client() as client:
        averaged = client.weights("search").averaged_weights.root
        found = replay([client.history("search")])
        exported = {name: client.export("search", name) for name in FORMATS}
        compared = client.comparison("search").compared
    assert sorted(averaged) == sorted(DOMAINS)
    assert sum(averaged.values()) == pytest.approx(1)
    assert (found.agrees, found.steps) == (True, STEPS)
    assert found.averaged_weights.root == pytest.approx(averaged, abs=1e-12)
    assert all(domain in text for text in exported.values() for domain in DOMAINS)
    assert [row.mixture for row in compared.rows] == ["averaged", "uniform"]


@pytest.mark.parametrize("path", ["/etc/passwd", "/var/lib/solfa/*", "/data/../etc/passwd", "http://169.254.169.254/latest/meta-data"])
def test_a_spec_reaches_nothing_but_the_texts(release: Release, path: str) -> None:
    domains = {"mine": {"source": {"type": "jsonl", "paths": [path]}}}
    with release.client() as client, pytest.raises(SpecError) as refused:
        client.submit(search_spec("curious", domains=domains))
    assert [problem["pointer"] for problem in refused.value.extra["problems"]] == ["/domains/mine/source/paths/0"]


def test_two_projects_do_not_see_each_other_and_a_downstream_job_reads_its_weights_alone(release: Release) -> None:
    with release.client() as client:
        mine, other = (client.create_token(NewToken(name=name, scope=Scope.READ, project=name)) for name in ("default", "elsewhere"))
        handed = client.create_token(NewToken(name="downstream", scope=Scope.WEIGHTS, experiment="search"))
    with release.client(mine.secret) as client:
        assert [one.name for one in client.experiments()] == ["search"]
    with release.client(other.secret) as client:
        assert list(client.experiments()) == []
        with pytest.raises(NotFound, match="There is no experiment search"):
            client.weights("search")
    with release.client(handed.secret) as client:
        assert sorted(client.weights("search").averaged_weights.root) == sorted(DOMAINS)
        with pytest.raises(Forbidden):
            client.get("search")


def test_what_a_stage_said_is_kept_when_its_pods_are_gone(release: Release, namespace: Namespace) -> None:
    wait_for(lambda: not namespace.get("pods,jobs.batch.volcano.sh", TRAINING), seconds=180, every=1)
    with release.client() as client:
        lines = client.logs("search", "proxy").lines
    assert any("proxy is done" in line for line in lines)


def test_uninstalling_leaves_nothing_also_of_what_is_training(release: Release, namespace: Namespace) -> None:
    with release.client() as client:
        submitted = client.submit(search_spec("another"))
    wait_for(lambda: _running(namespace, submitted.id), seconds=300, every=1)
    release.uninstall()
    wait_for(lambda: not namespace.left(), seconds=120, every=1)
