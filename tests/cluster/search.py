"""A search that a cluster runs in minutes: three domains of made-up text, a tiny Llama, thirty steps a stage, two pods a stage."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

DOMAINS = ("counting", "letters", "words")
STEPS = 30


def write_texts(folder: Path) -> None:
    """The domains' files, as they lie under /data in training pods; in two files each, with the same bytes every time."""
    for name, documents in _texts().items():
        lines = [json.dumps({"text": text}) + "\n" for text in documents]
        for part in range(2):
            (folder / f"{name}.{part}.jsonl").write_text("".join(lines[part::2]))


def search_spec(name: str, **changes: Any) -> str:
    """The spec as YAML; `changes` replace its top-level fields."""
    llama = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    training = {"steps": STEPS, "global_batch": 8, "micro_batch": 4, "learning_rate": 0.01, "save_every": 10, "evaluate_every": 15}
    mapping = {
        "name": name,
        "domains": {domain: _domain(domain) for domain in DOMAINS},
        "tokenizer": {"type": "train", "vocab_size": 300},
        "sequence_length": 32,
        "models": {"proxy": {"config": llama}},
        "training": {"proxy": training},
        "doremi": {"eta": 0.5},
        "comparison": {"mixtures": ["averaged", "uniform"]},
        "compute": {"default": {"replicas": {"min": 2, "max": 2}, "cpus": 0.3, "memory_mb": 1536}},
    }
    return yaml.safe_dump(mapping | changes, sort_keys=False)


def _domain(name: str) -> dict[str, Any]:
    return {"source": {"type": "jsonl", "paths": [f"/data/{name}.*.jsonl"]}, "validation": {"type": "held_out", "fraction": 0.2}}


def _texts() -> dict[str, list[str]]:
    """Counting is easy, letters are noise, words are drawn from few; sizes are uneven."""
    chance = random.Random(20261125)
    few = ["sol", "fa", "mi", "re", "do", "la", "ti", "ut"]
    return {
        "counting": [" ".join(str(number) for number in range(first, first + 40)) for first in range(120)],
        "letters": ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=150)) for _ in range(60)],
        "words": [" ".join(chance.choices(few, k=40)) for _ in range(200)],
    }
