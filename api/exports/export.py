"""What an export is, and what all of them say of themselves: fractions of what, and where the weights come from."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from api.domains import DomainWeights
from api.views import Weights

FractionOf = Literal["tokens", "documents"]
_PLAIN = re.compile("[a-z][a-z0-9_-]+")
_TAKEN = frozenset({"null", "true", "false", "yes", "no", "on", "off"})


@dataclass(frozen=True)
class Export:
    """A downstream trainer's format."""

    name: str
    title: str
    fraction_of: FractionOf
    media_type: str
    render: Callable[[Weights], str]


def document_weights(weights: Weights) -> DomainWeights:
    """Fractions of documents: w_doc proportional to w_tok / mean tokens per document."""
    means = weights.mean_document_tokens
    return DomainWeights.normalised({name: weight / means[name] for name, weight in weights.averaged_weights.items()})


def number(weight: float) -> str:
    """Twelve decimals, never an exponent (YAML 1.1 reads 1e-5 as text): numpy, which draws for `interleave_datasets`, takes
    probabilities only if they sum to 1 within 1.5e-8, however many they are."""
    return f"{weight:.12f}"


def word(name: str) -> str:
    """A domain's name in YAML, in quotes where a reader could take it for a number, a truth value or nothing."""
    return name if _PLAIN.fullmatch(name) and name not in _TAKEN else f'"{name}"'


def comment(weights: Weights, fraction_of: FractionOf) -> str:
    """Two comment lines for formats that allow them."""
    source = weights.provenance
    return (
        f"# Fractions of {fraction_of}. DoReMi averaged weights of experiment {source.experiment} ({source.experiment_id}),\n"
        f"# stage {source.stage}, {source.steps} steps, eta {source.eta:g}, spec sha256 {source.spec_sha256[:12]}.\n"
    )
