"""A real S3 behind a proxy that refuses, delays and loses answers: what was written counts, and nothing is given up early."""

import random
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from api.bucket import Bucket, open_bucket
from api.errors import AlreadyExists, BucketUnavailable, EtagMismatch
from tests.api.s3_proxy import Faults, proxied
from tests.api.s3_servers import bucket_at, options


@pytest.fixture
def proxy(s3_port: int) -> Iterator[tuple[int, Faults]]:
    with proxied(("127.0.0.1", s3_port)) as made:
        yield made


@pytest.fixture
def bucket(proxy: tuple[int, Faults]) -> Bucket:
    return bucket_at(proxy[0], f"tests/{uuid.uuid4().hex}")


def test_the_proxy_changes_nothing_by_itself(bucket: Bucket) -> None:
    data = bytes(range(256)) * 50_000
    etag = bucket.put("k", data)
    assert (bucket.get("k").data, bucket.exists("none")) == (data, False)
    assert bucket.replace("k", b"2", etag) != etag
    assert [entry.key for entry in bucket.list("")] == ["k"]
    bucket.delete("k")
    assert not bucket.exists("k")


def test_a_write_that_was_carried_out_and_reported_as_failed_counts_once(bucket: Bucket, proxy: tuple[int, Faults]) -> None:
    faults = proxy[1]
    faults.lose_answers = 1
    etag = bucket.create("k", b"1")
    assert (faults.lost, bucket.get("k").etag) == (1, etag)
    faults.lose_answers = 1
    second = bucket.replace("k", b"2", etag)
    assert (faults.lost, bucket.get("k").data, bucket.get("k").etag) == (2, b"2", second)


def test_somebody_elses_write_is_still_told_from_ones_own(bucket: Bucket, proxy: tuple[int, Faults]) -> None:
    """The answer to a first write is lost, and before the second try somebody else has changed the object."""
    etag = bucket.create("k", b"1")
    bucket.put("k", b"another's")
    with pytest.raises(EtagMismatch):
        bucket.replace("k", b"2", etag)
    with pytest.raises(AlreadyExists):
        bucket.create("k", b"2")


def test_a_busy_server_is_asked_again(bucket: Bucket, proxy: tuple[int, Faults]) -> None:
    faults = proxy[1]
    faults.refuse_every, faults.delay = 3, 0.02
    for number in range(12):
        bucket.create(f"k{number}", b"%d" % number)
    assert sorted(entry.key for entry in bucket.list("")) == sorted(f"k{number}" for number in range(12))
    assert faults.refused > 0
    assert faults.delayed > 0


def test_a_large_file_goes_in_parts_and_a_refused_part_goes_again(bucket: Bucket, proxy: tuple[int, Faults], tmp_path: Path) -> None:
    whole = tmp_path / "state"
    whole.write_bytes(random.Random(0).randbytes(24 << 20))
    faults = proxy[1]
    faults.refuse_every = 3
    bucket.upload("state", whole)
    assert faults.refused >= 2  # of more than six requests
    bucket.download("state", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == whole.read_bytes()


def test_patience_outlasts_a_server_that_is_away(proxy: tuple[int, Faults]) -> None:
    port, faults = proxy
    settings = {name: value for name, value in options(port).items() if name != "retry_config"}
    brief = open_bucket("s3://tests/away", settings)
    patient = open_bucket("s3://tests/away", settings, patience=timedelta(minutes=1))
    faults.refuse_every = 1
    with pytest.raises(BucketUnavailable):
        brief.create("k", b"1")
    refused = faults.refused
    made: list[str] = []
    writer = threading.Thread(target=lambda: made.append(patient.create("k", b"1")))
    writer.start()
    while faults.refused < refused + 7:  # more often than the brief one asks
        writer.join(0.01)
    faults.refuse_every = 0
    writer.join(60)
    assert made == [patient.get("k").etag]
