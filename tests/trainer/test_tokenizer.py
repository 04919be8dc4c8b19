"""The tokenizer: trained or loaded, it gives text back unchanged and ends each document, and nothing else, with its end token."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
from tokenizers import Tokenizer

from api.bucket import Bucket, FileBucket
from api.errors import DataError
from api.reach import Reach
from tests.trainer.preparing import BYTES, EOS, byte_tokenizer, jsonl, preparing, texts, write_jsonl
from trainer import tokenizer
from trainer.tokenizer import Encoder, load_encoder, make_encoder
from trainer.world import Interrupted, stop_flag


def made_from(folder: Path, chosen: dict[str, Any], bucket: Bucket | None = None, **domains: list[str]) -> Encoder:
    sources = {name: jsonl(write_jsonl(folder / f"{name}.jsonl", content)) for name, content in (domains or {"books": texts(50)}).items()}
    made = preparing(folder, sources, bucket or FileBucket(folder / "bucket"), tokenizer=chosen)
    return make_encoder(made.spec, made.bucket, Reach())


def decoded(encoder: Encoder, text: str) -> str:
    (ids,) = encoder.encode([text])
    assert ids.dtype == np.int32
    assert ids[-1] == encoder.eos_id
    assert encoder.eos_id not in ids[:-1]
    return str(Tokenizer.from_str(encoder.to_json()).decode(ids[:-1].tolist(), skip_special_tokens=False))


def test_a_trained_tokenizer_has_the_size_asked_for_and_gives_any_text_back(tmp_path: Path) -> None:
    encoder = made_from(tmp_path, {"type": "train", "vocab_size": 300})
    assert encoder.vocab_size == 300
    for text in (*texts(5), "", " leading", "Füße \u2603 \U0001f600\n\ttabs\x00", "a document that spells <|endoftext|> out"):
        assert decoded(encoder, text) == text
    again = load_encoder(encoder.to_json(), encoder.eos_token, "kept")
    assert [ids.tolist() for ids in again.encode(texts(9, 1))] == [ids.tolist() for ids in encoder.encode(texts(9, 1))]
    assert (again.vocab_size, again.eos_id) == (encoder.vocab_size, encoder.eos_id)


def test_every_domain_is_seen_alike_in_training_whatever_its_size(tmp_path: Path) -> None:
    large, small = ["tremendous "] * 5000, ["infinitesimal "] * 60
    encoder = made_from(tmp_path, {"type": "train", "vocab_size": 290, "sample_bytes": 1600}, large=large, small=small)
    assert [len(ids) for ids in encoder.encode(["tremendous", "infinitesimal"])] == [2, 2]


def test_a_tokenizer_by_path_and_by_bucket_key(tmp_path: Path) -> None:
    path, bucket = byte_tokenizer(tmp_path / "mine.json", "</s>"), FileBucket(tmp_path / "bucket")
    bucket.put("tokenizers/mine.json", path.read_bytes())
    for where in (str(path), "bucket:tokenizers/mine.json"):
        encoder = made_from(tmp_path, {"type": "file", "path": where, "eos_token": "</s>"}, bucket)
        assert (encoder.vocab_size, encoder.eos_id) == (257, 256)
        assert decoded(encoder, "spelt </s> out") == "spelt </s> out"


def test_padding_and_truncation_that_a_tokenizer_json_asks_for_are_not_done(tmp_path: Path) -> None:
    backend = Tokenizer.from_file(str(byte_tokenizer(tmp_path / "tokenizer.json")))
    backend.enable_padding(length=50, pad_token=EOS, pad_id=256)
    backend.enable_truncation(5)
    encoder = load_encoder(backend.to_str(), EOS, "padded")
    assert [len(ids) for ids in encoder.encode(["abc", "a" * 80])] == [4, 81]


def test_a_vocabulary_with_gaps_counts_up_to_its_last_id(tmp_path: Path) -> None:
    raw = json.loads(byte_tokenizer(tmp_path / "tokenizer.json").read_text())
    raw["model"]["vocab"] = {token: 3 * number for number, token in enumerate(BYTES)}
    raw["added_tokens"][0]["id"] = 999
    raw["model"]["vocab"][EOS] = 999
    encoder = load_encoder(json.dumps(raw), EOS, "gaps")
    assert encoder.vocab_size == 1000
    assert max(max(ids) for ids in encoder.encode(["text"])) == 999


BAD = {
    "no end token": ({"eos_token": "<missing>"}, None, "no token `<missing>` to end documents with; name one that it has as eos_token"),
    "no tokenizer": ({}, '{"version": 1}', r"is not a usable tokenizer.json \(.*\); give one of the tokenizers library"),
    "no JSON": ({}, "{", r"is not a usable tokenizer.json \(.*\); give one of the tokenizers library"),
    "no file": ({"path": "/nowhere/tokenizer.json"}, None, r"cannot be read \(.*No such file.*\); correct tokenizer.path"),
    "no object": ({"path": "bucket:nowhere.json"}, None, r"cannot be read \(There is no object nowhere.json\); correct tokenizer.path"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_tokenizer_that_cannot_be_used_is_one_sentence(tmp_path: Path, case: str) -> None:
    fields, content, expected = BAD[case]
    path = byte_tokenizer(tmp_path / "mine.json")
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=expected) as caught:
        made_from(tmp_path, {"type": "file", "path": str(path), "eos_token": EOS, **fields})
    assert re.fullmatch(r"[^\n]*[^.]\.", caught.value.message)
    assert not caught.value.retryable


def test_a_hub_tokenizer_comes_from_the_cache_and_without_it_and_a_network_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for module in [module for name, module in sys.modules.items() if name.startswith("huggingface_hub.") and module is not None]:
        if hasattr(module, "HF_HUB_CACHE") and module is not huggingface_hub.constants:
            monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "hub"))
    chosen = {"type": "hub", "name": "somebody/tokenizer", "revision": "a" * 40}
    with pytest.raises(
        DataError, match=r"somebody/tokenizer could not be fetched \(.*\); check its name and the network, or give"
    ) as caught:
        made_from(tmp_path, chosen)
    assert re.fullmatch(r"[^\n]*[^.]\.", caught.value.message)

    snapshot = tmp_path / "hub" / "models--somebody--tokenizer" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    byte_tokenizer(snapshot / "tokenizer.json", "</s>")
    encoder = made_from(tmp_path, chosen)
    assert (encoder.eos_token, encoder.vocab_size) == ("</s>", 257)

    byte_tokenizer(snapshot / "tokenizer.json", "<odd>")
    with pytest.raises(DataError, match=r"somebody/tokenizer has none of .*; give its tokenizer.json and eos_token instead"):
        made_from(tmp_path, chosen)


def test_training_stops_when_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = tokenizer.read_documents

    def asked_after_ten(*arguments: Any, **options: Any) -> Any:
        for number, document in enumerate(documents(*arguments, **options)):
            monkeypatch.setattr(stop_flag, "raised", number >= 10)
            yield document

    monkeypatch.setattr(tokenizer, "read_documents", asked_after_ten)
    with pytest.raises(Interrupted):
        made_from(tmp_path, {"type": "train", "vocab_size": 300}, books=texts(2000))
