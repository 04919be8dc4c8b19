"""nanotron: `dataset_weights` of its Nanosets, and the `doremi` block of its DoReMi example."""

from api.exports.export import Export, comment, number
from api.views import Weights


def _nanoset(weights: Weights) -> str:
    folders = "".join(f"          - ./{name}\n" for name in weights.averaged_weights.names)
    values = "".join(f"          - {number(weight)}\n" for _, weight in weights.averaged_weights.items())
    head = "data_stages:\n  - name: training\n    start_training_step: 1\n    data:\n      dataset:\n"
    return f"{comment(weights, 'tokens')}{head}        dataset_folder:\n{folders}        dataset_weights:\n{values}"


def _doremi(weights: Weights) -> str:
    names = ", ".join(weights.averaged_weights.names)
    values = ", ".join(number(weight) for _, weight in weights.averaged_weights.items())
    return f'{comment(weights, "tokens")}doremi:\n  domain_names: "{names}"\n  domain_weights: "{values}"\n'


NANOSET = Export("nanotron", "nanotron dataset_weights", "tokens", "application/yaml", _nanoset)
DOREMI = Export("nanotron-doremi", "nanotron's DoReMi example", "tokens", "application/yaml", _doremi)
