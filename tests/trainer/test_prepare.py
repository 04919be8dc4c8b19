"""The prepare stage: any source to packed rows, counted in tokens, held out by document, in what nanotron opens."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datasets import Dataset

from api.bucket import FileBucket
from api.errors import DataError
from api.results import PreparedDomain, StageResult
from tests.trainer.preparing import BYTES, EOS, LENGTH, Preparing, documents_of, jsonl, preparing, texts, write_jsonl

TEXTS = texts(200)


def prepared(made: Preparing, result: StageResult, name: str) -> tuple[PreparedDomain, list[str], list[str]]:
    """A domain's counts, and the documents on each side."""
    assert result.prepared is not None
    data = made.open(result)
    index = data.names.index(name)
    train = data.take(np.full(data.rows[index], index), np.arange(data.rows[index]))
    return result.prepared.domains[name], documents_of(train), documents_of(data.take_validation(index, 0, data.validation_rows[index]))


def make_gz(folder: Path) -> dict[str, Any]:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()))
    return jsonl(str(folder / "a.jsonl.gz"))


def make_zst(folder: Path) -> dict[str, Any]:
    data = "".join(json.dumps({"body": text}) + "\n" for text in TEXTS).encode()
    (folder / "a.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(data))
    return jsonl(str(folder / "a.jsonl.zst"), text_field="body")


def make_glob(folder: Path) -> dict[str, Any]:
    for number in range(4):
        write_jsonl(folder / "parts" / f"{number}.jsonl", TEXTS[number * 50 : (number + 1) * 50])
    return jsonl(str(folder / "parts" / "*.jsonl"))


def make_parquet(folder: Path) -> dict[str, Any]:
    pq.write_table(pa.table({"content": TEXTS}), folder / "a.parquet")
    return {"type": "parquet", "paths": [str(folder / "a.parquet")], "text_field": "content"}


def make_dataset(folder: Path) -> dict[str, Any]:
    Dataset.from_dict({"text": TEXTS}).save_to_disk(folder / "saved", num_shards=2)
    return {"type": "datasets", "path": str(folder / "saved")}


@pytest.mark.parametrize("make", [make_gz, make_zst, make_glob, make_parquet, make_dataset])
def test_every_kind_of_text_gives_the_same_rows(tmp_path: Path, make: Callable[[Path], dict[str, Any]]) -> None:
    plain = preparing(tmp_path / "plain", {"books": jsonl(write_jsonl(tmp_path / "a.jsonl", TEXTS))})
    other = preparing(tmp_path / "other", {"books": make(tmp_path)})
    expected, found = plain.run().prepared, other.run().prepared
    assert expected == found  # the fingerprint of all rows included


def test_each_document_ends_in_eos_and_packing_loses_only_a_last_incomplete_row(tmp_path: Path) -> None:
    made = preparing(tmp_path, {"books": jsonl(write_jsonl(tmp_path / "a.jsonl", [*TEXTS, f"spelt {EOS} out", ""]))})
    result = made.run()
    counts, train, validation = prepared(made, result, "books")
    sides = {"train": [], "validation": []}
    for text in [*TEXTS, f"spelt {EOS} out", ""]:
        side = "validation" if text in validation or text.startswith(validation[-1]) else "train"
        sides[side].append(text)
    for documents, side, tokens, row_count, document_count in (
        (train, "train", counts.tokens, counts.rows, counts.documents),
        (validation, "validation", counts.validation_tokens, counts.validation_rows, counts.validation_documents),
    ):
        stream = "".join(text + "\0" for text in sides[side])
        assert (document_count, tokens) == (len(sides[side]), len(stream))
        assert row_count == tokens // (LENGTH + 1)
        packed = stream[: row_count * (LENGTH + 1)]
        assert documents == [text for text in packed.split("\0") if text]
    assert counts.bytes_per_token == pytest.approx(1 - 202 / (counts.tokens + counts.validation_tokens))
    assert result.prepared is not None
    assert (result.prepared.vocab_size, result.prepared.eos_id) == (257, 256)


def test_shares_are_of_tokens_never_of_documents(tmp_path: Path) -> None:
    few_long, many_short = ["x" * 999] * 90, ["y" * 9] * 1000  # alike in tokens: none of them is held out, or all
    held = {"validation": {"type": "source", "source": jsonl(write_jsonl(tmp_path / "v.jsonl", TEXTS))}}
    made = preparing(
        tmp_path,
        {
            "long": {"source": jsonl(write_jsonl(tmp_path / "l.jsonl", few_long)), **held},
            "short": {"source": jsonl(write_jsonl(tmp_path / "s.jsonl", many_short)), **held},
        },
    )
    prepared = made.run().prepared
    assert prepared is not None
    long, short = prepared.domains["long"], prepared.domains["short"]
    assert (long.documents, long.tokens, short.documents, short.tokens) == (90, 90_000, 1000, 10_000)
    assert (long.share, short.share) == (pytest.approx(0.9), pytest.approx(0.1))
    assert prepared.token_shares.root == {"long": long.share, "short": short.share}


def test_what_nanotron_opens_is_there(tmp_path: Path) -> None:
    sources = {name: jsonl(write_jsonl(tmp_path / f"{name}.jsonl", texts(99, n))) for n, name in enumerate(("web", "books", "code"))}
    made = preparing(tmp_path, sources)
    result = made.run()
    assert isinstance(made.bucket, FileBucket)
    assert result.prepared is not None
    root = made.bucket.local_path(result.files["data"])
    assert sorted(path.name for path in root.iterdir()) == ["books", "code", "web"]
    for index, name in enumerate(("books", "code", "web")):
        loaded = datasets.load_from_disk(str(root / name))
        assert len(loaded) == result.prepared.domains[name].rows
        assert set(loaded["domain_ids"]) == {index}
        assert {len(ids) for ids in loaded["input_ids"]} == {LENGTH + 1}
    assert json.loads(made.bucket.get(result.files["tokenizer"]).data)["model"]["type"] == "BPE"
    assert list((tmp_path / "cache").rglob("*.*")) == []  # what it worked with is gone


def test_the_tokenised_layouts_go_through_as_they_are(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 90, (120, LENGTH + 1), dtype=np.int32)
    Dataset.from_dict({"input_ids": ids.tolist(), "domain_ids": [0] * 120}).save_to_disk(tmp_path / "nanotron")
    for side, part in (("train", ids[:100]), ("validation", ids[100:])):
        for shard in range(2):
            Dataset.from_dict({"input_ids": part[shard::2].tolist()}).save_to_disk(tmp_path / side / "original" / str(shard))
    original = {"type": "doremi", "path": str(tmp_path)}
    made = preparing(
        tmp_path / "made",
        {
            "nanotron": {"type": "nanotron", "path": str(tmp_path / "nanotron")},
            "original": {"source": original, "validation": {"type": "source", "source": original}},
        },
        tokenizer={"type": "pretokenized", "vocab_size": 90},
    )
    result = made.run()
    data = made.open(result)
    np.testing.assert_array_equal(data.take(np.full(100, 1), np.arange(100)), np.concatenate((ids[:100:2], ids[1:100:2])))
    np.testing.assert_array_equal(data.take_validation(1, 0, 20), np.concatenate((ids[100::2], ids[101::2])))
    both = [data.take(np.full(data.rows[0], 0), np.arange(data.rows[0])), data.take_validation(0, 0, 120)]
    assert sorted(np.concatenate(both).tolist()) == sorted(ids.tolist())
    assert result.prepared is not None
    assert result.prepared.domains["original"].tokens == 100 * (LENGTH + 1)
    assert result.prepared.domains["original"].bytes_per_token is None
    assert (result.prepared.vocab_size, result.prepared.eos_id) == (90, -1)


def test_the_same_documents_are_held_out_whatever_their_order_and_files(tmp_path: Path) -> None:
    many = texts(400, words=2)
    shuffled = [many[n] for n in np.random.default_rng(0).permutation(len(many))]
    once = preparing(tmp_path / "once", {"books": jsonl(write_jsonl(tmp_path / "a.jsonl", many))}, sequence_length=8)
    for number in range(5):
        write_jsonl(tmp_path / "parts" / f"{number}.jsonl", shuffled[number::5])
    split = preparing(
        tmp_path / "split",
        {"other": jsonl(str(tmp_path / "parts" / "*")), "web": jsonl(write_jsonl(tmp_path / "x.jsonl", TEXTS))},
        sequence_length=8,
    )
    first, _, held_out = prepared(once, once.run(), "books")
    second, _, again = prepared(split, split.run(), "other")
    assert 8 < first.validation_documents < 36  # 5 % of 400
    assert (second.validation_documents, second.validation_tokens) == (first.validation_documents, first.validation_tokens)
    assert set(held_out[:-1]) - {again[-1]} <= set(again[:-1]) | {text for text in held_out if text.startswith(again[-1])}
    larger = preparing(
        tmp_path / "larger",
        {"books": {"source": jsonl(str(tmp_path / "a.jsonl")), "validation": {"type": "held_out", "fraction": 0.2}}},
        sequence_length=8,
    )
    assert set(held_out[:-1]) <= set(prepared(larger, larger.run(), "books")[2])


def test_a_validation_source_is_held_out_whole_and_nothing_else_is(tmp_path: Path) -> None:
    validation = {"type": "source", "source": jsonl(write_jsonl(tmp_path / "v.jsonl", texts(30, seed=9)))}
    made = preparing(tmp_path, {"books": {"source": jsonl(write_jsonl(tmp_path / "a.jsonl", TEXTS)), "validation": validation}})
    counts, train, held_out = prepared(made, made.run(), "books")
    assert (counts.documents, counts.validation_documents) == (200, 30)
    assert train[:199] == TEXTS[:199]
    assert held_out[:29] == texts(30, seed=9)[:29]


def test_caps_that_cannot_feed_a_stage_are_told_at_once(tmp_path: Path) -> None:
    sources = {name: jsonl(write_jsonl(tmp_path / f"{name}.jsonl", texts(n, n))) for name, n in (("small", 40), ("web", 400))}
    spec = {
        "training": {"proxy": {"steps": 50, "global_batch": 8, "micro_batch": 8}},
        "comparison": {"mixtures": ["averaged", "reference"]},
    }
    capped = {name: {"source": source, "max_epochs": 0.1} for name, source in sources.items()}
    with pytest.raises(DataError, match=r"The stage reference would draw 400 sequences, but max_epochs allows \d+; raise a cap") as caught:
        preparing(tmp_path / "dry", capped, **spec).run()
    assert not caught.value.retryable


def test_the_byte_tokenizer_of_these_tests_gives_a_token_a_character() -> None:
    assert len(BYTES) == 256
