"""Packed rows: nothing lost but a last incomplete row, readable by `datasets` and so by nanotron, whole on disk or not there."""

import errno
import hashlib
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer import rows
from trainer.rows import RowWriter, map_rows

relaxed = settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, documents: list[np.ndarray], row_length: int, domain_id: int = 0) -> str:
    writer = RowWriter(folder.with_suffix(".raw"), row_length)
    for ids in documents:
        writer.add(ids)
    digest = writer.finish(folder, domain_id)
    assert writer.tokens == sum(map(len, documents))
    assert writer.rows == writer.tokens // row_length
    return digest


@relaxed
@given(st.lists(st.integers(0, 700), max_size=30), st.integers(1, 33), st.integers(0, 2**31 - 1))
def test_rows_are_the_documents_end_to_end_but_for_a_last_incomplete_row(
    tmp_path: Path, lengths: list[int], row_length: int, seed: int
) -> None:
    documents = [np.random.default_rng(seed + n).integers(0, 2**31, length, dtype=np.int32) for n, length in enumerate(lengths)]
    digest = write(tmp_path / "domain", documents, row_length)
    everything = np.concatenate([np.empty(0, dtype=np.int32), *documents])
    full = len(everything) // row_length * row_length
    found = map_rows(tmp_path / "domain")
    np.testing.assert_array_equal(found, everything[:full].reshape(-1, row_length))
    assert digest == hashlib.sha256(everything[:full].tobytes()).hexdigest()
    assert not found.flags.writeable
    assert sorted(path.name for path in tmp_path.iterdir()) == ["domain"]  # neither the raw file nor a partial folder


def test_a_folder_is_a_dataset_with_nanotrons_columns(tmp_path: Path) -> None:
    documents = [np.arange(n, n + 50, dtype=np.int32) for n in range(9)]
    write(tmp_path / "github", documents, 17, domain_id=3)
    loaded = datasets.load_from_disk(str(tmp_path / "github"))
    assert loaded.column_names == ["input_ids", "domain_ids"]
    assert loaded.features["input_ids"] == datasets.List(datasets.Value("int32"), length=17)
    assert loaded.features["domain_ids"] == datasets.Value("int32")
    assert loaded["domain_ids"][:] == [3] * (450 // 17)
    np.testing.assert_array_equal(loaded.with_format("numpy")["input_ids"][:], map_rows(tmp_path / "github"))
    # Folders of several domains in one mixture, as nanotron opens them.
    write(tmp_path / "web", documents, 17, domain_id=4)
    both = datasets.concatenate_datasets([loaded, datasets.load_from_disk(str(tmp_path / "web"))])
    assert set(both["domain_ids"]) == {3, 4}


def test_a_domain_of_many_rows_is_one_view_of_the_file(tmp_path: Path) -> None:
    ids = np.arange(3_000_000, dtype=np.int32)  # more than is copied, and more than is mapped, at a time
    digest = write(tmp_path / "domain", [ids], 25)
    in_memory = pa.total_allocated_bytes()
    found = map_rows(tmp_path / "domain")
    assert pa.total_allocated_bytes() == in_memory
    assert found.shape == (120_000, 25)
    np.testing.assert_array_equal(found.ravel(), ids)
    assert digest == hashlib.sha256(ids.tobytes()).hexdigest()


def test_a_full_disk_while_finishing_leaves_what_was_there_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "domain", [np.arange(100, dtype=np.int32)], 10)
    before = (tmp_path / "domain" / rows.ARROW_FILE).read_bytes()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(rows._InChunks, "write", full)
        with pytest.raises(OSError, match="No space left on device"):
            write(tmp_path / "domain", [np.arange(200, dtype=np.int32)], 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["domain"]
    assert (tmp_path / "domain" / rows.ARROW_FILE).read_bytes() == before


def test_a_writer_that_gives_up_leaves_nothing_even_on_a_full_disk(tmp_path: Path) -> None:
    raw = tmp_path / "work" / "domain.raw"
    writer = RowWriter(raw, 4)
    writer.add(np.arange(100, dtype=np.int32))
    writer.close()
    assert list(raw.parent.iterdir()) == []

    raw.symlink_to("/dev/full")
    writer = RowWriter(raw, 4)
    with pytest.raises(OSError, match="No space left on device"):
        writer.add(np.arange(100_000, dtype=np.int32))
    writer.close()
    writer.close()
    assert list(raw.parent.iterdir()) == []
