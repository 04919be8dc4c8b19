"""LLaMA-Factory: `dataset` and `interleave_probs`, which draws documents."""

from api.exports.export import Export, comment, document_weights, number
from api.views import Weights


def _render(weights: Weights) -> str:
    by_document = document_weights(weights)
    names = ",".join(by_document.names)
    values = ",".join(number(weight) for _, weight in by_document.items())
    return f'{comment(weights, "documents")}dataset: "{names}"\nmix_strategy: interleave_over\ninterleave_probs: "{values}"\n'


LLAMA_FACTORY = Export("llama-factory", "LLaMA-Factory interleave_probs", "documents", "application/yaml", _render)
