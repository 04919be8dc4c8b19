"""Readers of raw text and of tokenised layouts: documents one by one, whatever the corpus' size."""

import glob
import gzip
import io
import itertools
import json
import zlib
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
from api.reach import Reach, refusal
from api.spec import DatasetSource, DoremiSource, JsonlSource, NanotronSource, ParquetSource, Source
from trainer.opening import check_reach, opened

Ids = NDArray[np.int32]
_OPEN_FILES = 64  # at a time, well below what a process may open
_MOST_ID = 2**31 - 1  # rows are int32
_READ_BYTES = 1 << 17  # of compressed text
_ROWS = 128  # of a table at a time: documents may be books


@dataclass(frozen=True)
class Document:
    """A document's text, or the ids of one tokenised row; `position` is the bytes of its piece read so far."""

    content: str | Ids
    position: int


def first_line(error: BaseException) -> str:
    """What a foreign exception says, to stand inside a sentence of ours."""
    return str(error).strip().partition("\n")[0].rstrip(". ") or type(error).__name__


@dataclass(frozen=True)
class Piece:
    """A part of a source that is read on its own: a file, or a folder that save_to_disk wrote. `size` in bytes."""

    path: Path
    size: int


def pieces(source: Source, domain: str, reach: Reach, side: str = "train") -> list[Piece]:
    """The pieces of a source's one side, in its order. Raises DataError when there is none, or one is outside of `reach`."""
    if isinstance(source, JsonlSource | ParquetSource):
        files: set[Path] = set()
        for pattern in source.paths:
            if reason := refusal(pattern, pattern, reach):
                raise DataError(f"Domain {domain}: {reason}.")
            matched = {path for name in glob.glob(pattern, recursive=True) if (path := Path(name)).is_file()}
            if not matched:
                raise DataError(f"Domain {domain}: no file matches {pattern}; correct the source's paths.")
            files |= matched
        for path in files:
            check_reach(path, reach, f"Domain {domain}")
        return [Piece(path, path.stat().st_size) for path in sorted(files)]
    folder = _source_folder(source, domain, side)
    check_reach(folder, reach, f"Domain {domain}")
    folders = [folder] if isinstance(source, DatasetSource) else _saved_folders(folder, domain)
    return [Piece(path, sum(file.stat().st_size for file in path.rglob("*.arrow"))) for path in folders]


def read_piece(source: Source, path: Path, domain: str, reach: Reach) -> Iterator[Document]:
    """The documents of one piece, in order. Raises DataError that names the file and line, or the column, that cannot be read, and
    for what is outside of `reach`."""
    if isinstance(source, JsonlSource):
        return _jsonl(path, source.text_field, domain, reach)
    if isinstance(source, ParquetSource):
        return _parquet(path, source.text_field, domain, reach)
    if isinstance(source, DatasetSource):
        return _dataset(path, source.text_field, domain, reach)
    return _tokenised(path, domain, reach)


def read_documents(source: Source, domain: str, reach: Reach, interleave: bool = False, side: str = "train") -> Iterator[Document]:
    """All documents of a source. `interleave` takes them from its pieces in turn, for a sample that does not favour the first.

    Raises DataError, as `read_piece` does.
    """
    found = pieces(source, domain, reach, side)
    streams = [read_piece(source, piece.path, domain, reach) for piece in found]
    if not interleave:
        yield from itertools.chain.from_iterable(streams)
    groups = -(-len(streams) // _OPEN_FILES)
    for first in range(groups if interleave else 0):
        yield from _in_turn(streams[first::groups])  # each group is spread over all the pieces


def _source_folder(source: DatasetSource | NanotronSource | DoremiSource, domain: str, side: str) -> Path:
    """Where a folder source's rows of one side lie."""
    folder = Path(source.path)
    if isinstance(source, DoremiSource):
        folder = folder / side / (source.domain or domain)
    if not folder.is_dir():
        raise DataError(f"Domain {domain}: there is no folder {folder}; correct the source's path.")
    return folder


def _saved_folders(folder: Path, domain: str) -> list[Path]:
    """The folder of rows of ids itself, or the shards below it (the original layout)."""
    if (folder / "state.json").exists():
        return [folder]
    shards = sorted(path for path in folder.iterdir() if (path / "state.json").exists())
    if not shards:
        raise DataError(f"Domain {domain}: {folder} holds no folder written by save_to_disk; correct the source's path.")
    return shards


def _in_turn(streams: list[Iterator[Document]]) -> Iterator[Document]:
    while streams:
        still = []
        for stream in streams:
            document = next(stream, None)
            if document is not None:
                yield document
                still.append(stream)
        streams = still


def _jsonl(path: Path, field: str, domain: str, reach: Reach) -> Iterator[Document]:
    number = 0
    try:
        with opened(path, reach, f"Domain {domain}") as raw:
            for line in _lines(raw, path):
                if line.strip():
                    yield Document(_text(json.loads(line), field), raw.tell())
                number += 1
    except (ValueError, EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        reason = f"it is not JSON ({reason})" if isinstance(error, json.JSONDecodeError) else reason
        raise DataError(
            f"Domain {domain}: {path} cannot be read at line {number + 1}: {reason}; repair the file, or take it out of the source."
        ) from error


def _lines(raw: IO[bytes], path: Path) -> Iterator[bytes]:
    if path.suffix == ".gz":
        return iter(cast(Any, gzip.GzipFile(fileobj=raw)))
    if path.suffix == ".zst":
        return iter(io.BufferedReader(_Zstandard(raw)))
    return iter(raw)


class _Zstandard(io.RawIOBase):
    """Decompresses one frame after the other. The library's own reader takes the end of a cut-off file for the end of its text."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._rest = raw, b""
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            data = self._raw.read(_READ_BYTES)
            if not data:
                if self._frame is not None:
                    raise EOFError("Compressed file ended before the end-of-frame marker was reached")
                return 0
            self._rest = self._decompressed(data)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def _decompressed(self, data: bytes) -> bytes:
        parts = []
        while data:
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            parts.append(self._frame.decompress(data))
            data = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        return b"".join(parts)


def _text(record: Any, field: str) -> str:
    """The member's text. Raises ValueError: also for half a surrogate pair, which JSON can write and UTF-8 cannot."""
    if not isinstance(record, dict):
        raise ValueError("the line is not a JSON object")
    if field not in record:
        raise ValueError(f"it has no field `{field}` (text_field), but {', '.join(record) or 'none at all'}")
    text = record[field]
    if not isinstance(text, str):
        raise ValueError(f"`{field}` is not text")
    text.encode()
    return text


def _parquet(path: Path, field: str, domain: str, reach: Reach) -> Iterator[Document]:
    try:
        with opened(path, reach, f"Domain {domain}") as raw, pq.ParquetFile(raw) as file:
            if field not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)
                raise DataError(f"Domain {domain}: {path} has no column `{field}` (text_field); it has {names}.")
            size, done = path.stat().st_size, 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=[field]):
                done += batch.num_rows
                for text in batch.column(0).to_pylist():
                    if not isinstance(text, str):
                        raise DataError(f"Domain {domain}: the column `{field}` of {path} holds something that is not text; name another.")
                    yield Document(text, size * done // max(1, file.metadata.num_rows))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Domain {domain}: {path} is not a readable Parquet file ({first_line(error)}); repair it, or take it out of the source."
        ) from error


