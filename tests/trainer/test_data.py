"""Prepared rows as batches: exactly what the sampler says, shared out over the ranks, and refused where they are not the manifest's."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from api import keys
from api.bucket import Bucket, FileBucket, open_bucket
from api.errors import DataError
from api.results import StageResult
from tests.services.waiting import wait_for
from tests.trainer.preparing import LENGTH, Preparing, jsonl, preparing, texts, write_jsonl
from trainer.data import PREFETCH, Batch, Batches, PreparedData
from trainer.rows import ARROW_FILE, RowWriter, map_rows
from trainer.sampler import MixtureSampler

DOMAINS = {"books": 300, "code": 80, "web": 150}
WEIGHTS = np.array([0.2, 0.5, 0.3])
SEED = 11


def prepared(folder: Path, bucket: Bucket | None = None) -> tuple[Preparing, StageResult]:
    sources = {name: jsonl(write_jsonl(folder / f"{name}.jsonl", texts(n, seed))) for seed, (name, n) in enumerate(DOMAINS.items())}
    made = preparing(folder, sources, bucket)
    return made, made.run()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Preparing, StageResult]:
    return prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def data(made: tuple[Preparing, StageResult]) -> PreparedData:
    return made[0].open(made[1])


def sampler(data: PreparedData, **caps: Any) -> MixtureSampler:
    return MixtureSampler(data.rows, SEED, **caps)


def take(number: int, batches: Batches) -> list[Batch]:
    with batches:
        stream = iter(batches)
        return [next(stream) for _ in range(number)]


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_rows_are_taken_by_domain_and_row_in_the_order_asked_for(made: tuple[Preparing, StageResult], data: PreparedData) -> None:
    whole = [map_rows(made[0].bucket.local_path(f"{made[1].files['data']}{name}/")) for name in data.names]
    random = np.random.default_rng(0)
    domain_ids = random.integers(0, 3, 100)
    row_ids = (random.random(100) * np.array(data.rows)[domain_ids]).astype(int)
    taken = data.take(domain_ids, row_ids)
    assert (taken.shape, taken.dtype) == ((100, LENGTH + 1), np.int32)
    for row, domain, index in zip(taken, domain_ids, row_ids, strict=True):
        np.testing.assert_array_equal(row, whole[domain][index])
    assert data.take(domain_ids[:0], row_ids[:0]).shape == (0, LENGTH + 1)
    with pytest.raises(IndexError):
        data.take(np.array([0, 1]), np.array([0, data.rows[1]]))
    held_out = map_rows(made[0].bucket.local_path(f"{made[1].files['validation']}code/"))
    np.testing.assert_array_equal(data.take_validation(1, 1, 3), held_out[1:3])


def test_batches_are_exactly_the_samplers_draws_with_the_position_after_each(data: PreparedData) -> None:
    by_hand = sampler(data)
    for batch in take(3 * PREFETCH, Batches(data, sampler(data), WEIGHTS, 24, (0, 1))):
        domain_ids, row_ids = by_hand.draw(WEIGHTS, 24)
        np.testing.assert_array_equal(batch.domain_ids, domain_ids)
        np.testing.assert_array_equal(batch.row_ids, row_ids)
        np.testing.assert_array_equal(batch.rows, data.take(domain_ids, row_ids))
        assert batch.position == by_hand.state_dict()  # of this batch, however far ahead the thread is
        assert batch.epochs.tolist() == by_hand.epochs().tolist()


def test_going_on_from_a_batchs_position_gives_the_batches_after_it(data: PreparedData) -> None:
    whole = take(8, Batches(data, sampler(data), WEIGHTS, 10, (0, 1)))
    resumed = sampler(data)
    resumed.load_state_dict(json.loads(json.dumps(whole[4].position)))
    for mine, its in zip(take(3, Batches(data, resumed, WEIGHTS, 10, (0, 1))), whole[5:], strict=True):
        np.testing.assert_array_equal(mine.rows, its.rows)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_ranks_share_no_row_and_together_make_the_same_batches_whatever_their_number(data: PreparedData, size: int) -> None:
    alone = take(4, Batches(data, sampler(data), WEIGHTS, 20, (0, 1)))
    ranks = [take(4, Batches(data, sampler(data), WEIGHTS, 20, (rank, size))) for rank in range(size)]
    for number, whole in enumerate(alone):
        parts = [rank[number] for rank in ranks]
        assert {len(part.rows) for part in parts} <= {20 // size, 20 // size + 1}
        rows: NDArray[np.int32] = np.empty_like(whole.rows)
        for rank, part in enumerate(parts):
            rows[rank::size] = part.rows
        np.testing.assert_array_equal(rows, whole.rows)
        seen = [(d, r) for part in parts for d, r in zip(part.domain_ids.tolist(), part.row_ids.tolist(), strict=True)]
        assert len(set(seen)) == len(seen) == 20
        assert all(part.position == whole.position for part in parts)


def test_the_thread_ends_with_the_context_whether_its_queue_is_full_or_its_user_fails(data: PreparedData) -> None:
    batches = Batches(data, sampler(data), WEIGHTS, 4, (0, 1))
    with batches:
        wait_for(batches._ready.full)
        assert prefetching()
    assert not prefetching()

    def fail() -> None:
        with Batches(data, sampler(data), WEIGHTS, 4, (0, 1)) as batches:
            next(iter(batches))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not prefetching()


def test_what_the_thread_fails_with_is_raised_after_the_batches_that_were_made(data: PreparedData) -> None:
    few = [20 / n for n in data.rows]  # caps of 20 rows each
    with Batches(data, sampler(data, max_epochs=few), WEIGHTS, 12, (0, 1)) as batches:
        stream = iter(batches)
        seen = [next(stream) for _ in range(5)]
        with pytest.raises(DataError, match="raise a cap or train for fewer steps"):
            next(stream)
    assert len(seen) == 5
    assert not prefetching()


def test_a_bucket_that_is_no_folder_gives_the_same_rows_fetched_once(tmp_path: Path, data: PreparedData) -> None:
    made, result = prepared(tmp_path, open_bucket("memory://"))
    assert list((tmp_path / "cache").rglob("*.arrow")) == []  # what was uploaded is not kept twice
    fetched = made.open(result)
    assert fetched.fingerprint == data.fingerprint
    assert (fetched.rows, fetched.validation_rows) == (data.rows, data.validation_rows)
    domain_ids, row_ids = sampler(data).draw(WEIGHTS, 50)
    np.testing.assert_array_equal(fetched.take(domain_ids, row_ids), data.take(domain_ids, row_ids))

    made.bucket.delete_prefix(result.files["data"])
    np.testing.assert_array_equal(made.open(result).take(domain_ids, row_ids), data.take(domain_ids, row_ids))


def test_rows_that_are_not_those_of_the_manifest_are_refused(tmp_path: Path) -> None:
    made, result = prepared(tmp_path)
    assert isinstance(made.bucket, FileBucket)
    for side in ("data", "validation"):
        folder = made.bucket.local_path(f"{result.files[side]}code")
        original = (folder / ARROW_FILE).read_bytes()
        row_count = len(map_rows(folder))

        for rows, length in ((row_count - 1, LENGTH + 1), (row_count, LENGTH)):
            writer = RowWriter(tmp_path / "other.raw", length)
            writer.add(np.zeros(rows * length, dtype=np.int32))
            writer.finish(folder, 1)
            with pytest.raises(DataError, match=rf"code/ holds {rows} rows of {length} ids, but .*run the prepare stage afresh"):
                made.open(result)

        (folder / ARROW_FILE).write_bytes(original[: len(original) // 2])
        with pytest.raises(DataError, match=r"code/ cannot be read .*run the prepare stage afresh"):
            made.open(result)
        (folder / ARROW_FILE).unlink()
        with pytest.raises(DataError, match=r"code/ cannot be read .*run the prepare stage afresh"):
            made.open(result)
        (folder / ARROW_FILE).write_bytes(original)
    made.open(result)
    with pytest.raises(DataError, match="holds no prepared data"):
        made.open(result.model_copy(update={"prepared": None}))


def test_a_half_fetched_file_does_not_count(tmp_path: Path) -> None:
    made, result = prepared(tmp_path, open_bucket("memory://"))
    key = f"{keys.prepared_prefix('xtest', 'prepare')}train/web/{ARROW_FILE}"
    kept = made.bucket.get(key).data
    made.bucket.delete(key)
    with pytest.raises(Exception, match="There is no object"):
        made.open(result)
    made.bucket.put(key, kept)
    made.open(result)
