"""Hugging Face datasets: `interleave_datasets(probabilities=)`, which draws documents."""

from api.exports.export import Export, comment, document_weights, number
from api.views import Weights


def _render(weights: Weights) -> str:
    by_document = document_weights(weights)
    names = "".join(f'    "{name}",\n' for name in by_document.names)
    probabilities = "".join(f"    {number(weight)},\n" for _, weight in by_document.items())
    return f"{comment(weights, 'documents')}names = [\n{names}]\nprobabilities = [\n{probabilities}]\n"


INTERLEAVE = Export("interleave-datasets", "datasets.interleave_datasets", "documents", "text/x-python", _render)
