"""The history of the domain weights: what the proxy stage wrote at each step, enough to recompute alpha from it.

A history is a list of segments, gzipped JSON lines: a HistoryHeader, then one WeightCheckpoint a step. A segment is written when
the train state is saved, and named in the train state's pointer, so that state and history always agree.
"""

import gzip
import zlib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from api.errors import DataError
from api.spec import Objective


class HistoryHeader(BaseModel):
    """The first line of each segment: all constants of the update."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = 1
    experiment: str
    stage: str
    domains: list[str]
    """The order of every vector below: canonical."""
    eta: float
    smoothing: float
    objective: Objective
    first_step: int
    """Of this segment, from 1."""


class WeightCheckpoint(BaseModel):
    """The record at step t; vectors are float64, in the header's order, and JSON keeps every bit of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    step: int
    """t, from 1."""
    attempt: int
    tokens_seen: int
    """Unmasked tokens up to and with this step."""
    domain_weights: list[float]
    """alpha_t."""
    weight_sum: list[float]
    """alpha_1 + ... + alpha_t; divided by `count` it is the average so far."""
    count: int
    """Number of summands: t."""
    excess_losses: list[float]
    """lambda_t as used in the update (after the absent-domain policy), nats per token."""
    domain_tokens: list[int]
    """Unmasked tokens of each domain in the batch; 0: absent."""
    domain_losses: list[float | None]
    """Mean unclipped proxy loss of each domain in the batch, nats per token; None: absent."""


def write_segment(header: HistoryHeader, checkpoints: Iterable[WeightCheckpoint]) -> bytes:
    """A segment's bytes: the same for the same records, whenever they are written."""
    lines = [header.model_dump_json(), *(checkpoint.model_dump_json() for checkpoint in checkpoints)]
    return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)


def read_segment(data: bytes) -> tuple[HistoryHeader, list[WeightCheckpoint]]:
    """What `write_segment` wrote.

    Raises:
        DataError: the bytes are cut off, or are no segment.
    """
    try:
        first, *rest = gzip.decompress(data).decode().splitlines()
        return HistoryHeader.model_validate_json(first), [WeightCheckpoint.model_validate_json(line) for line in rest]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"A segment of the weight history cannot be read ({reason}); it is damaged, or it is no segment.") from error
