"""What the search does: the parameters of Group DRO and of the comparison."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from api.domains import DomainName
from api.spec.base import Part

Objective = Literal["excess", "hardest", "easiest"]
MixtureName = Literal["averaged", "reference", "uniform", "hardest", "easiest"]
Share = Annotated[float, Field(ge=0)]
ReferenceWeights = Annotated[
    Annotated[Literal["tokens", "uniform"], Tag("name")] | Annotated[dict[DomainName, Share], Tag("mapping")],
    Discriminator(lambda given: "mapping" if isinstance(given, dict) else "name"),  # so that a mistake is told of one of them
]


class Doremi(Part):
    """Xie et al. 2023, algorithm 1."""

    reference_weights: ReferenceWeights = "tokens"
    """alpha_ref, what the reference model samples from: token shares, uniform, or weights by domain (renormalised)."""
    eta: float = Field(default=1.0, gt=0)
    """Step size of the domain-weight update. The paper's 1 is for 200,000 steps; a short run sets a smaller one."""
    smoothing: float = Field(default=1e-3, ge=0, le=1)
    """c: how much of the uniform weights each update mixes in."""
    objective: Objective = "excess"
    """`excess`: clipped excess loss (DoReMi). Ablations: `hardest`, the proxy's loss alone; `easiest`, the negated reference loss."""
    normalisation: Literal["domain_mean", "token_weighted"] = "domain_mean"
    """`domain_mean`: the paper's sum_i alpha_i * mean NLL_i. `token_weighted`: sum_i alpha_i S_i / sum_i alpha_i n_i."""
    absent_domain: Literal["zero", "carry"] = "zero"
    """Score of a domain that the batch lacks: 0, or its last known one."""
    reference_losses: Literal["live", "precomputed"] = "live"
    """Run the reference beside the proxy, or read its per-token losses, computed once over the whole data, from the bucket."""
    rounds: int = Field(default=1, ge=1, le=20)
    """Rounds of iterated DoReMi at most."""
    tolerance: float = Field(default=1e-3, ge=0)
    """Stop iterating when max_i |averaged - reference| is below this."""


class Comparison(Part):
    """Which mixtures the large model is trained on, and how they are judged."""

    mixtures: list[MixtureName] = Field(default=["averaged", "reference", "uniform"])
    """`hardest` and `easiest` add a proxy with that objective. An empty list: stop at the weights."""
    sequences: int | None = Field(default=None, ge=1)
    """Held-out sequences a domain, at most, in the final evaluation; None: all."""
