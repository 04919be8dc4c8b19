"""Domains and weights over them: a point on the simplex whose coordinates have names."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Self

from pydantic import ConfigDict, Field, RootModel, model_validator

DOMAIN_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
DomainName = Annotated[str, Field(pattern=DOMAIN_PATTERN)]
TOLERANCE = 1e-6  # how far from 1 a sum may be and still count as a rounding error


class DomainWeights(RootModel[dict[DomainName, Annotated[float, Field(ge=0, le=1 + TOLERANCE, allow_inf_nan=False)]]]):
    """Weights over named domains: non-negative, summing to 1 within 1e-6, kept in canonical (sorted) order.

    Which role a weight set plays (sampling_weights, domain_weights, averaged_weights) is in the name of the field that holds it.
    """

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _is_on_the_simplex(self) -> Self:
        if not self.root:
            raise ValueError("weights need at least one domain")
        total = math.fsum(self.root.values())
        if abs(total - 1) > TOLERANCE:
            raise ValueError(f"weights sum to {total:.7g}, not to 1; use DomainWeights.normalised for a table of shares")
        object.__setattr__(self, "root", dict(sorted(self.root.items())))
        return self

    @classmethod
    def normalised(cls, shares: Mapping[str, float]) -> Self:
        """Weights proportional to `shares` (counts of tokens, or a published table that sums to 1.0001)."""
        if any(not math.isfinite(share) or share < 0 for share in shares.values()):
            raise ValueError("shares must be finite and not negative")
        largest = max(shares.values(), default=0.0)
        if largest <= 0:
            raise ValueError("shares must not all be zero")
        scaled = {name: share / largest for name, share in shares.items()}  # so that no sum overflows
        total = math.fsum(scaled.values())
        return cls({name: share / total for name, share in scaled.items()})

    @classmethod
    def uniform(cls, names: Iterable[str]) -> Self:
        return cls.normalised(dict.fromkeys(names, 1.0))

    @classmethod
    def of(cls, names: Iterable[str], values: Iterable[float]) -> Self:
        """From names and a vector in the same order, renormalised to absorb float32 rounding."""
        return cls.normalised(dict(zip(names, values, strict=True)))

    @property
    def names(self) -> list[str]:
        return list(self.root)

    def vector(self, names: Iterable[str]) -> list[float]:
        """The weights in the order of `names`."""
        return [self.root[name] for name in names]

    def max_difference(self, other: "DomainWeights") -> float:
        """max_i |a_i - b_i|: the convergence measure of iterated DoReMi."""
        return max(abs(self.root.get(name, 0.0) - other.root.get(name, 0.0)) for name in {*self.root, *other.root})

    def __getitem__(self, name: str) -> float:
        return self.root[name]

    def __len__(self) -> int:
        return len(self.root)

    def items(self) -> Iterator[tuple[str, float]]:
        return iter(self.root.items())
