"""The sampler: shares exact in every batch and in the long run, each row once a pass, caps kept, a position of a few numbers."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from api.errors import DataError
from trainer.sampler import MixtureSampler, grid_sides, permuted, row_limits, shared_out

relaxed = settings(deadline=None, derandomize=True, max_examples=60)
Weights = NDArray[np.float64]

rows_of_domains = st.lists(st.integers(1, 60), min_size=1, max_size=8)


def moving(k: int, draws: int, seed: int, zeros: bool = False) -> list[Weights]:
    """Weights that change at every draw, from even to nearly all on one domain; with `zeros`, some have none at times."""
    random = np.random.default_rng(seed)
    weights = [random.dirichlet(np.full(k, random.choice([0.05, 0.5, 5.0]))) + 1e-9 for _ in range(draws)]
    if zeros:
        weights = [np.where(random.random(k) < 0.3, 0.0, w) + np.eye(k)[random.integers(k)] * 1e-3 for w in weights]
    return [w / w.sum() for w in weights]


def counts_of(domains: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    return np.bincount(domains, minlength=k)


@relaxed
@given(rows_of_domains, st.integers(1, 40), st.integers(0, 2**63 - 1), st.booleans())
def test_each_count_is_within_one_of_its_expectation_and_exact_in_the_long_run(rows: list[int], batch: int, seed: int, zeros: bool) -> None:
    k, sampler = len(rows), MixtureSampler(rows, seed)
    owed = np.zeros(k)
    for weights in moving(k, 80, seed % 1000, zeros):
        domains, _ = sampler.draw(weights, batch)
        counts = counts_of(domains, k)
        assert len(domains) == batch
        assert np.all(np.abs(counts - batch * weights) < 1)
        owed += batch * weights - counts
        # However long it goes on: what is owed stays below a bound that knows nothing of the number of draws.
        assert np.abs(owed).max() < (k + 1 if zeros else 1 + math.log(k) + 1)


def test_fixed_weights_get_their_shares_to_a_row_after_any_number_of_draws() -> None:
    weights = np.array([0.6057, 0.1019, 0.0699, 0.0502, 0.0274, 0.1449])
    sampler, drawn = MixtureSampler([1000] * 6, seed=1), np.zeros(6)
    for number in range(1, 2001):
        drawn += counts_of(sampler.draw(weights / weights.sum(), 7)[0], 6)
        assert np.abs(drawn - 7 * number * weights / weights.sum()).max() < 1.5


def test_a_weight_under_one_row_a_batch_gets_its_share_and_no_more() -> None:
    weights = np.array([0.0004, 0.4, 0.5996])
    sampler = MixtureSampler([10, 10, 10], seed=0)
    drawn = [counts_of(sampler.draw(weights, 32)[0], 3)[0] for _ in range(5000)]
    assert set(drawn) == {0, 1}
    assert sum(drawn) == 64  # 0.0004 * 32 * 5000


def test_a_batch_smaller_than_the_number_of_domains_reaches_them_all_in_turn() -> None:
    sampler = MixtureSampler([50] * 7, seed=3)
    for _ in range(5):
        seen = Counter(int(sampler.draw(np.full(7, 1 / 7), 1)[0][0]) for _ in range(7))
        assert seen == dict.fromkeys(range(7), 1)
    assert sum(len(sampler.draw(np.full(7, 1 / 7), 3)[0]) for _ in range(7)) == 21
    assert set(np.round(sampler.epochs() * 50)) == {8}


@relaxed
@given(rows_of_domains, st.integers(1, 100), st.integers(0, 2**63 - 1))
def test_no_row_comes_twice_before_its_domains_pass_ends(rows: list[int], batch: int, seed: int) -> None:
    sampler = MixtureSampler(rows, seed)
    times = [np.zeros(n, dtype=int) for n in rows]
    for weights in moving(len(rows), 20, seed % 1000):
        domains, row_ids = sampler.draw(weights, batch)
        for domain, row in zip(domains, row_ids, strict=True):
            times[domain][row] += 1
        assert all(seen.max() - seen.min() <= 1 for seen in times)
    np.testing.assert_allclose(sampler.epochs(), [seen.mean() for seen in times])


def one_pass(sampler: MixtureSampler, domain: int) -> list[int]:
    only = np.eye(len(sampler.rows))[domain]
    return [int(sampler.draw(only, 1)[1][0]) for _ in range(sampler.rows[domain])]


def test_passes_domains_and_seeds_have_orders_of_their_own() -> None:
    sampler, other = MixtureSampler([40, 40], seed=5), MixtureSampler([40, 40], seed=6)
    orders = [one_pass(sampler, 0), one_pass(sampler, 0), one_pass(sampler, 1), one_pass(other, 0), list(range(40))]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)
    assert one_pass(MixtureSampler([40, 40], seed=5), 0) == orders[0]


def permutation(size: int, key: int) -> NDArray[np.int64]:
    a, b = grid_sides(np.array([size]))
    keys = np.full(size, key, dtype=np.uint64)
    return permuted(np.arange(size), np.full(size, size), (np.repeat(a, size), np.repeat(b, size)), keys)


@relaxed
@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_a_permutation_is_a_bijection_whatever_its_size(size: int, key: int) -> None:
    assert np.array_equal(np.sort(permutation(size, key)), np.arange(size))


def test_the_grid_of_a_size_holds_it_with_next_to_nothing_to_spare() -> None:
    sizes = np.array([1, 2, 3, 97, 540, 4097, 65_537, 10**6 + 3, 10**9 + 7, 2**40 + 1])
    a, b = (side.astype(np.int64) for side in grid_sides(sizes))
    assert np.all(a * b >= sizes)
    assert np.all(a * b <= sizes + np.sqrt(sizes))
    assert np.all(a <= 2 * b + 1)


def test_a_permutation_looks_random() -> None:
    size, keys = 4096, range(40)
    orders = np.array([permutation(size, key) for key in keys])
    where, sigma = np.arange(size), 1 / math.sqrt(size)
    assert max(abs(np.corrcoef(order, where)[0, 1]) for order in orders) < 5 * sigma
    assert max(abs(np.corrcoef(order[1:], order[:-1])[0, 1]) for order in orders) < 5 * sigma
    fixed = (orders == where).sum()  # 1 a permutation is expected
    assert abs(fixed - len(keys)) < 5 * math.sqrt(len(keys))
    halves = (orders[:, : size // 2] < size // 2).mean(axis=1)
    assert np.abs(halves - 0.5).max() < 0.05


def test_every_rank_takes_an_even_share_of_every_domain() -> None:
    domains, _ = MixtureSampler([1000] * 3, seed=0).draw(np.array([0.5, 0.3, 0.2]), 500)
    for size in (2, 3, 8):
        shares = np.array([counts_of(domains[rank::size], 3) for rank in range(size)])
        assert np.all(np.ptp(shares, axis=0) <= 1)


@relaxed
@given(rows_of_domains, st.integers(1, 50), st.integers(0, 30), st.integers(0, 2**63 - 1))
def test_a_resumed_sampler_goes_on_as_if_nothing_had_happened(rows: list[int], batch: int, before: int, seed: int) -> None:
    k, weights = len(rows), moving(len(rows), before + 10, seed % 1000)
    caps = [None] + [200.0] * (k - 1)
    undisturbed = MixtureSampler(rows, seed, caps)
    for w in weights[:before]:
        undisturbed.draw(w, batch)
    kept = json.dumps(undisturbed.state_dict())
    resumed = MixtureSampler(rows, seed, caps)
    resumed.load_state_dict(json.loads(kept))
    for w in weights[before:]:
        for mine, its in zip(resumed.draw(w, batch), undisturbed.draw(w, batch), strict=True):
            np.testing.assert_array_equal(mine, its)
    assert resumed.state_dict() == undisturbed.state_dict()
    assert json.dumps(json.loads(kept)) == kept  # the draws after it changed nothing in what was kept


def test_the_position_is_a_few_numbers_a_domain_however_far_it_is() -> None:
    sampler = MixtureSampler([100, 7, 31], seed=0)
    assert {name: np.size(value) for name, value in sampler.state_dict().items()} == {"cursors": 3, "credits": 3}
    # A resume that replayed a thousand billion draws would not end.
    sampler.load_state_dict({"cursors": [10**13, 10**12, 10**13], "credits": [0.25, -0.5, 0.25]})
    domains, row_ids = sampler.draw(np.array([0.5, 0.1, 0.4]), 20)
    assert counts_of(domains, 3).tolist() == [10, 2, 8]
    assert all(row < sampler.rows[domain] for domain, row in zip(domains, row_ids, strict=True))


@relaxed
@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0.1, 4)), min_size=1, max_size=6), st.integers(1, 40), st.integers(0, 1000))
def test_caps_are_never_passed_and_what_is_over_goes_to_the_others_in_proportion(
    domains: list[tuple[int, float]], batch: int, seed: int
) -> None:
    rows, caps = [n for n, _ in domains], [cap for _, cap in domains]
    limits = row_limits(rows, caps)
    weights = moving(len(rows), 1, seed)[0]
    sampler, drawn = MixtureSampler(rows, seed, caps), np.zeros(len(rows), dtype=int)
    while drawn.sum() + batch <= limits.sum():
        drawn += counts_of(sampler.draw(weights, batch)[0], len(rows))
        assert np.all(drawn <= limits)
        assert np.all(sampler.epochs() <= np.array(caps) + 1e-9)
        shares = shared_out(weights, int(drawn.sum()), limits)
        assert np.abs(drawn - shares).max() < len(rows) + 1
    with pytest.raises(DataError, match="raise a cap or train for fewer steps"):
        sampler.draw(weights, batch)


def test_what_is_over_in_the_very_batch_that_meets_a_cap_goes_to_the_others_in_proportion() -> None:
    sampler = MixtureSampler([100, 10_000, 10_000], seed=0, max_epochs=[1, None, None])
    weights = np.array([0.9, 0.09, 0.01])
    assert counts_of(sampler.draw(weights, 1000)[0], 3).tolist() == [100, 810, 90]
    assert counts_of(sampler.draw(weights, 1000)[0], 3).tolist() == [0, 900, 100]


def test_a_cap_may_be_a_fraction_of_a_pass() -> None:
    assert row_limits([100, 100, 100, 3], [0.29, 2.5, 0.1, 0.3]).tolist() == [29, 250, 10, 0]
    sampler = MixtureSampler([100, 1000], seed=0, max_epochs=[0.29, None])
    for _ in range(10):
        sampler.draw(np.array([0.5, 0.5]), 10)
    assert sampler.epochs().tolist() == [0.29, 0.071]


def test_a_domain_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="without rows"):
        MixtureSampler([3, 0], seed=0)
