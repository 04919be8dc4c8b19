"""The bucket port: object storage with conditional writes, over obstore (memory, file, S3).

Everything two processes may write at the same time goes through `create` (create-if-absent) or `replace` (compare-and-swap).
"""

import errno
import fcntl
import hashlib
import itertools
import os
import random
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    JoinError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, MemoryStore, S3Store

from api import keys
from api.errors import (
    AlreadyExists,
    BadRequest,
    BucketError,
    BucketUnavailable,
    EtagMismatch,
    KeyMissing,
    NoConditionalWrites,
    OutOfSpace,
)

Store = LocalStore | MemoryStore | S3Store
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds between two tries
_SIGNS_OF_FULL = ("os error 28)", "os error 122)")  # ENOSPC, EDQUOT, as Rust writes them


@dataclass(frozen=True)
class _Patience:
    """How often, and for how long, a bucket that is away or busy is asked again."""

    retries: int
    seconds: float

    def pause(self, number: int) -> float:
        """Seconds after the `number`-th failure, from 0; some of it by chance, so that many do not come at once."""
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**number) * random.uniform(0.5, 1)  # noqa: S311  # it spreads retries, and guards nothing

    @property
    def config(self) -> dict[str, Any]:
        """As obstore's own retries want it, for all that may be done twice."""
        backoff = {"init_backoff": timedelta(seconds=_FIRST_PAUSE), "base": 2, "max_backoff": timedelta(seconds=_LONGEST_PAUSE)}
        return {"max_retries": self.retries, "retry_timeout": timedelta(seconds=self.seconds), "backoff": backoff}


_NONE = _Patience(0, 0)
_BRIEF = _Patience(5, 30)  # a minute at most in all; obstore's own default is three


@dataclass(frozen=True)
class Blob:
    """An object's bytes and the tag that `replace` compares."""

    data: bytes
    etag: str


@dataclass(frozen=True)
class Entry:
    """An object in a listing; `size` in bytes."""

    key: str
    size: int
    modified: datetime


