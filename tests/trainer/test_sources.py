"""Every kind of source gives its documents, in order, whatever it is packed in; what cannot be read is named in one sentence."""

import gzip
import json
import re
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datasets import Dataset, DatasetDict
from pydantic import TypeAdapter

from api.errors import DataError
from api.reach import Reach
from api.spec import Source
from tests.trainer.preparing import texts, write_jsonl
from trainer.sources import pieces, read_documents, read_piece

TEXTS = ["first", "second, über \u2603", "", "fourth\nwith a line of its own", *texts(300)]


def read(raw: dict[str, Any], **options: Any) -> list[Any]:
    source: Source = TypeAdapter(Source).validate_python(raw)
    return [document.content for document in read_documents(source, "books", Reach(), **options)]


def lines(contents: Sequence[str], field: str = "text") -> bytes:
    return b"".join(json.dumps({"id": n, field: text}).encode() + b"\n" for n, text in enumerate(contents))


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain.jsonl": lambda data: data,
    "no-last-newline.jsonl": lambda data: data.rstrip(b"\n"),
    "blank-lines.jsonl": lambda data: data.replace(b"\n", b"\n\n \n"),
    "windows.jsonl": lambda data: data.replace(b"\n", b"\r\n"),
    "packed.jsonl.gz": gzip.compress,
    "two-members.jsonl.gz": lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
    "packed.jsonl.zst": zst,
    "two-frames.jsonl.zst": lambda data: zst(data[:5000]) + zst(data[5000:]),
}


@pytest.mark.parametrize("name", PACKED)
def test_jsonl_however_it_is_packed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACKED[name](lines(TEXTS)))
    assert read({"type": "jsonl", "paths": [str(tmp_path / name)]}) == TEXTS


def test_jsonl_of_several_frames_larger_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    many = ["".join(np.random.default_rng(n).choice(list("abcdefghijklmnopqrstuvwxyz0123456789"), 5000)) for n in range(100)]
    data = lines(many)
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(zst(data[start : start + 99_999]) for start in range(0, len(data), 99_999)))
    assert read({"type": "jsonl", "paths": [str(tmp_path / "a.jsonl.zst")]}) == many


def test_another_field_globs_and_several_paths_each_file_once_in_order_of_name(tmp_path: Path) -> None:
    for number, name in enumerate(("b/2.jsonl", "a/1.jsonl.gz", "c/deep/3.jsonl.zst")):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        pack = {".gz": gzip.compress, ".zst": zst}.get(path.suffix, bytes)
        path.write_bytes(pack(lines(TEXTS[number::3], "body")))
    expected = TEXTS[1::3] + TEXTS[0::3] + TEXTS[2::3]
    recursive = str(tmp_path / "**" / "*.jsonl*")
    assert read({"type": "jsonl", "paths": [recursive], "text_field": "body"}) == expected
    assert read({"type": "jsonl", "paths": [recursive, str(tmp_path / "b" / "*")], "text_field": "body"}) == expected


def test_positions_grow_to_the_size_of_each_piece_and_the_pieces_are_the_files_in_order(tmp_path: Path) -> None:
    paths = [write_jsonl(tmp_path / f"{number}.jsonl", texts(40 + number, number)) for number in range(3)]
    source: Source = TypeAdapter(Source).validate_python({"type": "jsonl", "paths": paths[::-1]})
    found = pieces(source, "books", Reach())
    assert [(str(piece.path), piece.size) for piece in found] == [(path, Path(path).stat().st_size) for path in paths]
    for number, piece in enumerate(found):
        documents = list(read_piece(source, piece.path, "books", Reach()))
        assert [document.content for document in documents] == texts(40 + number, number)
        positions = [document.position for document in documents]
        assert positions == sorted(positions)
        assert positions[-1] == piece.size


