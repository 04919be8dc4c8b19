"""DoReMi's domain-weight update: state in, new state out, and nothing else.

Source: Xie et al. 2023 (arXiv 2305.10429), algorithm 1, which plays the minimax game of its equation 1:

    min over theta, max over alpha of  sum_i alpha_i * (mean loss of the proxy on domain i - mean loss of the reference on it)

The lines of algorithm 1 are numbered here as in the functions below:

    (a)  lambda_t[i] = sum over domain i's tokens of max(l_proxy - l_ref, 0) / number of domain i's tokens in the batch
    (b)  alpha'_t    = alpha_{t-1} * exp(eta * lambda_t)
    (c)  alpha_t     = (1 - c) * alpha'_t / sum(alpha'_t) + c * u,   u = uniform
    (d)  alpha_bar   = (alpha_1 + ... + alpha_T) / T

Every vector is over the k domains in canonical order, float64, and is never changed in place. No I/O, no clock, no randomness.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from api.errors import NonFiniteLoss

Vector = NDArray[np.float64]
AbsentPolicy = Literal["zero", "carry"]


@dataclass(frozen=True, eq=False)
class DoremiState:
    """All that one step hands to the next."""

    alpha: Vector
    """alpha_t [k]: on the simplex; alpha_0 is uniform."""
    weight_sum: Vector
    """alpha_1 + ... + alpha_t [k]; alpha_0 is not in it."""
    count: int
    """t: the number of summands."""
    last_scores: Vector
    """lambda_t [k], nats per token: what a domain that the next batch lacks may carry on."""


def start(domains: int) -> DoremiState:
    """alpha_0 = u, over `domains` domains; nothing is known of any domain yet, so the scores are 0 (and not log of the vocabulary)."""
    if domains < 1:
        raise ValueError("a mixture needs at least one domain")
    zeros = np.zeros(domains)
    return DoremiState(alpha=np.full(domains, 1.0 / domains), weight_sum=zeros, count=0, last_scores=zeros)


def excess_losses(sums: ArrayLike, counts: ArrayLike, state: DoremiState, absent: AbsentPolicy = "zero") -> Vector:
    """Line (a): lambda_t [k], nats per token, from each domain's sum of token scores and its number of unmasked tokens.

    `sums` and `counts` [k] cover the whole global batch: all ranks and micro-batches added up first, divided here, once. A domain without
    tokens scores 0 (`zero`) or what it scored last (`carry`; 0 before it was ever seen).

    Raises:
        NonFiniteLoss: a present domain's sum is NaN or infinite.
    """
    totals, numbers = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    present = numbers > 0
    instead = state.last_scores if absent == "carry" else np.zeros_like(state.last_scores)
    scores = np.where(present, np.where(present, totals, 0.0) / np.where(present, numbers, 1.0), instead)
    _refuse_non_finite(scores)
    return scores


def step(state: DoremiState, scores: ArrayLike, eta: float, smoothing: float) -> DoremiState:
    """Lines (b) and (c): from alpha_{t-1} and lambda_t (`scores` [k], nats per token) to alpha_t.

    The largest exponent is subtracted before exponentiating, which the normalisation undoes: lambda of 1e4 and more stays finite.
    Each weight is at least smoothing / k.

    Raises:
        NonFiniteLoss: a score is NaN or infinite; the state that was passed in is still good.
    """
    lambdas = np.asarray(scores, dtype=np.float64)
    if lambdas.shape != state.alpha.shape:
        raise ValueError(f"{lambdas.size} scores for {state.alpha.size} domains")
    _refuse_non_finite(lambdas)
    exponents = eta * lambdas
    highest = np.max(exponents[state.alpha > 0])  # a weight of exactly 0 (smoothing 0) stays 0, so it must not set the scale
    raised = state.alpha * np.exp(np.minimum(exponents - highest, 0.0))
    alpha = (1.0 - smoothing) * raised / np.sum(raised) + smoothing / state.alpha.size
    return DoremiState(alpha=alpha, weight_sum=state.weight_sum + alpha, count=state.count + 1, last_scores=lambdas)


def averaged(state: DoremiState) -> Vector:
    """Line (d): alpha_bar [k], the mean of alpha_1 .. alpha_t. Before the first step there is nothing to average: ValueError."""
    if state.count == 0:
        raise ValueError("the average is over alpha_1 .. alpha_T: take a step first")
    return state.weight_sum / state.count


def _refuse_non_finite(scores: Vector) -> None:
    if not np.all(np.isfinite(scores)):
        at = ", ".join(str(index) for index in np.flatnonzero(~np.isfinite(scores)))
        raise NonFiniteLoss(f"The loss of domain number {at} is NaN or infinite; lower the learning rate or look at that domain's data.")
