"""Packed rows on disk: memory-mapped Arrow in the layout of `datasets.save_to_disk`, which nanotron reads as it is.

A folder holds one record batch of fixed-length rows, so that the whole column is one NumPy view of the file, without a copy.
"""

import contextlib
import hashlib
import json
import mmap
import shutil
import uuid
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Features, List, Value
from numpy.typing import NDArray

ARROW_FILE = "data-00000-of-00001.arrow"
Rows = NDArray[np.int32]
_CHUNK = 1 << 23  # bytes of a mapped file that are resident at a time while it is copied


class RowWriter:
    """Packs ids into rows of a fixed length, streaming them to a raw file; `finish` turns that into an Arrow folder."""

    def __init__(self, raw: Path, row_length: int) -> None:
        raw.parent.mkdir(parents=True, exist_ok=True)
        self._raw, self._file, self._row_length = raw, raw.open("wb"), row_length
        self._digest = hashlib.sha256()
        self._rest: NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self.tokens = 0
        self.rows = 0

    def add(self, ids: NDArray[np.int32]) -> None:
        """Append one document's ids; a row that they do not fill waits for the next document, and is dropped at the end."""
        self.tokens += len(ids)
        self._rest = np.concatenate((self._rest, ids))
        full = len(self._rest) // self._row_length * self._row_length
        if full >= 64 * self._row_length:
            self._write(full)

    def finish(self, folder: Path, domain_id: int) -> str:
        """Write the Arrow folder, whole or not at all; the sha256 of its rows."""
        self._write(len(self._rest) // self._row_length * self._row_length)
        self._file.close()
        partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        try:
            _write_folder(partial, self._raw, (self.rows, self._row_length), domain_id)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            self._raw.unlink(missing_ok=True)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Give up what was not finished."""
        with contextlib.suppress(OSError):  # a full disk refuses the last bytes again
            self._file.close()
        self._raw.unlink(missing_ok=True)

    def _write(self, count: int) -> None:
        data = self._rest[:count].tobytes()
        self._file.write(data)
        self._digest.update(data)
        self.rows += count // self._row_length
        self._rest = self._rest[count:]


def _write_folder(folder: Path, raw: Path, shape: tuple[int, int], domain_id: int) -> None:
    folder.mkdir(parents=True)
    features = Features({"input_ids": List(Value("int32"), length=shape[1]), "domain_ids": Value("int32")})
    _write_arrow(folder / ARROW_FILE, raw, shape, domain_id, features.arrow_schema)
    state: dict[str, object] = {
        "_data_files": [{"filename": ARROW_FILE}],
        "_fingerprint": hashlib.sha256(f"{domain_id}{shape}".encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features.to_dict()}, indent=2, sort_keys=True))


def _write_arrow(path: Path, raw: Path, shape: tuple[int, int], domain_id: int, schema: pa.Schema) -> None:
    rows, row_length = shape
    with raw.open("rb") as source, path.open("wb") as target:
        mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) if rows else None
        ids = np.frombuffer(mapped, dtype=np.int32) if mapped else np.empty(0, dtype=np.int32)
        columns = [
            pa.FixedSizeListArray.from_arrays(pa.array(ids), row_length).cast(schema.field("input_ids").type),
            pa.array(np.full(rows, domain_id, dtype=np.int32)),
        ]
        with pa.ipc.new_stream(pa.PythonFile(_InChunks(target, mapped), mode="w"), schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))


class _InChunks:
    """A file that is written a piece at a time and lets the pages behind it go, so that copying a domain does not hold it in memory."""

    def __init__(self, file: BufferedWriter, mapped: mmap.mmap | None) -> None:
        self._file, self._mapped = file, mapped
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _CHUNK):
            self._file.write(view[start : start + _CHUNK])
            if self._mapped is not None:
                self._mapped.madvise(mmap.MADV_DONTNEED)
        return len(view)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()


def map_rows(folder: Path) -> Rows:
    """All rows of a folder as one read-only view of the file, [n, row_length] int32."""
    with pa.memory_map(str(folder / ARROW_FILE)) as source:
        table = pa.ipc.open_stream(source).read_all()
    array = table.column("input_ids").chunk(0)  # the only one; combining chunks would copy it into memory
    row_length = array.type.list_size
    view: Rows = np.frombuffer(array.values.buffers()[1], dtype=np.int32, count=len(array) * row_length)
    return view.reshape(len(array), row_length)
