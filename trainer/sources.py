"""Readers of raw text and of tokenised layouts: documents one by one, whatever the corpus' size."""

import glob
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from numpy.typing import NDArray

from api.errors import DataError
from api.spec import DatasetSource, DoremiSource, JsonlSource, NanotronSource, ParquetSource, Source

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Document:
    """A document's text, or the ids of one tokenised row; `position` is the bytes of the source's files read so far."""

    content: str | Ids
    position: int


def source_files(source: Source, domain: str) -> list[Path]:
    """The files of a source's training side, sorted. Raises DataError when there is none."""
    if isinstance(source, JsonlSource | ParquetSource):
        files: set[Path] = set()
        for pattern in source.paths:
            matched = [Path(name) for name in glob.glob(pattern, recursive=True)]
            if not matched:
                raise DataError(f"Domain {domain}: no file matches {pattern}.")
            files |= {path for path in matched if path.is_file()}
        return sorted(files)
    folder = source_folder(source, domain)
    files = set(folder.rglob("*.arrow"))
    if not files:
        raise DataError(f"Domain {domain}: {folder} holds no Arrow files written by save_to_disk.")
    return sorted(files)


def source_folder(source: DatasetSource | NanotronSource | DoremiSource, domain: str, side: str = "train") -> Path:
    """Where a folder source's rows of one side lie."""
    folder = Path(source.path)
    if isinstance(source, DoremiSource):
        folder = folder / side / (source.domain or domain)
    if not folder.is_dir():
        raise DataError(f"Domain {domain}: there is no folder {folder}.")
    return folder


def read_documents(source: Source, domain: str, interleave: bool = False, side: str = "train") -> Iterator[Document]:
    """All documents of a source. `interleave` takes them from its files in turn, for a sample that does not favour the first.

    Raises DataError that names the file and line, or the column, that cannot be read.
    """
    if isinstance(source, JsonlSource | ParquetSource):
        files = source_files(source, domain)
        reader = _jsonl if isinstance(source, JsonlSource) else _parquet
        streams = [reader(path, source.text_field, domain) for path in files]
        sizes = [path.stat().st_size for path in files]
        yield from _in_turn(streams) if interleave else _in_order(streams, sizes)
    elif isinstance(source, DatasetSource):
        yield from _dataset(source_folder(source, domain), source.text_field, domain)
    else:
        yield from _tokenised(source_folder(source, domain, side), domain)


def _in_order(streams: list[Iterator[Document]], sizes: list[int]) -> Iterator[Document]:
    before = 0
    for stream, size in zip(streams, sizes, strict=True):
        for document in stream:
            yield Document(document.content, before + document.position)
        before += size


def _in_turn(streams: list[Iterator[Document]]) -> Iterator[Document]:
    while streams:
        still = []
        for stream in streams:
            document = next(stream, None)
            if document is not None:
                yield document
                still.append(stream)
        streams = still


def _jsonl(path: Path, field: str, domain: str) -> Iterator[Document]:
    number = 0
    try:
        with path.open("rb") as raw:
            for line in _lines(raw, path):
                if line.strip():
                    yield Document(_text(json.loads(line), field), raw.tell())
                number += 1
    except (ValueError, KeyError, TypeError, EOFError, OSError, zstandard.ZstdError) as error:
        what = f"it has no field `{field}`" if isinstance(error, KeyError) else str(error)
        raise DataError(f"Domain {domain}: {path} cannot be read at line {number + 1}: {what}.") from error


def _lines(raw: IO[bytes], path: Path) -> Iterator[bytes]:
    if path.suffix == ".gz":
        return iter(cast(Any, gzip.GzipFile(fileobj=raw)))
    if path.suffix == ".zst":
        return iter(io.BufferedReader(cast(Any, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))))
    return iter(raw)


def _text(record: Any, field: str) -> str:
    if not isinstance(record, dict):
        raise TypeError("the line is not a JSON object")
    if not isinstance(record[field], str):
        raise TypeError(f"`{field}` is not text")
    return cast(str, record[field])


def _parquet(path: Path, field: str, domain: str) -> Iterator[Document]:
    try:
        file = pq.ParquetFile(path)
        if field not in file.schema_arrow.names:
            raise DataError(f"Domain {domain}: {path} has no column `{field}`; it has {', '.join(file.schema_arrow.names)}.")
        size, done = path.stat().st_size, 0
        for batch in file.iter_batches(batch_size=1024, columns=[field]):
            done += batch.num_rows
            for text in batch.column(0).to_pylist():
                if not isinstance(text, str):
                    raise DataError(f"Domain {domain}: the column `{field}` of {path} holds something that is not text.")
                yield Document(text, size * done // max(1, file.metadata.num_rows))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"Domain {domain}: {path} is not a readable Parquet file: {error}.") from error


def _dataset(folder: Path, field: str, domain: str) -> Iterator[Document]:
    rows = _load(folder, domain)
    if field not in rows.column_names:
        raise DataError(f"Domain {domain}: {folder} has no column `{field}`; it has {', '.join(rows.column_names)}.")
    size = sum(path.stat().st_size for path in folder.glob("*.arrow"))
    for start in range(0, len(rows), 1024):
        for text in rows[start : start + 1024][field]:
            if not isinstance(text, str):
                raise DataError(f"Domain {domain}: the column `{field}` of {folder} holds something that is not text.")
            yield Document(text, size * min(len(rows), start + 1024) // len(rows))


def _tokenised(folder: Path, domain: str) -> Iterator[Document]:
    """Rows of ids from one folder, or from the shards below it (the original layout)."""
    shards = [folder] if (folder / "state.json").exists() else sorted(path for path in folder.iterdir() if (path / "state.json").exists())
    if not shards:
        raise DataError(f"Domain {domain}: {folder} holds no folder written by save_to_disk.")
    position = 0
    for shard in shards:
        rows = _load(shard, domain)
        if "input_ids" not in rows.column_names:
            raise DataError(f"Domain {domain}: {shard} has no column `input_ids`; it has {', '.join(rows.column_names)}.")
        for start in range(0, len(rows), 1024):
            for ids in rows[start : start + 1024]["input_ids"]:
                position += 4 * len(ids)
                yield Document(np.asarray(ids, dtype=np.int32), position)


def _load(folder: Path, domain: str) -> Any:
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise DataError(f"Domain {domain}: {folder} is not a folder written by save_to_disk: {error}.") from error
    if not isinstance(loaded, datasets.Dataset):
        raise DataError(f"Domain {domain}: {folder} holds several splits; name one of {', '.join(loaded)} below it.")
    return loaded
