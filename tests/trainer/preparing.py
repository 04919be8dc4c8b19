"""Runs the real prepare stage in this process, over sources of any kind, with a tokenizer that makes token counts plain to see."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from api import keys
from api.bucket import Bucket, FileBucket
from api.results import StageResult
from api.spec import ExperimentSpec, parse_spec
from api.stage_config import StageConfig
from tests.trainer.stage_runner import TINY, StageRunner
from trainer import prepare
from trainer.context import StageContext
from trainer.data import PreparedData, open_prepared
from trainer.report import Reporter
from trainer.world import World

EOS = "<eos>"
LENGTH = 16
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer(path: Path, eos: str = EOS) -> Path:
    """Write a tokenizer.json with a token a byte of ASCII text, and an end-of-text token: a document of n characters has n + 1 tokens."""
    backend = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(BYTES)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens([eos])
    backend.save(str(path))
    return path


def documents_of(rows: NDArray[np.int32]) -> list[str]:
    """The documents that packed rows of `byte_tokenizer` hold, in order; the last may be cut."""
    pieces: list[list[int]] = [[]]
    for token in rows.ravel().tolist():
        if token == len(BYTES):
            pieces.append([])
        else:
            pieces[-1].append(token)
    return ["".join(BYTES[token] for token in piece).replace("Ġ", " ") for piece in pieces if piece]


def write_jsonl(path: Path, texts: Sequence[str], field: str = "text") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    return str(path)


def texts(number: int, seed: int = 0, words: int = 12) -> list[str]:
    """Documents of a few words, no two alike."""
    random = np.random.default_rng(seed)
    return [f"{seed} {i} " + " ".join("".join(random.choice(list("abcdefgh"), 4)) for _ in range(words)) for i in range(number)]


@dataclass
class Preparing:
    """One experiment of which only the prepare stage is run."""

    folder: Path
    bucket: Bucket
    spec: ExperimentSpec

    @property
    def context(self) -> StageContext:
        return self.attempt(1)

    def attempt(self, number: int) -> StageContext:
        key = StageRunner(self.bucket, self.spec).config("prepare", number)
        config, world = StageConfig.model_validate_json(self.bucket.get(key).data), World()
        return StageContext(config, self.bucket, world, Reporter(config, self.bucket, world), self.folder / "cache")

    def run(self, attempt: int = 1) -> StageResult:
        return prepare.run(self.attempt(attempt))

    def open(self, result: StageResult) -> PreparedData:
        return open_prepared(self.bucket, result, self.folder / "cache")

    def files(self) -> dict[str, bytes]:
        """What is under the stage's data prefix, by key."""
        prefix = keys.prepared_prefix("xtest", "prepare")
        return {entry.key.removeprefix(prefix): self.bucket.get(entry.key).data for entry in self.bucket.list(prefix)}


def preparing(folder: Path, domains: Mapping[str, Mapping[str, Any]], bucket: Bucket | None = None, **changes: Any) -> Preparing:
    """`domains`: a source by name, or a whole domain with its `source`; `changes` replace the spec's top-level fields."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {
        "name": "prepared",
        "domains": {name: domain if "source" in domain else {"source": domain} for name, domain in domains.items()},
        "tokenizer": {"type": "file", "path": str(byte_tokenizer(folder / "tokenizer.json")), "eos_token": EOS},
        "sequence_length": LENGTH,
        "models": {"proxy": {"config": TINY}},
        "training": {"proxy": {"steps": 10, "global_batch": 4, "micro_batch": 4}},
        **changes,
    }
    return Preparing(folder, bucket or FileBucket(folder / "bucket"), parse_spec(json.dumps(raw)))


def jsonl(*paths: str, **fields: Any) -> dict[str, Any]:
    return {"type": "jsonl", "paths": list(paths), **fields}
