"""One whole search that nothing disturbed, for all tests of real processes to start from and to compare with."""

from pathlib import Path

import pytest

from api.bucket import FileBucket
from tests.api.buckets import bucket, s3_port
from tests.trainer.stage_runner import TINY, StageRunner, tiny_spec, write_corpus

__all__ = ["bucket", "s3_port", "undisturbed", "work"]
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
