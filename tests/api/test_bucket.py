"""The bucket port on memory, on files and on a real S3 server: whole objects, and exactly one winner of every race."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore.store import LocalStore

from api.bucket import Blob, Bucket, FileBucket, open_bucket
from api.errors import AlreadyExists, BadRequest, BucketError, BucketUnavailable, EtagMismatch, KeyMissing, NoConditionalWrites
from tests.api.s3_servers import ACCESS_KEY, SECRET, bucket_at, careless_server
from tests.services.waiting import wait_for

THREADS = 8


def at_once(work: Callable[[int], bool]) -> list[int]:
    """`work(number)` in many threads that start together; the numbers that succeeded."""
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> bool:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return [number for number, won in enumerate(pool.map(run, range(THREADS))) if won]


def test_what_is_put_is_got(bucket: Bucket) -> None:
    for data in (b"", b"one", bytes(range(256)) * 9000):
        etag = bucket.put("a/b/c.bin", data)
        blob = bucket.get("a/b/c.bin")
        assert (blob.data, blob.etag) == (data, etag)
        assert bucket.find("a/b/c.bin") == blob
        assert bucket.exists("a/b/c.bin")


def test_a_missing_key_is_missing_everywhere(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("there/x", b"")
    for key in ("gone", "there", "there/y"):
        assert bucket.find(key) is None
        assert not bucket.exists(key)
        with pytest.raises(KeyMissing, match=f"There is no object {key}"):
            bucket.get(key)
        with pytest.raises(KeyMissing):
            bucket.download(key, tmp_path / "copy")
    with pytest.raises(EtagMismatch):
        bucket.replace("gone", b"1", '"0"')
    bucket.delete("gone")
    bucket.delete_prefix("nowhere/")
    assert list(bucket.list("nowhere/")) == []
    assert list(tmp_path.glob("*copy*")) == []


def test_create_and_replace_succeed_once(bucket: Bucket) -> None:
    first = bucket.create("k", b"1")
    with pytest.raises(AlreadyExists):
        bucket.create("k", b"2")
    second = bucket.replace("k", b"3", first)
    assert second != first
    with pytest.raises(EtagMismatch):
        bucket.replace("k", b"4", first)
    assert bucket.get("k").data == b"3"
    bucket.delete("k")
    with pytest.raises(EtagMismatch):
        bucket.replace("k", b"5", second)
    assert not bucket.exists("k")
    bucket.create("k", b"6")


def test_an_etag_tells_contents_apart_that_are_alike_in_size_and_time(bucket: Bucket) -> None:
    etags = [bucket.put("k", b"%03d" % number) for number in range(30)]
    assert len(set(etags)) == len(etags)


def test_exactly_one_of_many_creates_the_object(bucket: Bucket) -> None:
    for number in range(3):
        key = f"race/{number}"

        def create(writer: int, key: str = key) -> bool:
            try:
                bucket.create(key, b"%d" % writer)
            except AlreadyExists:
                return False
            return True

        [winner] = at_once(create)
        assert bucket.get(key).data == b"%d" % winner


def test_exactly_one_of_many_replaces_the_object(bucket: Bucket) -> None:
    etag = bucket.create("k", b"start")
    for _ in range(3):

        def replace(writer: int, etag: str = etag) -> bool:
            try:
                bucket.replace("k", b"%d %s" % (writer, uuid.uuid4().bytes), etag)
            except EtagMismatch:
                return False
            return True

        [winner] = at_once(replace)
        blob = bucket.get("k")
        assert blob.data.startswith(b"%d " % winner)
        etag = blob.etag


def increment(bucket: Bucket, key: str, times: int) -> None:
    """Count up as one of many; each value is marked as its writer's own."""
    done = 0
    while done < times:
        blob = bucket.find(key)
        data = b"%d %s" % (counted(blob) + 1, uuid.uuid4().bytes)
        with suppress(AlreadyExists, EtagMismatch):
            _ = bucket.replace(key, data, blob.etag) if blob else bucket.create(key, data)
            done += 1


def counted(blob: Blob | None) -> int:
    return int(blob.data.partition(b" ")[0]) if blob else 0


def test_no_increment_is_lost(bucket: Bucket) -> None:
    def work(_: int) -> bool:
        increment(bucket, "count", 10)
        return True

    assert at_once(work) == list(range(THREADS))
    assert counted(bucket.get("count")) == 10 * THREADS


def increment_with_others(url: str, name: str) -> None:
    """What each process of the test below runs."""
    bucket = open_bucket(url)
    bucket.create(f"ready/{name}", b"")
    wait_for(lambda: bucket.exists("go"), every=0.001)
    increment(bucket, "count", 200)


def test_no_increment_is_lost_between_processes(tmp_path: Path) -> None:
    url = (tmp_path / "bucket").as_uri()
    program = "import sys; from tests.api.test_bucket import increment_with_others; increment_with_others(*sys.argv[1:])"
    others = [subprocess.Popen([sys.executable, "-c", program, url, name]) for name in ("one", "two", "three")]
    bucket = open_bucket(url)
    wait_for(lambda: len(list(bucket.list("ready/"))) == len(others), seconds=60)
    bucket.put("go", b"")
    assert [process.wait() for process in others] == [0, 0, 0]
    assert counted(bucket.get("count")) == 600


