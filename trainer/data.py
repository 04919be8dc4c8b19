"""Prepared rows as batches: memory-mapped, gathered by (domain, row), prefetched by a thread."""

import itertools
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from api.bucket import Bucket
from api.errors import DataError
from api.results import Prepared, StageResult
from trainer.crew import Crew, Tally
from trainer.fetch import Folder, fetch
from trainer.rows import Rows, map_rows
from trainer.sampler import Ints, MixtureSampler
from trainer.sources import first_line
from trainer.world import World

PREFETCH = 4  # batches ahead: enough to hide a slow page
_AFRESH = "run the prepare stage afresh (adopt: never)"


class PreparedData:
    """The rows of every domain, in canonical order."""

    def __init__(self, prepared: Prepared, train: list[Rows], validation: list[Rows]) -> None:
        self.prepared, self._train, self._validation = prepared, train, validation
        self.names = sorted(prepared.domains)
        self.rows = [len(rows) for rows in train]
        self._row_counts = np.array(self.rows)
        self.validation_rows = [len(rows) for rows in validation]
        self.sequence_length = prepared.sequence_length
        self.fingerprint = prepared.fingerprint

    def take(self, domain_ids: Ints, row_ids: Ints) -> NDArray[np.int32]:
        """The rows at (domain, row): [n], [n] to [n, sequence_length + 1]."""
        out = np.empty((len(domain_ids), self.sequence_length + 1), dtype=np.int32)
        if (row_ids >= self._row_counts[domain_ids]).any():
            raise IndexError("a row beyond its domain's last")
        edges = [0, *(np.flatnonzero(np.diff(domain_ids)) + 1).tolist(), len(domain_ids)]
        for start, stop in itertools.pairwise(edges):  # a run of rows of one domain; each row is copied once, straight to its place
            if start < stop:
                np.take(self._train[domain_ids[start]], row_ids[start:stop], axis=0, out=out[start:stop], mode="clip")
        return out

    def take_validation(self, domain: int, start: int, stop: int) -> NDArray[np.int32]:
        """Held-out rows [start, stop) of a domain."""
        return np.asarray(self._validation[domain][start:stop])


def open_prepared(bucket: Bucket, result: StageResult, cache: Path, tally: Tally | None = None) -> PreparedData:
    """Map what a prepare stage wrote; from a remote bucket it is fetched once to `cache`. Raises DataError where it does not fit."""
    prepared = result.prepared
    if prepared is None:
        raise DataError(f"The result of {result.stage} holds no prepared data.")
    folders, counts = [], []
    for name, domain in sorted(prepared.domains.items()):
        folders += [Folder(f"{result.files['data']}{name}/", domain.sha256)]
        folders += [Folder(f"{result.files['validation']}{name}/", domain.validation_sha256)]
        counts += [domain.rows, domain.validation_rows]
    in_place = [place for folder in folders if (place := bucket.local_path(folder.key)) is not None]
    places = in_place or fetch(bucket, folders, cache / prepared.fingerprint, tally or Tally(Crew(World()), None, "fetching"))
    mapped = [_mapped(place, folder.key) for place, folder in zip(places, folders, strict=True)]
    for rows, count, folder in zip(mapped, counts, folders, strict=True):
        if rows.shape != (count, prepared.sequence_length + 1):
            raise DataError(
                f"{folder.key} holds {rows.shape[0]} rows of {rows.shape[1]} ids, but the manifest counts {count} of "
                f"{prepared.sequence_length + 1}; {_AFRESH}."
            )
    return PreparedData(prepared, mapped[::2], mapped[1::2])


def _mapped(local: Path, folder: str) -> Rows:
    try:
        return map_rows(local)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(f"The prepared rows of {folder} cannot be read ({first_line(error)}); {_AFRESH}.") from error


@dataclass(frozen=True)
class Batch:
    """A rank's share of a global batch, and the sampler's position after it."""

    rows: NDArray[np.int32]
    """[n, sequence_length + 1]."""
    domain_ids: Ints
    """[n]."""
    row_ids: Ints
    """[n], within the domain."""
    position: dict[str, Any]
    epochs: NDArray[np.float64]
    """Passes over each domain up to and with this batch, [k]."""


class Batches:
    """Global batches at fixed weights, cut to a rank's share, made ahead by a thread. A context manager and an endless iterator."""

    def __init__(
        self, data: PreparedData, sampler: MixtureSampler, weights: NDArray[np.float64], global_batch: int, share: tuple[int, int]
    ) -> None:
        """`share` is (rank, size): a rank takes every size-th row of the global batch, from its own."""
        self._data, self._sampler, self._weights = data, sampler, weights
        self._global_batch, self._share = global_batch, share
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(PREFETCH)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)  # makes room for a put that waits
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            item = self._ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._ready.put(self._make())
        except BaseException as error:
            self._ready.put(error)

    def _make(self) -> Batch:
        rank, size = self._share
        domain_ids, row_ids = self._sampler.draw(self._weights, self._global_batch)
        mine = slice(rank, None, size)
        rows = self._data.take(domain_ids[mine], row_ids[mine])
        return Batch(rows, domain_ids[mine], row_ids[mine], self._sampler.state_dict(), self._sampler.epochs())
