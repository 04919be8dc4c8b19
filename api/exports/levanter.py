"""Levanter: `data.train_weights`, of sequences."""

from api.exports.export import Export, comment, number, word
from api.views import Weights


def _render(weights: Weights) -> str:
    lines = "".join(f"    {word(name)}: {number(weight)}\n" for name, weight in weights.averaged_weights.items())
    return f"{comment(weights, 'tokens')}data:\n  train_weights:\n{lines}"


LEVANTER = Export("levanter", "Levanter data.train_weights", "tokens", "application/yaml", _render)
