"""Plain JSON and CSV: for scripts."""

import json

from api.exports.export import Export, number
from api.views import Weights


def _json(weights: Weights) -> str:
    document = {
        "fraction_of": "tokens",
        "weights": {name: float(number(weight)) for name, weight in weights.averaged_weights.items()},
        "provenance": weights.provenance.model_dump(mode="json"),
    }
    return json.dumps(document, indent=2) + "\n"


def _csv(weights: Weights) -> str:
    rows = "".join(f"{name},{number(weight)}\n" for name, weight in weights.averaged_weights.items())
    return f"domain,fraction_of_tokens\n{rows}"


JSON = Export("json", "JSON", "tokens", "application/json", _json)
CSV = Export("csv", "CSV", "tokens", "text/csv", _csv)
