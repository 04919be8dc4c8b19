"""NeMo: `model.data.data_prefix`, weights and prefixes in turn."""

from api.exports.export import Export, comment, number
from api.views import Weights


def _render(weights: Weights) -> str:
    lines = "".join(f"      - {number(weight)}\n      - {name}_text_document\n" for name, weight in weights.averaged_weights.items())
    return f"{comment(weights, 'tokens')}model:\n  data:\n    data_prefix:\n{lines}"


NEMO = Export("nemo", "NeMo data_prefix", "tokens", "application/yaml", _render)
