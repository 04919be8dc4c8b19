"""What small real searches have in common, on one machine and on a cluster: made-up text, a tiny Llama, a spec of some steps a stage."""

from typing import Any

from examples.cluster import texts as example
from examples.cluster.texts import SYLLABLES

LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def texts() -> dict[str, list[str]]:
    """Documents by domain, the same every time: those of the cluster's example, and songs, which repeat."""
    songs = [f"the {first} sings to the {second} and the {second} sings along " * 3 for first in SYLLABLES for second in SYLLABLES]
    return dict(sorted({**example.texts(), "songs": songs}.items()))


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


def _domain(path: str, held_out: float) -> dict[str, Any]:
    return {"source": {"type": "jsonl", "paths": [path]}, "validation": {"type": "held_out", "fraction": held_out}}
