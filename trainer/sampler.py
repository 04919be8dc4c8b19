"""Which rows a batch holds: a cursor over a keyed permutation for each (domain, pass), so that resuming costs nothing.

The order of a domain's rows in one pass is a bijection of 0..n-1 computed from (seed, domain, pass), never stored. The state is one
cursor and one credit a domain. A draw is the global batch: the same on every rank, whatever their number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.errors import DataError

Ints = NDArray[np.int64]
_ROUNDS = 4  # of the Feistel network; four make it a strong pseudo-random permutation (Luby and Rackoff 1988)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_ROUND_KEYS = np.arange(_ROUNDS, dtype=np.uint64) * _MIX
_NO_LIMIT = 1 << 50  # rows; sums over domains stay inside int64


class MixtureSampler:
    """Draws global batches of (domain, row) pairs.

    Args:
        rows: number of rows of each domain, in canonical order.
        seed: of all permutations.
        max_epochs: the most passes over each domain, None for no cap. A capped domain's weight goes to the others in proportion.
    """

    def __init__(self, rows: Sequence[int], seed: int, max_epochs: Sequence[float | None] | None = None) -> None:
        self.rows = np.asarray(rows, dtype=np.int64)
        if (self.rows <= 0).any():
            raise DataError("A domain without rows cannot be sampled from.")
        caps = max_epochs or [None] * len(self.rows)
        limits = [_NO_LIMIT if cap is None else max(1, int(cap * n)) for cap, n in zip(caps, self.rows, strict=True)]
        self._limits = np.array(limits, dtype=np.int64)
        self._seed = seed
        self._cursors = np.zeros(len(self.rows), dtype=np.int64)  # rows drawn of each domain since the beginning
        self._credits = np.zeros(len(self.rows))  # what each domain is owed: expectation less rows drawn
        self._draws = 0

    def draw(self, weights: NDArray[np.float64], batch: int) -> tuple[Ints, Ints]:
        """The next global batch: (domain_ids, row_ids), each [batch], in an order that mixes the domains.

        Each domain's count is its expectation batch * w rounded up or down, and what was rounded is made up for in later draws.
        Raises DataError when the caps leave no row to draw.
        """
        counts = self._counts(np.asarray(weights, dtype=np.float64), batch)
        domains = np.repeat(np.arange(len(counts)), counts)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        positions = self._cursors[domains] + (np.arange(batch) - starts)
        passes, offsets = np.divmod(positions, self.rows[domains])
        row_ids = permuted(offsets, self.rows[domains], _key(self._seed, domains, passes))
        self._cursors += counts
        order = np.argsort(_hash(np.arange(batch, dtype=np.uint64) ^ _key_of_draw(self._seed, self._draws)), kind="stable")
        self._draws += 1
        return domains[order], row_ids[order]

    def epochs(self) -> NDArray[np.float64]:
        """Passes over each domain so far, [k]."""
        return np.asarray(self._cursors / self.rows)

    def state_dict(self) -> dict[str, Any]:
        """The position, as JSON-able numbers; the rest follows from the constructor's arguments."""
        return {"cursors": self._cursors.tolist(), "credits": self._credits.tolist(), "draws": self._draws}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._cursors = np.asarray(state["cursors"], dtype=np.int64)
        self._credits = np.asarray(state["credits"], dtype=np.float64)
        self._draws = int(state["draws"])

    def _counts(self, weights: NDArray[np.float64], batch: int) -> Ints:
        """Rows of each domain in the next batch, [k]; settles the credits."""
        room = self._limits - self._cursors
        weights = np.where(room > 0, weights, 0.0)
        if weights.sum() <= 0 or room[weights > 0].sum() < batch:
            raise DataError("Every domain has been passed over as often as its max_epochs allows; raise a cap or train for fewer steps.")
        expected = batch * weights / weights.sum()
        counts = np.minimum(np.floor(expected), room).astype(np.int64)
        owed = np.where(room > 0, self._credits, 0.0) + expected - counts  # a domain that ran dry is owed nothing
        while left := batch - int(counts.sum()):
            # One row each to the domains that are owed most, none beyond its expectation rounded up unless caps leave no other.
            open_to = (counts < room) & (weights > 0)
            within = open_to & (counts < np.ceil(expected))
            candidates = within if within.any() else open_to
            chosen = np.argsort(np.where(candidates, -owed, np.inf), kind="stable")[: min(left, int(candidates.sum()))]
            counts[chosen] += 1
            owed[chosen] -= 1
        self._credits = owed
        return np.asarray(counts)


def permuted(offsets: Ints, sizes: Ints, keys: NDArray[np.uint64]) -> Ints:
    """A keyed bijection of 0..size-1, elementwise: a Feistel network over the next even power of two, walked until it is inside.

    offsets, sizes, keys: [n]; each offset is below its size.
    """
    half = np.maximum(1, (np.ceil(np.log2(np.maximum(sizes, 2))).astype(np.int64) + 1) // 2).astype(np.uint64)
    values = _feistel(offsets.astype(np.uint64), half, keys)
    outside = np.flatnonzero(values >= sizes.astype(np.uint64))
    while len(outside):
        values[outside] = _feistel(values[outside], half[outside], keys[outside])
        outside = outside[values[outside] >= sizes[outside].astype(np.uint64)]
    return values.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for number in range(_ROUNDS):
        left, right = right, left ^ (_hash(right ^ (keys + _ROUND_KEYS[number])) & mask)
    return (left << half) | right


def _hash(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser (Steele et al. 2014), elementwise."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _key(seed: int, domains: Ints, passes: Ints) -> NDArray[np.uint64]:
    base = _hash(np.full(1, seed, dtype=np.uint64) + _MIX)
    return _hash(_hash(base ^ domains.astype(np.uint64)) + passes.astype(np.uint64) * _MIX)


def _key_of_draw(seed: int, draw: int) -> NDArray[np.uint64]:
    return _hash(_hash(np.full(1, seed, dtype=np.uint64) ^ _MIX) + np.full(1, draw, dtype=np.uint64) * _MIX)
