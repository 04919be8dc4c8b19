"""What the tests on a cluster share: images, an S3, a release of the chart. Without a cluster in the environment all are skipped."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.api.s3_proxy import proxied
from tests.api.s3_servers import seaweedfs
from tests.cluster.images import Images, built_and_pushed
from tests.cluster.kube import Namespace, new_namespace, run, why_not
from tests.cluster.object_store import ObjectStore
from tests.cluster.release import Release, installed
from tests.cluster.survival import House, Outcome, survivor_spec, watched
from tests.postgres import postgresql

HERE = Path(__file__).parent
TABLE = pytest.StashKey[list[tuple[str, str]]]()
SECONDS = 2400  # an image of 5 GB is built, pushed and pulled inside of it


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: the ordinary way on a cluster, all that CLUSTER_TESTS=quick runs")
    config.stash[TABLE] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was measured on the way, as a table for a note or a README."""
    if config.stash[TABLE]:
        terminalreporter.section("measured")
        for what, how_long in [("what", "measured"), ("---", "---"), *config.stash[TABLE]]:
            terminalreporter.write_line(f"| {what} | {how_long} |")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The ordinary way first, faults last: what fails for all should fail soon."""
    items.sort(key=lambda item: (HERE in item.path.parents) * (1 + ("quick" not in item.keywords) + ("faults" in item.path.name)))
    reason = why_not()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(SECONDS))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
            elif os.environ.get("CLUSTER_TESTS") == "quick" and "quick" not in item.keywords:
                item.add_marker(pytest.mark.skip(reason="CLUSTER_TESTS=quick: the ordinary way only"))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return built_and_pushed(os.environ["SOLFA_TEST_REGISTRY"], tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with seaweedfs(tmp_path_factory.mktemp("weed"), os.environ["SOLFA_TEST_HOST"]) as server:
        yield ObjectStore(server, server.port)


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with new_namespace("solfa-test") as made:
        yield made


@pytest.fixture(scope="module")
def release(namespace: Namespace, images: Images, object_store: ObjectStore) -> Iterator[Release]:
    """The chart, installed in a namespace of its own with SQLite and this machine's S3, told that there is room for one attempt."""
    with installed(namespace, images, object_store, "training.slots=1") as made:
        yield made


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Takes a line of the table that is printed at the end: what, and how long it took."""
    return lambda what, how_long: request.config.stash[TABLE].append((what, how_long))


@pytest.fixture(scope="session")
def house(images: Images, object_store: ObjectStore) -> Iterator[House]:
    """Two replicas of the service over PostgreSQL, and an S3 behind a proxy: what faults are done to."""
    host = os.environ["SOLFA_TEST_HOST"]
    with (
        postgresql(host) as database,
        proxied((host, object_store.port), host) as (port, faults),
        new_namespace("solfa-faults") as namespace,
    ):
        queue = {
            "apiVersion": "scheduling.volcano.sh/v1beta1",
            "kind": "Queue",
            "metadata": {"name": namespace.name},
            "spec": {"weight": 1},
        }
        run("kubectl", "create", "-f", "-", stdin=json.dumps(queue))
        seen = replace(object_store, port=port)
        values = ("replicas=2", f"database.url={database.url('solfa')}", f"training.queue={namespace.name}")
        try:
            with installed(namespace, images, seen, *values) as release:
                yield House(release, object_store, database, faults)
        finally:
            run("kubectl", "delete", "queue.scheduling.volcano.sh", namespace.name, "--wait=false", check=False)


@pytest.fixture(scope="session")
def undisturbed(house: House) -> Outcome:
    """What the search comes to when nothing is done to it."""
    with watched(house, survivor_spec("undisturbed")) as survivor:
        return survivor.outcome()
