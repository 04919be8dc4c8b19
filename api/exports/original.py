"""The original DoReMi code: a JSON file with `train_domain_weights` and `eval_domain_weights`, domains alphabetical."""

import json

from api.domains import DomainWeights
from api.exports.export import Export, number
from api.views import Weights


def _render(weights: Weights) -> str:
    train = {name: float(number(weight)) for name, weight in weights.averaged_weights.items()}
    evaluation = {name: float(number(weight)) for name, weight in DomainWeights.uniform(train).items()}
    return json.dumps({"fraction_of": "tokens", "train_domain_weights": train, "eval_domain_weights": evaluation}, indent=2) + "\n"


ORIGINAL = Export("doremi", "the original DoReMi code", "tokens", "application/json", _render)
