"""What the tests on a cluster share: images, an S3, a release of the chart. Without a cluster in the environment all are skipped."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.images import Images, built_and_pushed
from tests.cluster.kube import Namespace, new_namespace, why_not
from tests.cluster.object_store import ObjectStore, seaweedfs
from tests.cluster.release import Release, installed

HERE = Path(__file__).parent
SECONDS = 2400  # an image of 5 GB is built, pushed and pulled inside of it


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: the ordinary way on a cluster, all that CLUSTER_TESTS=quick runs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
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
    with seaweedfs(os.environ["SOLFA_TEST_HOST"], tmp_path_factory.mktemp("weed")) as store:
        yield store


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with new_namespace("solfa-test") as made:
        yield made


@pytest.fixture(scope="module")
def release(namespace: Namespace, images: Images, object_store: ObjectStore) -> Iterator[Release]:
    """The chart, installed in a namespace of its own with SQLite and this machine's S3."""
    with installed(namespace, images, object_store) as made:
        yield made
