"""Fixtures: buckets of every kind, for tests that hold for all of them."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.bucket import Bucket, open_bucket
from tests.api.s3_servers import CannotStart, bucket_at, seaweedfs


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real S3 server, one a test process."""
    try:
        with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
            yield server.port
    except CannotStart as error:
        pytest.skip(f"no S3 server: {error}")


@pytest.fixture(params=["memory", "file", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty bucket of each kind."""
    if request.param == "memory":
        return open_bucket("memory://")
    if request.param == "file":
        return open_bucket((tmp_path / "bucket").as_uri())
    return bucket_at(request.getfixturevalue("s3_port"), f"tests/{uuid.uuid4().hex}")
