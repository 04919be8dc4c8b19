"""OLMo-core: `source_list.sources[].target_ratio` of a SourceMixtureDatasetConfig, of tokens."""

from api.exports.export import Export, comment, number, word
from api.views import Weights


def _render(weights: Weights) -> str:
    lines = "".join(
        f"    - source_name: {word(name)}\n      target_ratio: {number(weight)}\n      paths:\n        - ./{name}/*.npy\n"
        for name, weight in weights.averaged_weights.items()
    )
    return f"{comment(weights, 'tokens')}source_list:\n  sources:\n{lines}"


OLMO = Export("olmo-core", "OLMo-core source mixture", "tokens", "application/yaml", _render)
