"""Runs the real prepare stage in this process, over sources of any kind, with a tokenizer that makes token counts plain to see."""

import gzip
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
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
from trainer.crew import tell_others
from trainer.data import PreparedData, open_prepared
from trainer.failures import explain
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

    def run(self, attempt: int = 1, ranks: int = 1) -> StageResult:
        """Rank 0's result. Several ranks are threads here, each with a place of its own in one world."""
        first = self.attempt(attempt)
        contexts = [replace(first, world=World(rank=rank, size=ranks, store=first.world.store)) for rank in range(ranks)]
        with ThreadPoolExecutor(ranks, thread_name_prefix="rank") as pool:
            result, *_ = list(pool.map(_rank, contexts))
        return result

    def open(self, result: StageResult) -> PreparedData:
        return open_prepared(self.bucket, result, self.folder / "cache")

    def files(self) -> dict[str, bytes]:
        """What is under the stage's data prefix, by key."""
        prefix = keys.prepared_prefix("xtest", "prepare")
        return {entry.key.removeprefix(prefix): self.bucket.get(entry.key).data for entry in self.bucket.list(prefix)}


def _rank(context: StageContext) -> StageResult:
    """One rank of several, as the trainer's entry runs it."""
    try:
        return prepare.run(context)
    except Exception as error:
        tell_others(context.world, explain(error))
        raise


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


def write_mixed(folder: Path) -> dict[str, dict[str, Any]]:
    """Domains of every kind of source of text, each but one of several files, uneven in size; one validates on text of its own."""
    for number, size in enumerate((120, 10, 60, 1, 30)):
        write_jsonl(folder / "books" / f"{number}.jsonl", texts(size, number))
    for number, size in enumerate((50, 90)):
        pq.write_table(pa.table({"content": texts(size, 10 + number)}), folder / f"code-{number}.parquet")
    for number, size in enumerate((20, 40, 15)):
        packed = gzip.compress(Path(write_jsonl(folder / "plain.jsonl", texts(size, 20 + number))).read_bytes())
        (folder / f"news-{number}.jsonl.gz").write_bytes(packed)
        write_jsonl(folder / "held out" / f"held-{number}.jsonl", texts(10, 30 + number))
    Dataset.from_dict({"text": texts(70, 40)}).save_to_disk(folder / "web", num_shards=2)
    return {
        "books": jsonl(str(folder / "books" / "*.jsonl")),
        "code": {"type": "parquet", "paths": [str(folder / "*.parquet")], "text_field": "content"},
        "news": {
            "source": jsonl(str(folder / "news-*.gz")),
            "validation": {"type": "source", "source": jsonl(str(folder / "held out" / "*"))},
        },
        "web": {"source": {"type": "datasets", "path": str(folder / "web")}, "validation": {"type": "held_out", "fraction": 0.2}},
    }


def starts(output: str) -> list[str]:
    """The names of the pieces that any process began with, once for each time."""
    return sorted(
        line.partition("tokenising ")[2].rpartition(" for ")[0].rpartition("/")[2] for line in output.splitlines() if " tokenising " in line
    )
