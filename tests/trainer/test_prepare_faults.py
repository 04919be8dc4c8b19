"""Prepare under bad luck and bad input: interrupted, killed, on a full disk, over a corpus of any size; one sentence for what cannot be."""

import errno
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers

from api import keys
from api.bucket import FileBucket, open_bucket
from api.errors import SolfaError
from api.reach import Reach
from tests.forking import FORKED
from tests.trainer.preparing import EOS, Preparing, jsonl, preparing, texts, write_jsonl
from trainer import rows, tokenise
from trainer.failures import explain
from trainer.rows import RowWriter, map_rows
from trainer.tokenizer import Encoder
from trainer.world import Interrupted, stop_flag

TEXTS = texts(200)


def three(folder: Path, bucket: Any = None) -> Preparing:
    sources = {name: jsonl(write_jsonl(folder / f"{name}.jsonl", texts(150, n))) for n, name in enumerate(("books", "code", "web"))}
    return preparing(folder, sources, bucket, tokenizer={"type": "train", "vocab_size": 300})


@pytest.mark.parametrize("url", ["file", "memory://"])
@pytest.mark.parametrize("how", ["interrupted", "failed"])
def test_finished_domains_are_not_done_again_and_the_bytes_are_those_of_an_undisturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, url: str
) -> None:
    undisturbed = three(tmp_path / "undisturbed")
    expected = undisturbed.run()
    made = three(tmp_path / "made", None if url == "file" else open_bucket(url))
    read, opened = tokenise.read_piece, []

    def disturbed(source: Any, path: Path, domain: str, reach: Reach) -> Any:
        opened.append(domain)
        for number, document in enumerate(read(source, path, domain, reach)):
            if domain == "code" and number == 100 and opened.count("code") == 1:
                if how == "failed":
                    raise OSError(errno.EIO, "Input/output error")
                monkeypatch.setattr(stop_flag, "raised", True)
            yield document
        monkeypatch.setattr(stop_flag, "raised", False)

    monkeypatch.setattr(tokenise, "read_piece", disturbed)
    monkeypatch.setattr(tokenise, "ENCODE_BATCH", 20)  # batches enough to be stopped between two of them
    with pytest.raises(Interrupted if how == "interrupted" else OSError):
        made.run()
    monkeypatch.setattr(stop_flag, "raised", False)
    kept = made.files()
    assert not any("/code/" in key or "/web/" in key for key in kept)
    result = made.run(attempt=2)
    assert opened == ["books", "code", "code", "web"]
    assert (result.attempt, result.prepared) == (2, expected.prepared)
    assert made.files() == undisturbed.files()
    assert {key: made.files()[key] for key in kept} == kept
    assert list((tmp_path / "made" / "cache").rglob("*.*")) == []


def test_what_a_killed_attempt_left_behind_is_removed_and_does_not_count(tmp_path: Path) -> None:
    made = three(tmp_path)
    work = tmp_path / "cache" / "prepare" / "xtest" / "1" / "books.train.raw"
    work.parent.mkdir(parents=True)
    work.write_bytes(b"half")
    assert isinstance(made.bucket, FileBucket)
    train = made.bucket.local_path(f"{keys.prepared_prefix('xtest', 'prepare')}train")
    (train / ".books.0a1b2c3d").mkdir(parents=True)
    (train / "books").mkdir()
    (train / "books" / rows.ARROW_FILE).write_bytes(b"half")
    made.open(made.run(attempt=2))
    assert sorted(path.name for path in train.iterdir()) == ["books", "code", "web"]
    assert not work.exists()


