"""A stage's machines are changed while it runs: what is asked for is recorded, and the cluster has it in the end, whoever dies."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import keys
from api.bucket import Bucket, open_bucket
from api.client import Client
from api.errors import InvalidRequest
from api.experiment import Stage
from services.launch.kubernetes import KubernetesCluster
from services.reconciler import Pace, Reconciler, utc_now
from services.retry import Backoff
from services.store import ExperimentStore, open_store
from tests.builders import START, make_experiment
from tests.services.kube_server import KubeServer, kube_server
from tests.services.running import Running, problem
from tests.services.test_crashes import Crash, Fuse
from tests.services.test_kubernetes_manifests import PLAIN

ID, APP = "xaaaaaaaaaa", "xaaaaaaaaaa-prepare-1"
COMPUTE = {"default": {"replicas": {"min": 1, "max": 3}}}
MERGE = {"Content-Type": "application/merge-patch+json"}


def patch(served: Running, path: str, body: Any, **headers: str) -> httpx.Response:
    return served.http.patch(f"/v1/experiments{path}", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture(scope="module")
def live(served: Running) -> Running:
    """`wide` hangs in its prepare, which may have one to three machines, `narrow` in its, which has one; `over` has ended."""
    served.submit("wide", {"hang": {"prepare": [1]}}, compute=COMPUTE)
    served.submit("narrow", {"hang": {"prepare": [1]}}, comparison={"mixtures": []})
    served.submit("over", comparison={"mixtures": []})
    served.until_stage("wide", "prepare", "running")
    served.until("over", "succeeded")
    return served


def test_what_is_asked_for_is_answered_shown_told_and_held_for_later_attempts(live: Running) -> None:
    before = live.get("/wide").headers["ETag"]
    answer = patch(live, "/wide/stages/prepare", {"replicas": 2}, If_Match=before)
    assert (answer.status_code, answer.json()["name"], answer.json()["replicas"]) == (200, "prepare", 2)
    assert answer.headers["ETag"] == live.get("/wide").headers["ETag"] != before
    assert live.get("/wide/stages/prepare").json()["replicas"] == 2
    assert [stage["replicas"] for stage in live.get("/wide").json()["stages"]][:2] == [2, None]
    again = live.http.patch("/v1/experiments/wide/stages/prepare", content=b'{"replicas": 2}', headers=MERGE)
    assert again.headers["ETag"] == answer.headers["ETag"]
    told = [event for event in live.get("/wide/events").json()["events"] if event["kind"] == "resize_requested"]
    assert [(event["stage"], event["data"]) for event in told] == [("prepare", {"replicas": 2})]
    assert patch(live, "/wide/stages/proxy", {"replicas": 1}).json()["replicas"] == 1  # before it is launched
    problem(patch(live, "/wide/stages/prepare", {"replicas": 1}, If_Match=before), 412, "stale_version")


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("wide", {"replicas": 4}, "prepare may have 1 to 3 machines, as its spec's compute says, not 4"),
        ("narrow", {"replicas": 2}, "prepare may have 1 and no other number of machines"),
        ("wide", {"replicas": 0}, "greater than or equal to 1"),
        ("wide", {"replicas": "2"}, "valid integer"),
        ("wide", {}, "required"),
        ("wide", {"replicas": 1, "speed": 2}, "not permitted"),
    ],
)
def test_what_cannot_be_is_refused_where_it_stands(live: Running, name: str, body: Any, sentence: str) -> None:
    document = problem(patch(live, f"/{name}/stages/prepare", body), 422, "invalid_request")
    (found,) = document["problems"]
    assert sentence in found["message"]
    assert found["pointer"] == ("/speed" if "speed" in body else "/replicas")


def test_other_refusals(live: Running) -> None:
    for replicas in (1, 9):  # that it has ended comes first, whatever was asked for
        document = problem(patch(live, "/over/stages/prepare", {"replicas": replicas}), 409, "conflict")
        assert document["detail"] == "prepare of over has succeeded; it has no machines any more."
    problem(patch(live, "/wide/stages/none", {"replicas": 1}), 404, "not_found")
    problem(patch(live, "/none/stages/prepare", {"replicas": 1}), 404, "not_found")
    for content, kind, status, code in (
        (b"replicas: 1", "application/yaml", 415, "unsupported_media_type"),
        (b"{", "application/json", 422, "invalid_request"),
        (b"\xff", "application/json", 400, "bad_request"),
        (b" " * 2_000_000, "application/json", 413, "content_too_large"),
    ):
        path = "/v1/experiments/wide/stages/prepare"
        problem(live.http.patch(path, content=content, headers={"Content-Type": kind}), status, code)


def test_by_the_client(live: Running) -> None:
    with Client(str(live.http.base_url)) as client:
        assert client.resize("wide", "main", 3).replicas == 3
        with pytest.raises(InvalidRequest, match="1 to 3 machines") as raised:
            client.resize("wide", "main", 9)
        assert raised.value.extra["problems"][0]["pointer"] == "/replicas"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExperimentStore]:
    made = open_store(f"sqlite:///{tmp_path}/solfa.db")
    made.create(make_experiment(ID, comparison={"mixtures": []}, compute=COMPUTE), None, START)
    yield made
    made.close()


class Life:
    """A service over what outlives it, each of whose effects is a point at which it may die."""

    def __init__(self, kube: KubeServer, store: ExperimentStore, bucket: Bucket) -> None:
        self.kube, self.store, self.bucket = kube, store, bucket

    def until(self, condition: Callable[[], bool], fuse: Fuse, passes: int = 30) -> None:
        """Pass after pass, in as many lives as it takes."""
        reconciler = self._reconciler(fuse)
        for _ in range(passes):
            try:
                reconciler.run_once()
            except Crash:
                reconciler = self._reconciler(fuse)
            if condition():
                return
        raise AssertionError(f"it did not come true: {self.stage}")

    def _reconciler(self, fuse: Fuse) -> Reconciler:
        pace = Pace(lease=0.0, backoff=Backoff(timedelta(0), timedelta(0), timedelta(0)))
        cluster, bucket = KubernetesCluster(PLAIN, self.kube.client()), open_bucket(self.bucket.url)
        effects = {cluster: ["launch", "cancel", "heal", "resize", "remove"], bucket: ["put", "create", "replace"]}
        for part, names in effects.items():
            for name in names:
                setattr(part, name, fuse.around(getattr(part, name)))
        return Reconciler(self.store, cluster, bucket, utc_now, pace)

    @property
    def stage(self) -> Stage:
        return self.store.get(ID).stages[0]

    def ask(self, replicas: int) -> None:
        record = self.store.get(ID)
        changed = record.stages[0].model_copy(update={"replicas": replicas})
        self.store.replace(record.with_stage(changed), [], utc_now())

    def pods(self) -> int:
        return len(self.kube.pods)


def walk(life: Life, fuse: Fuse) -> dict[str, Any]:
    """Launched with three machines, resized to one, lost, launched with one, resized to two. Returns what can be seen of it at the end."""
    life.until(lambda: life.stage.phase == "running", fuse)
    life.ask(1)
    life.until(lambda: life.pods() == 1, fuse)
    first = next(iter(life.kube.jobs.values()))["metadata"]["name"]
    life.kube.jobs[first]["status"]["state"]["phase"] = "Aborted"  # preempted, say
    life.kube.pods.clear()
    life.until(lambda: life.stage.phase == "running" and len(life.stage.attempts) == 2, fuse)
    begun = life.pods()
    life.ask(2)
    life.until(lambda: life.pods() == 2, fuse)
    life.until(lambda: len(life.kube.jobs) == 1, fuse)
    life.until(lambda: True, fuse)  # and one pass more
    attempts = [(attempt.number, attempt.reason) for attempt in life.stage.attempts]
    patches = sum(call.startswith("PATCH") for call in life.kube.calls)
    return {"begun": begun, "pods": sorted(life.kube.pods), "attempts": attempts, "patches": patches, "replicas": life.stage.replicas}


def test_a_resize_is_carried_out_once_wherever_the_service_dies(tmp_path: Path) -> None:
    def lived(name: str, fuse: Fuse) -> dict[str, Any]:
        (tmp_path / name).mkdir()
        store, bucket = open_store(f"sqlite:///{tmp_path}/{name}/solfa.db"), open_bucket((tmp_path / name / "bucket").as_uri())
        store.create(make_experiment(ID, comparison={"mixtures": []}, compute=COMPUTE), None, START)
        try:
            with kube_server() as kube:
                return walk(Life(kube, store, bucket), fuse)
        finally:
            store.close()

    calm = Fuse()
    expected = lived("calm", calm)
    assert expected == {
        "begun": 1,
        "pods": [f"{ID}-prepare-2-trainer-0-0", f"{ID}-prepare-2-trainer-1-0"],
        "attempts": [(1, "preempted"), (2, None)],
        "patches": 2,
        "replicas": 2,
    }
    assert calm.passed >= 16
    for point in range(calm.passed):
        assert lived(str(point), Fuse({point})) == expected, f"after a crash at point {point}"


def test_a_lost_race_is_harmless(tmp_path: Path, store: ExperimentStore) -> None:
    """A result that is committed, a job that has ended or is gone: nothing is resized then, and nothing fails."""
    with kube_server() as kube:
        life, calm = Life(kube, store, open_bucket((tmp_path / "bucket").as_uri())), Fuse()
        life.until(lambda: life.stage.phase == "running", calm)
        life.ask(1)
        life.bucket.put(keys.result(ID, "prepare"), b"{}")
        life.until(lambda: life.stage.phase == "succeeded", calm)
        assert not any(call.startswith("PATCH") for call in kube.calls)
        cluster = KubernetesCluster(PLAIN, kube.client())
        for word in ("Completing", "Completed"):
            kube.jobs[APP]["status"]["state"]["phase"] = word
            cluster.resize(APP, 2)
        del kube.jobs[APP]
        cluster.resize(APP, 2)
        assert not any(call.startswith("PATCH") for call in kube.calls)