def test_a_sample_takes_from_all_files_in_turn_and_opens_few_of_them_at_a_time(tmp_path: Path) -> None:
    for number in range(200):
        write_jsonl(tmp_path / f"{number:03}.jsonl", [f"{number} {line}" for line in range(3)])
    raw = {"type": "jsonl", "paths": [str(tmp_path / "*.jsonl")]}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 100, hard))
    try:
        sample = read(raw, interleave=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(sample) == sorted(read(raw))
    first = [int(text.split()[0]) for text in sample[:50]]
    assert len(set(first)) == 50  # no file twice before others had their turn,
    assert max(first) > 180  # and not the first files only


def test_parquet_in_several_row_groups(tmp_path: Path) -> None:
    table = pa.table({"id": range(len(TEXTS)), "body": TEXTS})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    pq.write_table(table.slice(0, 10), tmp_path / "b.parquet")
    assert read({"type": "parquet", "paths": [str(tmp_path / "*.parquet")], "text_field": "body"}) == TEXTS + TEXTS[:10]


def test_a_datasets_folder(tmp_path: Path) -> None:
    Dataset.from_dict({"text": TEXTS, "ids": [[1, 2]] * len(TEXTS)}).save_to_disk(tmp_path / "saved", num_shards=3)
    assert read({"type": "datasets", "path": str(tmp_path / "saved")}) == TEXTS


def test_the_tokenised_layouts(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 100, (300, 17)).tolist()
    Dataset.from_dict({"input_ids": rows, "domain_ids": [0] * 300}).save_to_disk(tmp_path / "nanotron" / "books")
    for side, kept in (("train", rows[:200]), ("validation", rows[200:])):
        for shard in range(2):
            part = kept[shard::2]
            Dataset.from_dict({"input_ids": part, "domain_id": [4] * len(part)}).save_to_disk(tmp_path / side / "books" / str(shard))
    assert np.array_equal(read({"type": "nanotron", "path": str(tmp_path / "nanotron" / "books")}), rows)
    original = {"type": "doremi", "path": str(tmp_path)}
    assert np.array_equal(read(original), rows[0:200:2] + rows[1:200:2])
    assert np.array_equal(read(original, side="validation"), rows[200::2] + rows[201::2])
    (tmp_path / "train" / "books").rename(tmp_path / "train" / "Books3")
    assert len(read({**original, "domain": "Books3"})) == 200


def bad_jsonl(content: bytes, name: str = "bad.jsonl") -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        (folder / name).write_bytes(content)
        return {"type": "jsonl", "paths": [str(folder / name)]}

    return write


def unreadable(folder: Path) -> dict[str, Any]:
    (folder / "bad.jsonl").symlink_to("/proc/self/mem")
    return {"type": "jsonl", "paths": [str(folder / "bad.jsonl")]}


def dangling(folder: Path) -> dict[str, Any]:
    (folder / "bad.jsonl").symlink_to(folder / "gone")
    return {"type": "jsonl", "paths": [str(folder / "bad.jsonl")]}


def parquet(column: pa.Array | None) -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        if column is None:
            (folder / "bad.parquet").write_bytes(b"PAR1 and then something else")
        else:
            pq.write_table(pa.table({"body": ["x"] * len(column), "text": column}), folder / "bad.parquet")
        return {"type": "parquet", "paths": [str(folder / "bad.parquet")]}

    return write


def saved(columns: dict[str, Any] | None, kind: str, **fields: Any) -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        if columns is None:
            (folder / "bad").mkdir()
            (folder / "bad" / "state.json").write_text("{")
        else:
            Dataset.from_dict(columns).save_to_disk(folder / "bad")
        return {"type": kind, "path": str(folder / "bad"), **fields}

    return write


def splits(folder: Path) -> dict[str, Any]:
    DatasetDict({"train": Dataset.from_dict({"text": ["x"]})}).save_to_disk(folder / "bad")
    return {"type": "datasets", "path": str(folder / "bad")}


GOOD = lines(["x", "y"])
BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "no file": (lambda folder: {"type": "jsonl", "paths": [str(folder / "*.jsonl")]}, "no file matches .*correct the source's paths"),
    "dangling link": (dangling, "no file matches .*bad.jsonl; correct the source's paths"),
    "unreadable": (unreadable, "bad.jsonl is no file of text but the system's own"),
    "no JSON": (
        bad_jsonl(GOOD + b'{"text": "cut o\n'),
        "bad.jsonl cannot be read at line 3: it is not JSON \\(Invalid control character .*\\); repair the file",
    ),
    "no object": (bad_jsonl(GOOD + b'"text"\n'), "at line 3: the line is not a JSON object; repair"),
    "no field": (bad_jsonl(b'\n{"body": "x", "id": 1}\n'), r"at line 2: it has no field `text` \(text_field\), but body, id; repair"),
    "no text": (bad_jsonl(b'{"text": 7}\n'), "at line 1: `text` is not text; repair"),
    "no UTF-8": (bad_jsonl(GOOD + b'{"text": "\xff"}\n'), "at line 3: 'utf-8' codec can't decode .*; repair"),
    "half a surrogate pair": (bad_jsonl(GOOD + b'{"text": "\\ud83d"}\n'), "at line 3: 'utf-8' codec can't encode .*; repair"),
    "cut gzip": (
        bad_jsonl(gzip.compress(lines(texts(500)))[:-2000], "bad.jsonl.gz"),
        r"at line \d+: Compressed file ended before .*; repair",
    ),
    "cut zstd": (bad_jsonl(zst(lines(texts(500)))[:-2000], "bad.jsonl.zst"), r"at line \d+: Compressed file ended before .*; repair"),
    "zstd cut at its last byte": (bad_jsonl(zst(GOOD)[:-1], "bad.jsonl.zst"), r"at line \d+: Compressed file ended before .*; repair"),
    "no gzip": (bad_jsonl(GOOD, "bad.jsonl.gz"), "at line 1: Not a gzipped file .*; repair"),
    "no zstd": (bad_jsonl(GOOD, "bad.jsonl.zst"), "at line 1: .*; repair"),
    "damaged gzip": (bad_jsonl(gzip.compress(GOOD)[:20] + b"\xff" * 20, "bad.jsonl.gz"), r"at line \d: .*; repair"),
    "no Parquet": (parquet(None), r"bad.parquet is not a readable Parquet file \(.*\); repair it"),
    "no column": (parquet(pa.array(["x"])), r"bad.parquet has no column `words` \(text_field\); it has body, text"),
    "null in Parquet": (parquet(pa.array(["x", None])), "column `text` of .*bad.parquet holds something that is not text; name another"),
    "numbers in Parquet": (parquet(pa.array([1, 2])), "column `text` of .*bad.parquet holds something that is not text; name another"),
    "no folder": (
        lambda folder: {"type": "datasets", "path": str(folder / "gone")},
        "there is no folder .*gone; correct the source's path",
    ),
    "damaged folder": (saved(None, "datasets"), r"is not a folder that save_to_disk wrote \(.*\); write it anew"),
    "several splits": (splits, "holds several splits; name one of train below it"),
    "no text column": (saved({"body": ["x"]}, "datasets"), r"has no column `text` \(text_field\); it has body"),
    "numbers in a folder": (saved({"text": [1]}, "datasets"), "column `text` of .*bad holds something that is not text; name another"),
    "no ids": (saved({"text": ["x"]}, "nanotron"), "has no column `input_ids`; it has text"),
    "fractions for ids": (saved({"input_ids": [[0.5, 1.0]]}, "nanotron"), "holds something that is no row of token ids; write it anew"),
    "text for ids": (saved({"input_ids": ["x"]}, "nanotron"), "holds something that is no row of token ids; write it anew"),
    "huge ids": (saved({"input_ids": [[1, 2**31]]}, "nanotron"), "holds something that is no row of token ids; write it anew"),
    "no train folder": (saved({"input_ids": [[1]]}, "doremi"), "there is no folder .*bad/train/books; correct the source's path"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_one_sentence_that_says_where_and_what_to_do(tmp_path: Path, case: str) -> None:
    make, expected = BAD[case]
    raw = make(tmp_path)
    if case == "no column":
        raw["text_field"] = "words"
    with pytest.raises(DataError, match=expected) as caught:
        read(raw)
    sentence = caught.value.message
    assert re.fullmatch(r"Domain books: [^\n]*[^.]\.", sentence), sentence
    assert not caught.value.retryable
