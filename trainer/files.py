"""Folders of files under a bucket prefix: written and read in place where the bucket is a folder, through the cache where it is not."""

import fcntl
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from api.bucket import Bucket


@contextmanager
def writing(bucket: Bucket, prefix: str, cache: Path) -> Iterator[Path]:
    """A folder whose files are under `prefix` when the context ends without an error."""
    in_place = bucket.local_path(prefix)
    if in_place is not None:
        in_place.mkdir(parents=True, exist_ok=True)
        yield in_place
        return
    folder = cache / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            bucket.upload(f"{prefix}{path.relative_to(folder).as_posix()}", path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def reading(bucket: Bucket, prefix: str, cache: Path) -> Iterator[Path]:
    """A folder that holds the files under `prefix`."""
    in_place = bucket.local_path(prefix)
    if in_place is not None:
        yield in_place
        return
    folder = cache / uuid.uuid4().hex
    try:
        for entry in list(bucket.list(prefix)):
            bucket.download(entry.key, folder / entry.key.removeprefix(prefix))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def workplace(cache: Path) -> Iterator[Path]:
    """An empty folder of this process's own below `cache`. What killed processes left there goes, once none is at work beside this one."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left_behind in cache.iterdir():
                if left_behind.is_dir():
                    shutil.rmtree(left_behind, ignore_errors=True)
        fcntl.flock(lock, fcntl.LOCK_SH)  # held by all that are at work
        folder = cache / uuid.uuid4().hex
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