@pytest.mark.parametrize("where", ["gathering", "finishing"])
def test_a_full_disk_is_one_sentence_and_nothing_half_written_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    made = three(tmp_path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        if where == "gathering":
            disk.setattr(rows.RowWriter, "_write", full)
        else:
            disk.setattr(rows._InChunks, "write", full)
        with pytest.raises(OSError, match="No space left") as caught:
            made.run()
    failure = explain(caught.value)
    assert (failure.code, failure.retryable) == ("out_of_space", False)
    assert failure.message.startswith("The disk is full")
    assert not any("train/" in key for key in made.files())
    assert not made.bucket.exists(f"{keys.scratch_prefix('xtest', 'prepare')}books.json")
    assert list((tmp_path / "cache").rglob("*.*")) == []
    made.open(made.run(attempt=2))


def text_domain(content: list[str]) -> Callable[[Path], Preparing]:
    return lambda folder: preparing(folder, {"books": jsonl(write_jsonl(folder / "a.jsonl", content))})


def with_validation(content: list[str]) -> Callable[[Path], Preparing]:
    def make(folder: Path) -> Preparing:
        validation = {"type": "source", "source": jsonl(write_jsonl(folder / "v.jsonl", content))}
        return preparing(folder, {"books": {"source": jsonl(write_jsonl(folder / "a.jsonl", TEXTS)), "validation": validation}})

    return make


def tokenised(ids: list[list[int]]) -> Callable[[Path], Preparing]:
    def make(folder: Path) -> Preparing:
        Dataset.from_dict({"input_ids": ids}).save_to_disk(folder / "saved")
        tokenizer = {"type": "pretokenized", "vocab_size": 50}
        return preparing(folder, {"books": {"type": "nanotron", "path": str(folder / "saved")}}, tokenizer=tokenizer)

    return make


def cut_gzip(folder: Path) -> Preparing:
    packed = gzip.compress(Path(write_jsonl(folder / "a.jsonl", TEXTS)).read_bytes())
    (folder / "a.jsonl.gz").write_bytes(packed[:-100])
    return preparing(folder, {"books": jsonl(str(folder / "a.jsonl.gz"))})


def missing_field(folder: Path) -> Preparing:
    return preparing(folder, {"books": jsonl(write_jsonl(folder / "a.jsonl", TEXTS), text_field="body")})


BAD: dict[str, tuple[Callable[[Path], Preparing], str]] = {
    "empty": (text_domain([]), "books is empty: its source holds no document; correct the source, or leave the domain out"),
    "too small": (text_domain(["tiny"]), "books is too small: 5 training tokens, but one sequence needs 17 tokens; add text or shorten"),
    "too little held out": (text_domain(["x" * 99] * 3), r"books holds out only 0 tokens, but one sequence needs 17 .*; raise validation"),
    "empty validation": (
        with_validation([]),
        r"books holds out only 0 tokens, .*; raise validation.fraction or give it a validation source",
    ),
    "other length": (tokenised([[1] * 9] * 50), "a row has 9 ids, but rows of sequence_length 16 have 17; correct sequence_length"),
    "ids too high": (tokenised([[1] * 16 + [50]] * 50), "ids reach from 1 to 50, but the vocabulary has 50; check vocab_size"),
    "ids below 0": (tokenised([[1] * 16 + [-1]] * 50), "ids reach from -1 to 1, but the vocabulary has 50; check vocab_size"),
    "cut gzip": (cut_gzip, r"a.jsonl.gz cannot be read at line \d+: Compressed file ended .*; repair the file"),
    "missing field": (missing_field, r"a.jsonl cannot be read at line 1: it has no field `body` \(text_field\), but text; repair"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_that_a_retry_cannot_help(tmp_path: Path, case: str) -> None:
    make, expected = BAD[case]
    made = make(tmp_path)
    with pytest.raises(SolfaError, match=expected) as caught:
        made.run()
    failure = explain(caught.value)
    assert (failure.code, failure.retryable) == ("bad_data", False)
    assert failure.message.startswith("Domain books")
    assert not made.bucket.exists(f"{keys.scratch_prefix('xtest', 'prepare')}books.json")
    assert list((tmp_path / "cache").rglob("*.*")) == []


def test_books_are_not_gathered_by_the_hundreds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = Encoder.encode

    def seen(self: Any, batch: list[str]) -> Any:
        sizes.append(len(batch))
        return encode(self, batch)

    monkeypatch.setattr(Encoder, "encode", seen)
    monkeypatch.setattr(tokenise, "BATCH_SIZE", 10_000)
    short, books = texts(100), ["x" * 4000 + str(number) for number in range(30)]
    preparing(tmp_path, {"books": jsonl(write_jsonl(tmp_path / "a.jsonl", short + books))}).run()
    assert sum(sizes) == 130
    assert max(sizes[1:]) <= 3


def measure(folder: Path, megabytes: int, tokenizer: Path, answer: Path) -> None:
    """In a process of its own: prepare so much text, pack so many megabytes of ids, and write down the most memory it held (kB)."""
    made = preparing(
        folder, {"books": jsonl(str(folder / "a.jsonl"))}, tokenizer={"type": "file", "path": str(tokenizer), "eos_token": EOS}
    )
    made.run()
    writer = RowWriter(folder / "raw", 1025)
    for _ in range(megabytes):
        writer.add(np.zeros(1 << 18, dtype=np.int32))
    writer.finish(folder / "rows", 0)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    answer.write_text(peak[1] if peak else "")


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"x" * 99: 0, EOS: 1}, unk_token=EOS))  # so few tokens that much text is read in little time
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "words.json"))
    peaks = []
    for megabytes in (2, 60):
        folder, answer = tmp_path / str(megabytes), tmp_path / f"{megabytes}.peak"
        folder.mkdir()
        document = " ".join(["x" * 99] * 1000)  # 100 kB
        with (folder / "a.jsonl").open("w") as file:
            file.writelines(json.dumps({"text": f"{number} {document}"}) + "\n" for number in range(megabytes * 10))
        process = FORKED.Process(target=measure, args=(folder, megabytes, tmp_path / "words.json", answer))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert len(map_rows(folder / "rows")) == (megabytes << 18) // 1025
        peaks.append(int(answer.read_text()) / 1024)
    assert peaks[1] - peaks[0] < 30, peaks  # MiB
