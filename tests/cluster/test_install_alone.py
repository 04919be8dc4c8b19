"""`helm install` with nothing but the images' names: SQLite and the bucket on volumes, and a search that succeeds."""

from collections.abc import Iterator

import pytest

from tests.cluster.images import Images
from tests.cluster.kube import Namespace
from tests.cluster.release import Release
from tests.cluster.search import search_spec
from tests.services.waiting import wait_for


@pytest.fixture
def alone(namespace: Namespace, images: Images) -> Iterator[Release]:
    release = Release(namespace, tuple(images.values()))
    try:
        release.install()
        yield release
    finally:
        release.uninstall()


def test_a_search_succeeds_on_volumes_alone_and_nothing_is_left(alone: Release, namespace: Namespace) -> None:
    with alone.client() as client:
        client.submit(search_spec("search", comparison={"mixtures": []}, doremi={"objective": "hardest", "eta": 0.5}))
    record = alone.finished("search")
    assert {stage.phase.value for stage in record.stages} == {"succeeded"}, namespace.describe()
    with alone.client() as client:
        assert sum(client.weights("search").averaged_weights.root.values()) == pytest.approx(1)
    alone.uninstall()
    wait_for(lambda: not namespace.left(), seconds=120, every=1)
