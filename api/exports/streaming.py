"""MosaicML Streaming and LLM Foundry: `streams.<name>.proportion`, of samples, which are sequences of one length."""

from api.exports.export import Export, comment, number, word
from api.views import Weights


def _render(weights: Weights) -> str:
    lines = "".join(
        f"    {word(name)}:\n      local: ./{name}\n      proportion: {number(weight)}\n"
        for name, weight in weights.averaged_weights.items()
    )
    return f"{comment(weights, 'tokens')}dataset:\n  streams:\n{lines}"


STREAMING = Export("streaming", "MosaicML Streaming, LLM Foundry", "tokens", "application/yaml", _render)
