"""Recomputes a search's domain weights from its recorded history, in plain floats: the check that anyone can make, without torch or numpy.

From alpha_0 (uniform) on, each alpha_t follows from alpha_{t-1}, the recorded excess losses, eta and smoothing alone (Xie et al. 2023,
algorithm 1). The whole trajectory is recomputed that way, never from a recorded alpha, and compared with what was recorded.
"""

import math
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from api.domains import DomainWeights
from api.errors import DataError
from api.weights import HistoryHeader, WeightCheckpoint, read_segment

TOLERANCE = 1e-9  # float64 over 200,000 steps stays below it: smoothing forgets old rounding errors

Segment = tuple[HistoryHeader, Sequence[WeightCheckpoint]]


class Replay(BaseModel):
    """What the recomputation found."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    stage: str
    steps: int
    """T."""
    eta: float
    smoothing: float
    max_alpha_difference: float
    """max over t and i of |alpha_t[i] recomputed - recorded|."""
    max_average_difference: float
    """The same of the average so far."""
    first_disagreeing_step: int | None
    """Where a difference first exceeds the tolerance; None: nowhere."""
    agrees: bool
    averaged_weights: DomainWeights
    """Mean of the recomputed alpha_1 .. alpha_T."""
    final_weights: DomainWeights
    """Recomputed alpha_T."""


def replay_segments(segments: Iterable[bytes], tolerance: float = TOLERANCE) -> Replay:
    """`replay` of the segments' bytes, in order."""
    return replay((read_segment(data) for data in segments), tolerance)


def replay(segments: Iterable[Segment], tolerance: float = TOLERANCE) -> Replay:
    """Recompute the trajectory over all segments, in order; they are read once, one at a time.

    Raises:
        DataError: no steps at all; a step is missing or stands twice; the segments are of different searches; a vector of the wrong length.
    """
    first: HistoryHeader | None = None
    alpha: list[float] = []
    total = _Sum(0)
    steps, worst_alpha, worst_average, disagrees = 0, 0.0, 0.0, None
    for header, checkpoints in segments:
        if first is None:
            first, alpha, total = header, _uniform(header), _Sum(len(header.domains))
        _check_header(first, header, steps + 1)
        for checkpoint in checkpoints:
            steps += 1
            _check_checkpoint(checkpoint, steps, first)
            alpha = next_weights(alpha, checkpoint.excess_losses, first.eta, first.smoothing)
            total.add(alpha)
            alpha_difference = _difference(alpha, checkpoint.domain_weights)
            average_difference = _difference(total.mean(steps), [value / steps for value in checkpoint.weight_sum])
            worst_alpha, worst_average = max(worst_alpha, alpha_difference), max(worst_average, average_difference)
            if disagrees is None and max(alpha_difference, average_difference) > tolerance:
                disagrees = steps
    if first is None or steps == 0:
        raise DataError("The weight history is empty; there is nothing to replay before the proxy's first train state is saved.")
    return Replay(
        stage=first.stage,
        steps=steps,
        eta=first.eta,
        smoothing=first.smoothing,
        max_alpha_difference=worst_alpha,
        max_average_difference=worst_average,
        first_disagreeing_step=disagrees,
        agrees=disagrees is None,
        averaged_weights=DomainWeights.of(first.domains, total.mean(steps)),
        final_weights=DomainWeights.of(first.domains, alpha),
    )


def next_weights(alpha: Sequence[float], excess_losses: Sequence[float], eta: float, smoothing: float) -> list[float]:
    """alpha_t from alpha_{t-1} and lambda_t: exponentiated gradient, normalised, then smoothed towards uniform."""
    exponents = [eta * excess for excess in excess_losses]
    highest = max(exponent for exponent, weight in zip(exponents, alpha, strict=True) if weight > 0)
    raised = [weight * math.exp(min(exponent - highest, 0.0)) for weight, exponent in zip(alpha, exponents, strict=True)]
    total = math.fsum(raised)
    return [(1 - smoothing) * value / total + smoothing / len(raised) for value in raised]


class _Sum:
    """A vector's running sum, with Neumaier's compensation: exact enough to judge another's sum by."""

    def __init__(self, size: int) -> None:
        self._sums = [0.0] * size
        self._lost = [0.0] * size

    def add(self, values: Sequence[float]) -> None:
        for index, value in enumerate(values):
            before = self._sums[index]
            after = before + value
            self._lost[index] += (before - after) + value if abs(before) >= abs(value) else (value - after) + before
            self._sums[index] = after

    def mean(self, count: int) -> list[float]:
        return [(whole + lost) / count for whole, lost in zip(self._sums, self._lost, strict=True)]


def _uniform(header: HistoryHeader) -> list[float]:
    if not header.domains:
        raise DataError("The weight history names no domains; it is damaged.")
    return [1 / len(header.domains)] * len(header.domains)


def _difference(ours: Sequence[float], recorded: Sequence[float]) -> float:
    """The largest absolute difference; infinite where a recorded value is not a number."""
    return max(abs(mine - theirs) if math.isfinite(theirs) else math.inf for mine, theirs in zip(ours, recorded, strict=True))


def _check_header(first: HistoryHeader, header: HistoryHeader, next_step: int) -> None:
    if header.model_copy(update={"first_step": first.first_step}) != first:
        raise DataError(f"The history's segment at step {header.first_step} belongs to another search than the first one.")
    if header.first_step != next_step:
        raise DataError(f"The history should go on with step {next_step}, but its next segment begins with step {header.first_step}.")


def _check_checkpoint(checkpoint: WeightCheckpoint, step: int, header: HistoryHeader) -> None:
    if checkpoint.step != step:
        raise DataError(f"The history should go on with step {step}, but its next record is of step {checkpoint.step}.")
    if checkpoint.count != step:
        raise DataError(f"The history's record of step {step} sums up {checkpoint.count} weights; from a whole run it would be {step}.")
    domains = len(header.domains)
    vectors = (checkpoint.domain_weights, checkpoint.weight_sum, checkpoint.excess_losses)
    if any(len(vector) != domains for vector in vectors):
        raise DataError(f"The history's record of step {step} has a vector that is not of its {domains} domains.")
    if not all(math.isfinite(excess) for excess in checkpoint.excess_losses):
        raise DataError(f"The history's record of step {step} has an excess loss that is not a number.")