def test_listing_and_deleting_keep_to_the_prefix(bucket: Bucket) -> None:
    for key in ("a/1", "a/b/2", "a/b/3", "ab/4", "c"):
        bucket.put(key, key.encode())
    assert {entry.key for entry in bucket.list("")} == {"a/1", "a/b/2", "a/b/3", "ab/4", "c"}
    found = {entry.key: entry for entry in bucket.list("a/")}
    assert set(found) == {"a/1", "a/b/2", "a/b/3"}
    assert found["a/b/2"].size == 5
    assert abs(found["a/1"].modified - datetime.now(UTC)) < timedelta(minutes=5)
    bucket.delete_prefix("a/b/")
    assert {entry.key for entry in bucket.list("")} == {"a/1", "ab/4", "c"}
    bucket.delete("c")
    bucket.delete("c")
    assert not bucket.exists("c")


def test_files_go_up_and_come_down_whole(bucket: Bucket, tmp_path: Path) -> None:
    source, target = tmp_path / "source.bin", tmp_path / "deep" / "er" / "target.bin"
    source.write_bytes(b"0123456789abcdef" * 800_000)  # 12 MB: more than one part
    bucket.upload("big/file", source)
    bucket.download("big/file", target)
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target.bin"]


def test_a_download_that_fails_leaves_what_was_there(bucket: Bucket, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("before")
    with pytest.raises(KeyMissing):
        bucket.download("gone", target)
    bucket.put("k", b"after")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BucketError):
        bucket.download("k", tmp_path / "folder")
    with pytest.raises(BucketError):
        bucket.download("k", target / "below")
    assert target.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} - {"bucket", ".bucket.lock"} == {"target", "folder"}


def test_what_is_no_file_is_not_uploaded(bucket: Bucket, tmp_path: Path) -> None:
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(BucketError, match="is no file"):
            bucket.upload("k", path)
    assert not bucket.exists("k")


def test_every_kind_passes_the_probe_and_is_left_clean(bucket: Bucket) -> None:
    bucket.probe()
    assert list(bucket.list("")) == []


def test_a_store_that_ignores_conditions_is_found_out() -> None:
    with careless_server() as (port, objects):
        bucket = bucket_at(port, "careless")
        with pytest.raises(NoConditionalWrites, match=r"s3://careless ignores create-if-absent.*use one that honours"):
            bucket.probe()
        assert objects == {}


def test_objects_of_a_folder_lie_on_this_disk(tmp_path: Path) -> None:
    bucket = open_bucket((tmp_path / "with space").as_uri())
    assert isinstance(bucket, FileBucket)
    bucket.put("a/b", b"1")
    path = bucket.local_path("a/b")
    assert path is not None
    assert path.read_bytes() == b"1"
    assert open_bucket(bucket.url).get("a/b").data == b"1"
    assert open_bucket("memory://").local_path("a/b") is None


def test_a_folder_reads_every_key_as_obstore_does(tmp_path: Path) -> None:
    """It looks past obstore at the file system itself; a key that is not its own path is left to obstore."""
    bucket, by_obstore = FileBucket(tmp_path / "bucket"), Bucket(LocalStore(tmp_path / "bucket"), "")
    kept = ("plain", "a/b.c/d-e_f", "with space", "per%cent", "ha#sh", "ümlaut/ß", "a/.hidden", "tilde~", "at@2", "x=1/y")
    for key in kept:
        bucket.put(key, key.encode())
        assert by_obstore.get(key).data == bucket.get(key).data == key.encode()
    for key in (*kept, "a", "a/b.c", "none", "a/none", "../bucket/plain", "a//b.c", "a/./b.c", "/plain", "a/b.c/"):
        answers = [told(lambda one=one, key=key: (one.exists(key), one.find(key) is not None)) for one in (bucket, by_obstore)]
        assert answers[0] == answers[1], key


def told(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except BucketError as error:
        return type(error)


def test_a_folder_that_is_gone_is_not_an_empty_bucket(tmp_path: Path) -> None:
    bucket = open_bucket((tmp_path / "bucket").as_uri())
    etag = bucket.put("k", b"1")
    (tmp_path / "bucket").rename(tmp_path / "unmounted")
    uses: list[Callable[[], object]] = [
        lambda: bucket.get("k"),
        lambda: bucket.find("k"),
        lambda: bucket.exists("k"),
        lambda: bucket.put("k", b""),
        lambda: bucket.create("k", b""),
        lambda: bucket.replace("k", b"", etag),
        lambda: list(bucket.list("")),
        lambda: bucket.delete("k"),
        lambda: bucket.delete_prefix(""),
        lambda: bucket.upload("k", tmp_path / "unmounted" / "k"),
        lambda: bucket.download("k", tmp_path / "copy"),
    ]
    for use in uses:
        with pytest.raises(BucketUnavailable, match="is not there; put it back"):
            use()
    assert not (tmp_path / "bucket").exists()


@pytest.mark.parametrize("url", ["", "bucket", "/tmp/x", "ftp://x", "file://data/bucket", "file:x", "s3://", "s3:///x", "http://x", "://x"])
def test_another_kind_of_address_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="A bucket is file:///folder"):
        open_bucket(url)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(BadRequest, match="Keep credentials out") as caught:
        open_bucket("s3://me:hunter2@bucket/prefix")
    assert "hunter2" not in caught.value.message


def test_a_service_reaches_its_s3_by_the_usual_variables(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings name only the URL; all else is in the environment."""
    given = {"ENDPOINT_URL": f"http://127.0.0.1:{s3_port}", "ALLOW_HTTP": "true", "REGION": "us-east-1"}
    for name, value in (given | {"ACCESS_KEY_ID": ACCESS_KEY, "SECRET_ACCESS_KEY": SECRET}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    bucket = open_bucket(f"s3://tests/{uuid.uuid4().hex}")
    bucket.probe()
    bucket.put("k", b"1")
    assert bucket.get("k").data == b"1"
