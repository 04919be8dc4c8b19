"""Which rows a batch holds: a cursor over a keyed permutation for each (domain, pass), so that resuming costs nothing.

The order of a domain's rows in one pass is a bijection of 0..n-1 computed from (seed, domain, pass), never stored. The state is one
cursor and one credit a domain. A draw is the global batch: the same on every rank, whatever their number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.epochs import row_limit
from api.errors import DataError

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Sides = tuple[Words, Words]
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
        self._limits = row_limits(rows, max_epochs or [None] * len(rows))
        self._sides = grid_sides(self.rows)
        self._keys = _hash(_hash(np.full(1, seed, dtype=np.uint64) + _MIX) ^ np.arange(len(rows), dtype=np.uint64))
        self._cursors = np.zeros(len(rows), dtype=np.int64)  # rows drawn of each domain since the beginning
        self._credits = np.zeros(len(rows))  # what each domain is owed: expectation less rows drawn

    def draw(self, weights: NDArray[np.float64], batch: int) -> tuple[Ints, Ints]:
        """The next global batch: (domain_ids, row_ids), each [batch].

        A domain's rows stand together, so that of any number of ranks each has an even share of every domain by taking every size-th row.
        Each domain's count is its expectation batch * w rounded up or down, and what was rounded is made up for in later draws.
        Raises DataError when the caps leave no row to draw.
        """
        counts = self._counts(np.asarray(weights, dtype=np.float64), batch)
        domains = np.repeat(np.arange(len(counts)), counts)
        before = np.cumsum(counts) - counts
        positions = np.arange(batch) + (self._cursors - before)[domains]
        passes, offsets = np.divmod(positions, self.rows[domains])
        keys = _hash(self._keys[domains] + passes.astype(np.uint64) * _MIX)
        row_ids = permuted(offsets, self.rows[domains], (self._sides[0][domains], self._sides[1][domains]), keys)
        self._cursors += counts
        return domains, row_ids

    def epochs(self) -> NDArray[np.float64]:
        """Passes over each domain so far, [k]."""
        return np.asarray(self._cursors / self.rows)

    def state_dict(self) -> dict[str, Any]:
        """The position, as JSON-able numbers; the rest follows from the constructor's arguments."""
        return {"cursors": self._cursors.tolist(), "credits": self._credits.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._cursors = np.array(state["cursors"], dtype=np.int64)
        self._credits = np.array(state["credits"], dtype=np.float64)

    def _counts(self, weights: NDArray[np.float64], batch: int) -> Ints:
        """Rows of each domain in the next batch, [k]; settles the credits."""
        expected = shared_out(weights, batch, self._limits - self._cursors)
        counts = np.floor(expected).astype(np.int64)
        self._credits += expected - counts
        left = batch - int(counts.sum())
        # One row each to the domains that are owed most, of those whose expectation can be rounded up: there are enough of them.
        most_owed = np.argsort(np.where(expected > counts, -self._credits, np.inf), kind="stable")[:left]
        counts[most_owed] += 1
        self._credits[most_owed] -= 1
        return counts


def row_limits(rows: Sequence[int], max_epochs: Sequence[float | None]) -> Ints:
    """The most rows that may be drawn of each domain, [k]."""
    limits = [row_limit(n, cap) for cap, n in zip(max_epochs, rows, strict=True)]
    return np.array([_NO_LIMIT if limit is None else limit for limit in limits], dtype=np.int64)


def shared_out(weights: NDArray[np.float64], total: int, room: Ints) -> NDArray[np.float64]:
    """`total` rows in proportion to the weights, no domain over its room: what is over goes to the others in proportion, [k].

    Raises DataError when the domains with weight have too little room.
    """
    weights = np.where(room > 0, weights, 0.0)
    if room[weights > 0].sum() < total:
        raise DataError("Every domain has been passed over as often as its max_epochs allows; raise a cap or train for fewer steps.")
    expected = total * weights / weights.sum()
    full = expected > room
    while full.any():
        rest = np.where(full, 0.0, weights)
        rest_sum = float(rest.sum()) or 1.0  # all full: nothing is left to share out
        expected = np.where(full, room, (total - int(room[full].sum())) * rest / rest_sum)
        if not (over := expected > room).any():
            break
        full |= over
    return np.asarray(expected)


def grid_sides(sizes: Ints) -> Sides:
    """The sides (a, b) of a near-square grid of a * b >= size cells for each size, with as few cells to spare as may be, [k] each."""
    root = np.ceil(np.sqrt(sizes)).astype(np.int64)[:, None]
    a = root + np.minimum(np.arange(64), root // 4)
    b = -(-sizes[:, None] // a)
    best = np.argmin(a * b, axis=1)[:, None]
    first, second = (np.take_along_axis(side, best, axis=1)[:, 0].astype(np.uint64) for side in (a, b))
    return first, second


def permuted(offsets: Ints, sizes: Ints, sides: Sides, keys: Words) -> Ints:
    """A keyed bijection of 0..size-1, elementwise: a Feistel network over a grid of at least that many cells, walked until it is inside.

    offsets, sizes, keys, both sides: [n]; each offset is below its size. The network adds modulo the sides (Black and Rogaway 2002),
    so the grid may be of any shape, hence small, and one walk nearly always does.
    """
    limits = sizes.astype(np.uint64)
    values = _feistel(offsets.astype(np.uint64), sides, keys)
    outside = np.flatnonzero(values >= limits)
    while len(outside):
        values[outside] = _feistel(values[outside], (sides[0][outside], sides[1][outside]), keys[outside])
        outside = outside[values[outside] >= limits[outside]]
    return values.astype(np.int64)


def _feistel(values: Words, sides: Sides, keys: Words) -> Words:
    (left, right), (a, b) = np.divmod(values, sides[1]), sides
    for number in range(_ROUNDS):  # the halves change places, and with them their moduli
        left, right, a, b = right, (left + _mixed(right, keys + _ROUND_KEYS[number])) % a, b, a
    return left * sides[1] + right


def _mixed(values: Words, keys: Words) -> Words:
    """A round's function: 32 bits in which every bit of value and key has a part."""
    values = (values ^ keys) * np.uint64(0xBF58476D1CE4E5B9)
    return ((values ^ (values >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)) >> np.uint64(32)


def _hash(values: Words) -> Words:
    """splitmix64's finaliser (Steele et al. 2014), elementwise."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
