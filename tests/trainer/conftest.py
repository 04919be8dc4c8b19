"""One whole search that nothing disturbed, for all tests of real processes to start from and to compare with."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.bucket import Bucket, FileBucket, open_bucket
from tests.api.s3_servers import CannotStart, bucket_at, seaweedfs
from tests.trainer.stage_runner import TINY, StageRunner, tiny_spec, write_corpus

DOMAINS = ("easy", "hard", "middle")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> StageRunner:
    """Every stage done, in a bucket that no test may change: `copy` it. The model has dropout, so that its results depend on the RNG."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_corpus(folder / "corpus", DOMAINS)
    models = {"proxy": {"config": {**TINY, "attention_dropout": 0.1}}}
    runner = StageRunner(FileBucket(folder / "bucket"), tiny_spec(folder / "corpus", DOMAINS, models=models))
    runner.finish_all()
    return runner


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder for a copy of the bucket."""
    return tmp_path / "work"


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real S3 server, one a test process."""
    try:
        with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as port:
            yield port
    except CannotStart as error:
        pytest.skip(f"no S3 server: {error}")


@pytest.fixture(params=["file", "memory", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty bucket of each kind."""
    if request.param == "s3":
        return bucket_at(request.getfixturevalue("s3_port"), f"tests/{uuid.uuid4().hex}")
    return open_bucket((tmp_path / "bucket").as_uri() if request.param == "file" else "memory://")
