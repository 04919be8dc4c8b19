"""GPT-NeoX: `train-data-paths` and `train-data-weights`, in the same order."""

from api.exports.export import Export, comment, number
from api.views import Weights


def _render(weights: Weights) -> str:
    paths = "".join(f"    - {name}_text_document\n" for name in weights.averaged_weights.names)
    values = "".join(f"    - {number(weight)}\n" for _, weight in weights.averaged_weights.items())
    return f"{comment(weights, 'tokens')}train-data-paths:\n{paths}train-data-weights:\n{values}"


GPT_NEOX = Export("gpt-neox", "GPT-NeoX train-data-weights", "tokens", "application/yaml", _render)
