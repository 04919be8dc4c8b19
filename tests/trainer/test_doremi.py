"""The update rule's properties, as algorithm.md states them: one test each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from api.errors import NonFiniteLoss
from trainer import doremi

Vector = NDArray[np.float64]
relaxed = settings(deadline=None, derandomize=True)

domains = st.integers(1, 24)
smoothings = st.sampled_from([1e-3, 1e-2, 0.5, 1.0, 0.0])
etas = st.floats(1e-3, 3)


@st.composite
def states(draw: st.DrawFn, k: int | None = None, smoothing: float = 1e-3) -> doremi.DoremiState:
    """A state that some steps led to."""
    size = draw(domains) if k is None else k
    state = doremi.start(size)
    for row in draw(st.lists(scores(size), max_size=4)):
        state = doremi.step(state, row, 1.0, smoothing)
    return state


def scores(k: int, highest: float = 5.0) -> st.SearchStrategy[Vector]:
    return st.lists(st.floats(0, highest), min_size=k, max_size=k).map(np.array)


@relaxed
@given(st.data(), states(), etas, smoothings)
def test_weights_sum_to_one_and_none_is_below_c_over_k(
    data: st.DataObject, state: doremi.DoremiState, eta: float, smoothing: float
) -> None:
    k = state.alpha.size
    after = doremi.step(state, data.draw(scores(k, highest=1e4)), eta, smoothing)
    assert after.alpha.sum() == pytest.approx(1, abs=1e-12)
    assert np.all(after.alpha >= smoothing / k)


@relaxed
@given(st.data(), states(), etas, smoothings, st.floats(-1e3, 1e3))
def test_a_constant_added_to_every_score_changes_nothing(
    data: st.DataObject, state: doremi.DoremiState, eta: float, smoothing: float, constant: float
) -> None:
    lambdas = data.draw(scores(state.alpha.size))
    plain, shifted = (doremi.step(state, row, eta, smoothing).alpha for row in (lambdas, lambdas + constant))
    np.testing.assert_allclose(shifted, plain, atol=1e-11)


@relaxed
@given(domains, etas, smoothings, st.floats(0, 1e4))
def test_constant_scores_map_uniform_to_uniform(k: int, eta: float, smoothing: float, constant: float) -> None:
    after = doremi.step(doremi.start(k), np.full(k, constant), eta, smoothing)
    np.testing.assert_allclose(after.alpha, 1 / k, rtol=1e-14)


@relaxed
@given(st.data(), states(), etas, st.floats(0.01, 5))
def test_raising_one_score_raises_that_weight_and_lowers_every_other(
    data: st.DataObject, state: doremi.DoremiState, eta: float, by: float
) -> None:
    k = state.alpha.size
    lambdas = data.draw(scores(k))
    chosen = data.draw(st.integers(0, k - 1))
    raised = lambdas.copy()
    raised[chosen] += by
    before, after = (doremi.step(state, row, eta, 1e-3).alpha for row in (lambdas, raised))
    others = np.arange(k) != chosen
    assert np.all(after[others] <= before[others])
    if k > 1 and before[chosen] < 0.99:
        assert after[chosen] > before[chosen]
        assert after[others].sum() < before[others].sum()


@relaxed
@given(st.data(), states(), etas, smoothings)
def test_reordering_the_domains_permutes_the_result(data: st.DataObject, state: doremi.DoremiState, eta: float, smoothing: float) -> None:
    k = state.alpha.size
    lambdas = data.draw(scores(k))
    order = np.array(data.draw(st.permutations(range(k))))
    other = doremi.DoremiState(state.alpha[order], state.weight_sum[order], state.count, state.last_scores[order])
    plain, permuted = doremi.step(state, lambdas, eta, smoothing), doremi.step(other, lambdas[order], eta, smoothing)
    np.testing.assert_allclose(permuted.alpha, plain.alpha[order], rtol=1e-13)
    np.testing.assert_allclose(permuted.weight_sum, plain.weight_sum[order], rtol=1e-13)


@relaxed
@given(st.data(), domains, etas)
def test_without_smoothing_it_is_the_exponentiated_sum(data: st.DataObject, k: int, eta: float) -> None:
    rows = data.draw(st.lists(scores(k, highest=10.0), min_size=1, max_size=6))
    state = doremi.start(k)
    for row in rows:
        state = doremi.step(state, row, eta, 0.0)
    exponents = eta * np.sum(rows, axis=0)
    expected = np.exp(exponents - exponents.max())
    np.testing.assert_allclose(state.alpha, expected / expected.sum(), rtol=1e-9)


@relaxed
@given(st.data(), domains, st.floats(0.1, 10))
def test_scores_up_to_ten_thousand_stay_finite_also_when_stored_as_float32(data: st.DataObject, k: int, eta: float) -> None:
    state = doremi.start(k)
    for row in data.draw(st.lists(scores(k, highest=1e4), min_size=1, max_size=5)):
        state = doremi.step(state, row.astype(np.float32), eta, 1e-3)
    assert state.alpha.dtype == np.float64
    assert np.all(np.isfinite(state.alpha.astype(np.float32)))
    assert state.alpha.sum() == pytest.approx(1, abs=1e-12)


def test_the_worked_example_to_eight_digits() -> None:
    state = doremi.start(3)
    lambdas = doremi.excess_losses([0.6, 0.2, 0.0], [2, 2, 2], state)
    np.testing.assert_allclose(lambdas, [0.3, 0.1, 0.0], rtol=1e-15)
    assert np.round(doremi.step(state, lambdas, 1.0, 1e-3).alpha, 8).tolist() == [0.39063647, 0.31988652, 0.28947701]


@relaxed
@given(st.data(), domains)
def test_the_average_is_over_alpha_1_to_t_and_not_alpha_0(data: st.DataObject, k: int) -> None:
    state, alphas = doremi.start(k), []
    for row in data.draw(st.lists(scores(k), min_size=1, max_size=8)):
        state = doremi.step(state, row, 1.0, 1e-3)
        alphas.append(state.alpha)
    assert state.count == len(alphas)
    np.testing.assert_allclose(doremi.averaged(state), np.mean(alphas, axis=0), rtol=1e-13)
    assert doremi.averaged(state).sum() == pytest.approx(1, abs=1e-12)


def test_before_the_first_step_there_is_no_average() -> None:
    with pytest.raises(ValueError, match="take a step first"):
        doremi.averaged(doremi.start(3))


def test_a_step_goes_on_from_where_the_last_one_ended() -> None:
    once = doremi.step(doremi.start(3), [1.0, 0.0, 0.0], 1.0, 1e-3)
    twice = doremi.step(once, [1.0, 0.0, 0.0], 1.0, 1e-3)
    assert twice.alpha[0] > once.alpha[0] > 1 / 3  # a restart from uniform would end where the first step did


def test_a_step_changes_nothing_in_place() -> None:
    state = doremi.step(doremi.start(3), [1.0, 2.0, 0.0], 1.0, 1e-3)
    before = [vector.copy() for vector in (state.alpha, state.weight_sum, state.last_scores)]
    doremi.step(state, [3.0, 0.0, 1.0], 1.0, 1e-3)
    for vector, copy in zip((state.alpha, state.weight_sum, state.last_scores), before, strict=True):
        np.testing.assert_array_equal(vector, copy)


def test_a_domain_absent_from_the_first_batch_is_not_thrown_to_the_top() -> None:
    for policy in ("zero", "carry"):
        state = doremi.start(3)
        lambdas = doremi.excess_losses([0.6, 0.2, 0.0], [2, 2, 0], state, policy)  # type: ignore[arg-type]  # both are of the literal
        np.testing.assert_allclose(lambdas, [0.3, 0.1, 0.0])
        assert doremi.step(state, lambdas, 1.0, 1e-3).alpha[2] < 1 / 3


def test_an_absent_domain_scores_zero_or_carries_its_last_known_score() -> None:
    state = doremi.step(doremi.start(2), doremi.excess_losses([1.0, 4.0], [2, 2], doremi.start(2)), 1.0, 1e-3)
    assert doremi.excess_losses([1.0, 9.0], [4, 0], state, "zero").tolist() == [0.25, 0.0]
    carried = doremi.excess_losses([1.0, 9.0], [4, 0], state, "carry")
    assert carried.tolist() == [0.25, 2.0]
    again = doremi.excess_losses([1.0, 0.0], [4, 0], doremi.step(state, carried, 1.0, 1e-3), "carry")
    assert again.tolist() == [0.25, 2.0]  # over a second absence too


def test_a_sum_over_no_tokens_does_not_matter_whatever_it_is() -> None:
    assert doremi.excess_losses([1.0, np.nan, np.inf], [2, 0, 0], doremi.start(3)).tolist() == [0.5, 0.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_refused_and_the_state_kept(bad: float) -> None:
    state = doremi.start(3)
    with pytest.raises(NonFiniteLoss, match="domain number 1 is NaN or infinite"):
        doremi.excess_losses([1.0, bad, 1.0], [2, 2, 2], state)
    with pytest.raises(NonFiniteLoss):
        doremi.step(state, [1.0, bad, 1.0], 1.0, 1e-3)
    np.testing.assert_array_equal(state.alpha, doremi.start(3).alpha)


def test_a_weight_of_zero_stays_zero_and_the_rest_stays_finite() -> None:
    zeroed = doremi.DoremiState(np.array([0.0, 0.5, 0.5]), np.zeros(3), 0, np.zeros(3))
    np.testing.assert_allclose(doremi.step(zeroed, [1e4, 1.0, 1.0], 1.0, 0.0).alpha, [0.0, 0.5, 0.5])


def test_the_wrong_number_of_scores_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 scores for 3 domains"):
        doremi.step(doremi.start(3), [0.0, 1.0], 1.0, 1e-3)
    with pytest.raises(ValueError, match="at least one domain"):
        doremi.start(0)