def _dataset(folder: Path, field: str, domain: str, reach: Reach) -> Iterator[Document]:
    rows = _load(folder, domain, reach)
    if field not in rows.column_names:
        raise DataError(f"Domain {domain}: {folder} has no column `{field}` (text_field); it has {', '.join(rows.column_names)}.")
    _check_plain(rows.features[field], field, folder, domain)
    size = sum(path.stat().st_size for path in folder.glob("*.arrow"))
    texts = rows.select_columns(field)  # the others are not to be decoded with it
    for start in range(0, len(rows), _ROWS):
        for text in texts[start : start + _ROWS][field]:
            if not isinstance(text, str):
                raise DataError(f"Domain {domain}: the column `{field}` of {folder} holds something that is not text; name another.")
            yield Document(text, size * min(len(rows), start + _ROWS) // len(rows))


def _tokenised(folder: Path, domain: str, reach: Reach) -> Iterator[Document]:
    """Rows of ids from one folder."""
    rows = _load(folder, domain, reach)
    if "input_ids" not in rows.column_names:
        raise DataError(f"Domain {domain}: {folder} has no column `input_ids`; it has {', '.join(rows.column_names)}.")
    _check_plain(rows.features["input_ids"], "input_ids", folder, domain)
    columns = rows.select_columns("input_ids")
    position = 0
    for start in range(0, len(rows), _ROWS):
        for ids in columns[start : start + _ROWS]["input_ids"]:
            row = _ids(ids, folder, domain)
            position += row.nbytes
            yield Document(row, position)


def _ids(row: Any, folder: Path, domain: str) -> Ids:
    ids = np.asarray(row)
    if ids.ndim != 1 or ids.dtype.kind != "i" or np.abs(ids).max() > _MOST_ID:
        raise DataError(f"Domain {domain}: the column `input_ids` of {folder} holds something that is no row of token ids; write it anew.")
    return ids.astype(np.int32)


def _load(folder: Path, domain: str, reach: Reach) -> Any:
    """The folder's rows. Its own description says which files hold them, so that is read first; afterwards they are mapped, and what a
    link is changed to no longer matters."""
    try:
        _check_files(folder, domain, reach)
        loaded = datasets.load_from_disk(str(folder))
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"Domain {domain}: {folder} is not a folder that save_to_disk wrote ({first_line(error)}); write it anew."
        ) from error
    if not isinstance(loaded, datasets.Dataset):
        raise DataError(f"Domain {domain}: {folder} holds several splits; name one of {', '.join(loaded)} below it.")
    return loaded


def _check_files(folder: Path, domain: str, reach: Reach) -> None:
    """Raises DataError for a description that names files elsewhere, or one that is reached by a link out of `reach`."""
    check_reach(folder, reach, f"Domain {domain}")
    state = folder / "state.json"
    for name in ("dataset_info.json", "dataset_dict.json"):
        check_reach(folder / name, reach, f"Domain {domain}")
    check_reach(state, reach, f"Domain {domain}")
    for named in json.loads(state.read_bytes())["_data_files"] if state.is_file() else ():
        name = named["filename"]
        if Path(name).name != name:
            raise DataError(f"Domain {domain}: {state} names files outside of its folder; write it anew.")
        check_reach(folder / name, reach, f"Domain {domain}")


def _check_plain(feature: Any, column: str, folder: Path, domain: str) -> None:
    """Raises DataError for a column that is decoded when it is read (an image, a sound): decoding fetches whatever the rows name."""
    inner = getattr(feature, "feature", feature)
    if not isinstance(inner, datasets.Value):
        raise DataError(f"Domain {domain}: the column `{column}` of {folder} is {type(inner).__name__}, not text or ids; name another.")
