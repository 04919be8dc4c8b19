"""What small real searches have in common, on one machine and on a cluster: made-up text, a tiny Llama, a spec of some steps a stage."""

import json
import random
from collections.abc import Iterable
from typing import Any

LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SYLLABLES = ("sol", "fa", "mi", "re", "do", "la", "ti", "ut")


def texts() -> dict[str, list[str]]:
    """Documents by domain, the same every time. Counting is easy, songs repeat, words are drawn from few, letters are noise; sizes vary."""
    chance = random.Random(20261125)
    return {
        "counting": [" ".join(str(number) for number in range(first, first + 40)) for first in range(120)],
        "letters": ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=150)) for _ in range(60)],
        "songs": [f"the {first} sings to the {second} and the {second} sings along " * 3 for first in SYLLABLES for second in SYLLABLES],
        "words": [" ".join(chance.choices(SYLLABLES, k=40)) for _ in range(200)],
    }


def search(name: str, paths: dict[str, str], held_out: float, training: dict[str, Any], compute: dict[str, Any]) -> dict[str, Any]:
    """A spec as a mapping: `paths` of each domain, the fraction that each holds out, what the proxy's training and the compute say."""
    return {
        "name": name,
        "domains": {domain: _domain(path, held_out) for domain, path in paths.items()},
        "tokenizer": {"type": "train", "vocab_size": 300},
        "sequence_length": 32,
        "models": {"proxy": {"config": LLAMA}},
        "training": {"proxy": {"global_batch": 8, "learning_rate": 0.01, **training}},
        "doremi": {"eta": 0.5},
        "compute": {"default": compute},
    }


def lines(documents: Iterable[str]) -> list[str]:
    """JSON lines."""
    return [json.dumps({"text": text}) + "\n" for text in documents]


def _domain(path: str, held_out: float) -> dict[str, Any]:
    return {"source": {"type": "jsonl", "paths": [path]}, "validation": {"type": "held_out", "fraction": held_out}}
