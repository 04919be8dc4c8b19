"""Token ids on their way from a source's pieces to packed rows: raw int32, a file a piece and side, kept in the bucket beside a marker."""

import contextlib
import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from api.bucket import Bucket
from api.errors import Damaged, KeyMissing

_CHUNK = 1 << 20  # bytes written and read at a time


class Shard(BaseModel):
    """What a shard holds."""

    documents: int
    tokens: int
    sha256: str


class ShardWriter:
    """Streams documents' ids to the object at `key`, which is there once `finish` has returned, whole; not at all where they are none.

    A context manager: leaving it without `finish` leaves nothing behind.
    """

    def __init__(self, bucket: Bucket, key: str, work: Path) -> None:
        """`work`: where the file grows when the bucket is no folder."""
        self._bucket, self._key = bucket, key
        self._place = bucket.local_path(key)
        name = uuid.uuid4().hex
        self._path = self._place.with_name(f".{self._place.name}.{name}") if self._place else work / name
        if self._place:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            for left_behind in self._place.parent.glob(f".{self._place.name}.*"):  # by a process that was killed
                left_behind.unlink(missing_ok=True)
        self._file = self._path.open("wb")
        self._digest = hashlib.sha256()
        self._waiting: list[NDArray[np.int32]] = []
        self._waiting_bytes = 0
        self._documents = self._tokens = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # a full disk refuses the last bytes again
            self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, ids: NDArray[np.int32]) -> None:
        """Append one document."""
        self._documents += 1
        self._tokens += len(ids)
        self._waiting.append(ids)
        self._waiting_bytes += ids.nbytes
        if self._waiting_bytes >= _CHUNK:
            self._write()

    def finish(self) -> Shard:
        self._write()
        self._file.close()
        if self._place and self._tokens:
            self._path.replace(self._place)
        elif self._tokens:
            self._bucket.upload(self._key, self._path)
        return Shard(documents=self._documents, tokens=self._tokens, sha256=self._digest.hexdigest())

    def _write(self) -> None:
        if self._waiting:
            data = np.concatenate(self._waiting).tobytes()
            self._file.write(data)
            self._digest.update(data)
            self._waiting, self._waiting_bytes = [], 0


def read_shard(bucket: Bucket, key: str, shard: Shard, work: Path) -> Iterator[NDArray[np.int32]]:
    """Its ids in order, a chunk at a time. Raises Damaged, at the end, when they are not those that were written."""
    if not shard.tokens:
        return
    in_place = bucket.local_path(key)
    path = in_place or work / uuid.uuid4().hex
    digest = hashlib.sha256()
    try:
        if in_place is None:
            bucket.download(key, path)
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                digest.update(data)
                yield np.frombuffer(data[: len(data) // 4 * 4], dtype=np.int32)
    except (FileNotFoundError, KeyMissing) as error:
        raise Damaged(f"The shard {key} is gone; the next attempt makes it anew.") from error
    finally:
        if in_place is None:
            path.unlink(missing_ok=True)
    if digest.hexdigest() != shard.sha256:
        raise Damaged(f"The shard {key} is not what was written; the next attempt makes it anew.")
