"""Megatron-LM: `--data-path "w1 prefix1 w2 prefix2"`, or the JSON file of `--per-split-data-args-path`."""

import json

from api.exports.export import Export, number
from api.views import Weights


def _data_path(weights: Weights) -> str:
    pairs = " ".join(f"{number(weight)} {name}_text_document" for name, weight in weights.averaged_weights.items())
    return f"--data-path {pairs}\n"


def _blend(weights: Weights) -> str:
    """The trainer wants all three splits named; which text validates and tests is not ours to choose."""
    pairs = [part for name, weight in weights.averaged_weights.items() for part in (number(weight), f"{name}_text_document")]
    return json.dumps({"fraction_of": "tokens", "train": pairs, "valid": None, "test": None}, indent=2) + "\n"


DATA_PATH = Export("megatron", "Megatron-LM --data-path", "tokens", "text/plain", _data_path)
BLEND = Export("megatron-blend", "Megatron-LM --per-split-data-args-path", "tokens", "application/json", _blend)
