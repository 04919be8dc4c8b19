"""Prepared rows on this node's disk: fetched from a remote bucket once, whatever number of processes and restarts, and checked."""

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from api.bucket import Bucket
from api.errors import DataError, KeyMissing, NoRoom
from trainer.crew import LOOK_SECONDS, Tally
from trainer.rows import ARROW_FILE, map_rows

_CHECKED = "checked"  # beside a file that is as it should be: its size and time of change then
_CHUNK = 1 << 16  # rows hashed at a time
_MIB = 1 << 20
_SPARE = 64 * _MIB  # left to whatever else writes there


@dataclass(frozen=True)
class Folder:
    """An Arrow folder in the bucket, and the digest of its rows where its manifest has one."""

    key: str
    sha256: str | None


def fetch(bucket: Bucket, folders: Sequence[Folder], cache: Path, tally: Tally) -> list[Path]:
    """Where the folders lie in `cache`, a place that holds nothing else; what is not there yet is fetched, by one process at a time.

    Raises NoRoom before anything is written, DataError where what came is twice not what the manifest says, and what `tally` raises.
    """
    with _alone(cache, tally):
        missing = [folder for folder in folders if not _is_there(cache / folder.key, folder)]
        sizes = [_size(bucket, folder) for folder in missing]
        _check_room(cache, sum(sizes))
        tally.expect(sum(sizes))
        for folder, size in zip(missing, sizes, strict=True):
            _fetch(bucket, folder, cache / folder.key, tally, size)
    return [cache / folder.key for folder in folders]


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


@contextmanager
def _alone(cache: Path, tally: Tally) -> Iterator[None]:
    """While nobody else on this node fetches; a process that dies is alone no more, whatever it was doing."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tally.add(0)
                time.sleep(LOOK_SECONDS)
        yield


def _is_there(place: Path, folder: Folder) -> bool:
    """Whether the folder was fetched already, and is as it was. What is not, or is half of one, is removed."""
    for partial in place.parent.glob(f".{place.name}.*"):
        shutil.rmtree(partial, ignore_errors=True)
    if not (place / ARROW_FILE).exists():
        return False
    checked = place / _CHECKED
    if checked.exists() and checked.read_text() == _stamp(place):
        return True
    if not _is_right(place, folder):
        shutil.rmtree(place)
        return False
    checked.write_text(_stamp(place))
    return True


def _stamp(place: Path) -> str:
    seen = (place / ARROW_FILE).stat()
    return f"{seen.st_size} {seen.st_mtime_ns}"


def _size(bucket: Bucket, folder: Folder) -> int:
    key = f"{folder.key}{ARROW_FILE}"
    for entry in bucket.list(folder.key):
        if entry.key == key:
            return entry.size
    raise KeyMissing(f"There is no object {key}.")


def _check_room(cache: Path, needed: int) -> None:
    free = free_bytes(cache)
    if needed and needed + _SPARE > free:
        raise NoRoom(
            f"The prepared data needs {-(-(needed + _SPARE) // _MIB)} MiB, but the disk of {cache} has {free // _MIB} MiB free; free some "
            "there, or give the trainer's cache a larger disk."
        )


def _fetch(bucket: Bucket, folder: Folder, place: Path, tally: Tally, size: int) -> None:
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        bucket.download(f"{folder.key}{ARROW_FILE}", partial / ARROW_FILE, tally.add)
        if not _is_right(partial, folder):
            tally.expect(size)
            bucket.download(f"{folder.key}{ARROW_FILE}", partial / ARROW_FILE, tally.add)
            if not _is_right(partial, folder):
                raise DataError(
                    f"The prepared rows of {folder.key} are not those of their manifest, though they were fetched twice; run the prepare "
                    "stage afresh (adopt: never)."
                )
        with (partial / ARROW_FILE).open("rb") as file:
            os.fsync(file.fileno())  # what is marked as checked outlasts a node that loses its power
        (partial / _CHECKED).write_text(_stamp(partial))
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_right(place: Path, folder: Folder) -> bool:
    if folder.sha256 is None:  # an older version's manifest: the rows are counted when they are mapped
        return True
    try:
        rows = map_rows(place)
    except (OSError, pa.ArrowException, KeyError, IndexError):
        return False
    digest = hashlib.sha256()
    for start in range(0, len(rows), _CHUNK):
        digest.update(rows[start : start + _CHUNK].data)
    return digest.hexdigest() == folder.sha256
