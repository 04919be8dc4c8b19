"""Two replicas over PostgreSQL: each is killed in turn while a stage runs, then all are upgraded; the search does not notice."""

import os
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from api.replay import replay
from tests.cluster.images import Images
from tests.cluster.kube import Namespace
from tests.cluster.object_store import ObjectStore
from tests.cluster.release import Release, installed
from tests.cluster.search import search_spec
from tests.postgres import postgresql
from tests.services.waiting import wait_for

SERVICE, TRAINING = "app.kubernetes.io/name=solfa", "app.kubernetes.io/name=solfa-trainer"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql(os.environ["SOLFA_TEST_HOST"]) as server:
        yield server.url("solfa")


@pytest.fixture(scope="module")
def two(namespace: Namespace, images: Images, object_store: ObjectStore, database: str) -> Iterator[Release]:
    with installed(namespace, images, object_store, "replicas=2", f"database.url={database}") as made:
        yield made


def test_a_killed_leader_and_an_upgrade_cost_a_search_nothing(two: Release, namespace: Namespace, database: str) -> None:
    with two.client() as client:
        client.submit(search_spec("search"))
    wait_for(lambda: _training(namespace, "reference"), seconds=900, every=1)
    first = _leads(database)
    for pod in _ready(namespace):
        namespace.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
        wait_for(lambda: len(_ready(namespace)) == 2, seconds=180, every=1)
    wait_for(lambda: _leads(database) > first, seconds=120, every=1)

    before = wait_for(lambda: _training(namespace, "proxy"), seconds=900, every=1)
    replace(two, values=(*two.values, "podAnnotations.upgraded=yes")).install()
    assert _training(namespace, "proxy") in (before, set())  # untouched, or done already
    record = two.finished("search")
    assert {(stage.phase.value, len(stage.attempts)) for stage in record.stages} == {("succeeded", 1)}, namespace.describe()
    with two.client() as client:
        assert replay([client.history("search")]).agrees


def _training(namespace: Namespace, stage: str) -> set[str]:
    """The uids of a stage's pods, once two of them run."""
    pods = namespace.get("pods", f"{TRAINING},solfa.dev/stage={stage}")
    running = {pod["metadata"]["uid"] for pod in pods if pod["status"]["phase"] == "Running"}
    return running if len(running) == 2 else set()


def _ready(namespace: Namespace) -> list[str]:
    pods = [pod for pod in namespace.get("pods", SERVICE) if "deletionTimestamp" not in pod["metadata"]]
    conditions = {pod["metadata"]["name"]: pod["status"].get("conditions", []) for pod in pods}
    return [name for name, found in conditions.items() if any(one["type"] == "Ready" and one["status"] == "True" for one in found)]


def _leads(database: str) -> int:
    """The lease's token: it rises when another replica takes over."""
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT token FROM lease").fetchone()
    return int(row[0]) if row else 0
