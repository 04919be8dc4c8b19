"""A search that is small enough to be run for real in a test: four domains of made-up text, a tiny Llama, sixty steps a stage."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

STEPS = 60
SAVE_EVERY = 5


def write_search(folder: Path, **changes: Any) -> Path:
    """The domains' files and a spec that names them by relative paths; `changes` replace its top-level fields. Returns the spec's path."""
    for name, documents in _texts().items():
        lines = (json.dumps({"text": text}) + "\n" for text in documents)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(search_mapping() | changes, sort_keys=False))
    return path


def search_mapping() -> dict[str, Any]:
    llama = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    training = {"steps": STEPS, "global_batch": 8, "micro_batch": 8, "learning_rate": 0.01, "save_every": SAVE_EVERY, "evaluate_every": 10}
    return {
        "name": "search",
        "domains": {name: _domain(name) for name in ("counting", "letters", "songs", "words")},
        "tokenizer": {"type": "train", "vocab_size": 300},
        "sequence_length": 32,
        "models": {"proxy": {"config": llama}},
        "training": {"proxy": training},
        "doremi": {"eta": 0.5},
        "compute": {"default": {"cpus": 1, "retries": 100}},
    }


def _texts() -> dict[str, list[str]]:
    """Counting is easy, songs repeat, words are drawn from few, letters are noise; sizes are uneven."""
    chance = random.Random(20261125)
    few = ["sol", "fa", "mi", "re", "do", "la", "ti", "ut"]
    return {
        "counting": [" ".join(str(number) for number in range(first, first + 40)) for first in range(120)],
        "letters": ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=150)) for _ in range(60)],
        "songs": [f"the {first} sings to the {second} and the {second} sings along " * 3 for first in few for second in few],
        "words": [" ".join(chance.choices(few, k=40)) for _ in range(200)],
    }


def _domain(name: str) -> dict[str, Any]:
    return {"source": {"type": "jsonl", "paths": [f"{name}.jsonl"]}, "validation": {"type": "held_out", "fraction": 0.1}}