class Bucket:
    """Objects by key. Safe to use from many threads. Every failure is a BucketError."""

    def __init__(self, store: Store, url: str, once: Store | None = None, patience: _Patience = _NONE) -> None:
        """`once` is the same place, asked once only; needed where `store` asks again by itself."""
        self._store = store
        self._once = once or store
        self.url = url
        self._patience = patience

    def _at(self, key: str) -> AbstractContextManager[None]:
        """Around every use of the store: what it raises, as ours."""
        return _translated(key)

    def get(self, key: str) -> Blob:
        """Raises KeyMissing."""
        with self._at(key):
            answer = obstore.get(self._store, key)
            return Blob(bytes(answer.bytes()), _etag(answer.meta))

    def find(self, key: str) -> Blob | None:
        """As `get`, with None for a missing key."""
        try:
            return self.get(key)
        except KeyMissing:
            return None

    def exists(self, key: str) -> bool:
        try:
            with self._at(key):
                obstore.head(self._store, key)
        except KeyMissing:
            return False
        return True

    def put(self, key: str, data: bytes) -> str:
        """Write, whatever was there. Returns the etag."""
        with self._at(key):
            return _etag(obstore.put(self._store, key, data))

    def create(self, key: str, data: bytes) -> str:
        """Write only if the key is absent. Returns the etag; raises AlreadyExists."""
        return self._conditionally(key, data, "create")

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Write only if the object still has `etag`. Returns the new etag; raises EtagMismatch, also for a missing key."""
        try:
            return self._conditionally(key, data, {"e_tag": etag})
        except (AlreadyExists, KeyMissing) as error:  # S3: 409 for a write at the same moment, 404 for a deleted key
            raise EtagMismatch(f"{key} was changed by somebody else.") from error

    def _conditionally(self, key: str, data: bytes, mode: Any) -> str:
        """A conditional write, tried again here and not by obstore: after a try that nobody answered, a refusal may be of that very try,
        carried out and not confirmed. Then what is there tells. (So `data` should be one writer's alone: with a time or a name in it.)"""
        deadline = time.monotonic() + self._patience.seconds
        for number in itertools.count():
            try:
                with self._at(key):
                    return _etag(obstore.put(self._once, key, data, mode=mode))
            except BucketUnavailable:
                if number == self._patience.retries or time.monotonic() > deadline:
                    raise
                time.sleep(self._patience.pause(number))
            except (AlreadyExists, EtagMismatch, KeyMissing):
                found = self.find(key) if number else None
                if found is None or found.data != data:
                    raise
                return found.etag
        raise AssertionError  # the count has no end

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects under `prefix` (which ends in a slash, or is empty), in no particular order."""
        with self._at(prefix):
            for batch in obstore.list(self._store, prefix=prefix or None):
                for meta in batch:
                    yield Entry(meta["path"], meta["size"], meta["last_modified"])

    def delete(self, key: str) -> None:
        """Remove; a missing key is not an error."""
        try:
            with self._at(key):
                obstore.delete(self._store, key)
        except KeyMissing:
            pass

    def delete_prefix(self, prefix: str) -> None:
        found = [entry.key for entry in self.list(prefix)]
        try:
            with self._at(prefix):
                obstore.delete(self._store, found)  # S3 takes a thousand at a time
        except KeyMissing:  # somebody else deletes there
            for key in found:
                self.delete(key)

    def upload(self, key: str, path: Path) -> None:
        """Write a file's content, in parts when it is large."""
        if not path.is_file():
            raise BucketError(f"{path} is no file, so {key} was not written.")
        with self._at(key):
            obstore.put(self._store, key, path)

    def download(self, key: str, path: Path, came: Callable[[int], None] | None = None) -> None:
        """Write an object's content to `path`, whole or not at all. `came` is told, now and then, how many bytes more have come; what it
        raises ends the download."""
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        with self._at(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as file:
                    for chunk in obstore.get(self._store, key).stream():
                        file.write(chunk)
                        if came is not None:
                            came(len(chunk))
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        """Where the object lies on this machine's disk, if it does: readers may map it, writers may write below a prefix of their own."""
        return None

    def probe(self) -> None:
        """Check that conditional writes are honoured. Raises NoConditionalWrites, or what the bucket failed with."""
        key = keys.probe(uuid.uuid4().hex)
        etag = self.create(key, b"1")
        try:
            self._expect_refusal(lambda: self.create(key, b"2"), "create-if-absent")
            self.replace(key, b"3", etag)
            self._expect_refusal(lambda: self.replace(key, b"4", etag), "replace-if-unchanged")
        finally:
            with suppress(BucketError):  # what was found out is not to be lost over one object left behind
                self.delete(key)

    def _expect_refusal(self, write: Callable[[], str], what: str) -> None:
        try:
            write()
        except (AlreadyExists, EtagMismatch):
            return
        raise NoConditionalWrites(
            f"The bucket {self.url} ignores {what}, so two writers could both succeed; use one that honours conditional writes."
        )


class FileBucket(Bucket):
    """A folder. obstore writes and creates atomically; compare-and-swap, which it lacks for files, is done under a lock.

    An ETag is a digest of the content: inode, size and time of change can all come back within one tick of a file system's clock.
    """

    def __init__(self, root: Path) -> None:
        with _translated(str(root)):
            root.mkdir(parents=True, exist_ok=True)
            super().__init__(LocalStore(root), root.absolute().as_uri())
        self.root = root.absolute()
        self._lock_path = self.root.with_name(f".{self.root.name}.lock")  # beside the folder, so that no listing shows it
        self._threads = threading.Lock()

    def _at(self, key: str) -> AbstractContextManager[None]:
        """A folder that is gone, as when its disk is unmounted, is not an empty bucket: no result would be taken for a lost one."""
        if not self.root.is_dir():
            raise BucketUnavailable(f"The bucket's folder {self.root} is not there; put it back, or mount it.")
        return super()._at(key)

    def get(self, key: str) -> Blob:
        data = self._read(key) if _PLAIN.fullmatch(key) else super().get(key).data
        return Blob(data, _digest(data))

    def exists(self, key: str) -> bool:
        """A look that a reconciler takes thousands of times a round: asked of the file system itself, it takes a fiftieth of the time."""
        if not _PLAIN.fullmatch(key):
            return super().exists(key)
        with self._at(key):
            return os.path.isfile(f"{self.root}/{key}")  # noqa: PTH113  # a Path takes longer to make than the file to be looked at

    def _read(self, key: str) -> bytes:
        """As `exists`, past obstore, which hands every call to threads of its own."""
        with self._at(key):
            try:
                with open(f"{self.root}/{key}", "rb") as file:  # noqa: PTH123  # as above
                    return file.read()
            except (IsADirectoryError, NotADirectoryError) as error:
                raise FileNotFoundError(key) from error

    def put(self, key: str, data: bytes) -> str:
        super().put(key, data)
        return _digest(data)

    def create(self, key: str, data: bytes) -> str:
        super().create(key, data)
        return _digest(data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        with self._at(key), self._threads, self._lock_path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            blob = self.find(key)
            if blob is None or blob.etag != etag:
                raise EtagMismatch(f"{key} was changed by somebody else.")
            return self.put(key, data)

    def local_path(self, key: str) -> Path | None:
        return self.root / key

    def delete_prefix(self, prefix: str) -> None:
        with self._at(prefix):
            shutil.rmtree(self.root / prefix, ignore_errors=True)


def open_bucket(url: str, options: Mapping[str, Any] | None = None, patience: timedelta | None = None) -> Bucket:
    """The bucket at `file:///folder`, `memory://` (this process only) or `s3://name/prefix`.

    `options` are obstore's S3 settings (endpoint, region, access_key_id, ...), beside the AWS_* variables that it reads; its
    `client_options` would undo AWS_ALLOW_HTTP. An S3 that is away or busy is asked again: for seconds, since a person may be waiting, or,
    after longer and longer pauses, for `patience` (minutes: past five a request's signature may have run out).
    Raises BadRequest for any other URL.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise BadRequest("Keep credentials out of the bucket's URL, which is logged and shown; set AWS_ACCESS_KEY_ID and the like instead.")
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FileBucket(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return Bucket(MemoryStore(), url)
    if parts.scheme == "s3" and parts.netloc:
        with _translated(url):
            chosen = _Patience(1 << 16, patience.total_seconds()) if patience else _BRIEF
            given = {"retry_config": chosen.config} | dict(options or {})
            once = S3Store.from_url(url, **given | {"retry_config": _NONE.config})
            return Bucket(S3Store.from_url(url, **given), url, once, chosen)
    raise BadRequest(f"A bucket is file:///folder, s3://name/prefix or memory://, not {url!r}.")


_PLAIN = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)  # a key that is its own path below the folder: all of ours are


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _etag(answer: Any) -> str:
    tag = answer["e_tag"]
    if tag is None:
        raise NoConditionalWrites("The bucket gives its objects no ETag, so a write cannot be made conditional.")
    return str(tag)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """obstore's and the operating system's errors as ours, in one sentence."""
    try:
        yield
    except (OSError, BaseError, ValueError, NotImplementedError) as error:  # all that obstore raises, by its kinds of store
        raise _ours(error, key) from error


def _ours(error: Exception, key: str) -> BucketError:  # noqa: PLR0911  # rows of a table
    match error:
        case FileNotFoundError():  # obstore raises it for a missing key
            return KeyMissing(f"There is no object {key}.")
        case AlreadyExistsError():
            return AlreadyExists(f"{key} exists already.")
        case PreconditionError():
            return EtagMismatch(f"{key} was changed by somebody else.")
        case PermissionError() | PermissionDeniedError() | UnauthenticatedError():
            return BucketError(f"The bucket refuses access to {key}; check its credentials and permissions.")
        case OSError() | GenericError() if _is_full(error):
            return OutOfSpace(f"The disk is full: {key} was not written. Free some space and retry.")
        case OSError() | GenericError() | JoinError():
            return BucketUnavailable(f"The bucket did not answer for {key}: {_first_line(error)}.")
        case _:  # a key or a setting that can never work, here or later
            return BucketError(f"The bucket cannot do that with {key}: {_first_line(error)}.")


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(sign in str(error) for sign in _SIGNS_OF_FULL)


def _first_line(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).partition("\n")[0].rstrip(". ")
