"""Excess loss and objective: clipped per token, averaged per domain, indifferent to masks, splits and order; exact gradients."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from api.errors import SpecError
from trainer import doremi
from trainer.objective import domain_sums, mean_loss, token_scores, weighted_loss

relaxed = settings(deadline=None, derandomize=True, max_examples=60)


class Batch(NamedTuple):
    """Losses of a proxy and a reference, with per-token domains."""

    proxy: Tensor
    reference: Tensor
    mask: Tensor
    ids: Tensor
    domains: int

    def rows(self, index: Tensor | slice) -> "Batch":
        return Batch(self.proxy[index], self.reference[index], self.mask[index], self.ids[index], self.domains)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    rows, width, domains = draw(st.integers(1, 8)), draw(st.integers(1, 6)), draw(st.integers(1, 5))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    proxy, reference = (torch.rand(rows, width, generator=random) * 8 for _ in range(2))
    mask = torch.rand(rows, width, generator=random) < draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    return Batch(proxy, reference, mask, torch.randint(domains, (rows, width), generator=random), domains)


def lambdas(batch: Batch, *parts: Batch) -> np.ndarray:
    """Line (a) over the batch, or over its parts added up as micro-batches and ranks are."""
    added = [domain_sums(token_scores("excess", p.proxy, p.reference), p.mask, p.ids, p.domains) for p in parts or (batch,)]
    sums, counts = sum(s for s, _ in added), sum(c for _, c in added)
    return doremi.excess_losses(sums, counts, doremi.start(batch.domains))


def by_hand(batch: Batch) -> np.ndarray:
    answer = np.zeros(batch.domains)
    for domain in range(batch.domains):
        chosen = batch.mask & (batch.ids == domain)
        differences = [max(float(p) - float(r), 0.0) for p, r in zip(batch.proxy[chosen], batch.reference[chosen], strict=True)]
        answer[domain] = sum(differences) / len(differences) if differences else 0.0
    return answer


@relaxed
@given(batches())
def test_excess_losses_are_the_definition_and_never_negative(batch: Batch) -> None:
    found = lambdas(batch)
    np.testing.assert_allclose(found, by_hand(batch), rtol=1e-5, atol=1e-6)
    assert np.all(found >= 0)


@relaxed
@given(batches(), st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30]), st.booleans())
def test_what_stands_at_masked_positions_does_not_matter(batch: Batch, poison: float, in_both: bool) -> None:
    bad = torch.full_like(batch.proxy, poison)
    proxy = torch.where(batch.mask, batch.proxy, bad)
    reference = torch.where(batch.mask, batch.reference, bad) if in_both else batch.reference
    ids = torch.where(batch.mask, batch.ids, -1)
    np.testing.assert_array_equal(lambdas(Batch(proxy, reference, batch.mask, ids, batch.domains)), lambdas(batch))


@relaxed
@given(batches(), st.integers(2, 4))
def test_duplicating_a_domains_sequences_changes_nothing(batch: Batch, times: int) -> None:
    whole = batch._replace(ids=batch.ids[:, :1].expand_as(batch.ids))  # one domain a sequence
    doubled = torch.cat([torch.arange(len(whole.proxy)), *[torch.nonzero(whole.ids[:, 0] == 0).flatten()] * (times - 1)])
    np.testing.assert_allclose(lambdas(whole.rows(doubled)), lambdas(whole), rtol=1e-12)


@relaxed
@given(batches(), st.data())
def test_any_split_and_order_gives_the_same_alpha(batch: Batch, data: st.DataObject) -> None:
    order = torch.tensor(data.draw(st.permutations(range(len(batch.proxy)))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4)))
    parts = [batch.rows(order[begin:end]) for begin, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    state = doremi.start(batch.domains)
    whole, split = (doremi.step(state, scores, 1.0, 1e-3).alpha for scores in (lambdas(batch), lambdas(batch, *parts)))
    np.testing.assert_allclose(split, whole, atol=1e-12)


@relaxed
@given(batches())
def test_a_proxy_equal_to_the_reference_scores_zero(batch: Batch) -> None:
    assert np.all(lambdas(batch._replace(proxy=batch.reference)) == 0)


def test_it_clips_each_token_and_not_the_mean() -> None:
    batch = Batch(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 5.0]]), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2).long(), 1)
    assert lambdas(batch).tolist() == [1.0]  # the mean difference, -1.5, clipped would be 0


def test_a_sequence_that_holds_two_domains_is_counted_by_token() -> None:
    values, mask = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool)
    sums, counts = domain_sums(values, mask, torch.tensor([[0, 1, 1]]), 3)
    assert (sums.tolist(), counts.tolist()) == ([1.0, 6.0, 0.0], [1, 2, 0])
    assert (sums.dtype, counts.dtype) == (torch.float64, torch.int64)
    by_row, _ = domain_sums(values, mask, torch.tensor([1]), 3)
    assert by_row.tolist() == [0.0, 7.0, 0.0]


def test_the_worked_example_to_eight_digits() -> None:
    proxy = torch.tensor([[2.5, 2.1], [1.6, 2.2], [1.7, 1.9]], dtype=torch.float64)
    batch = Batch(proxy, torch.full_like(proxy, 2.0), torch.ones(3, 2, dtype=torch.bool), torch.arange(3), 3)
    found = lambdas(batch)
    np.testing.assert_allclose(found, [0.3, 0.1, 0.0], atol=1e-15)
    assert np.round(doremi.step(doremi.start(3), found, 1.0, 1e-3).alpha, 8).tolist() == [0.39063647, 0.31988652, 0.28947701]


def test_the_ablations_score_what_the_paper_says() -> None:
    proxy, reference = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.5]])
    assert token_scores("hardest", proxy, None).tolist() == [[1.0, 3.0]]
    assert token_scores("hardest", proxy, reference).tolist() == [[1.0, 3.0]]
    assert token_scores("easiest", proxy, reference).tolist() == [[-2.0, -2.5]]
    assert token_scores("excess", proxy, reference).tolist() == [[0.0, 0.5]]


@pytest.mark.parametrize("objective", ["excess", "easiest"])
def test_a_missing_reference_is_an_error_and_never_hardest(objective: str) -> None:
    with pytest.raises(SpecError, match="train a reference first"):
        token_scores(objective, torch.zeros(1, 1), None)  # type: ignore[arg-type]  # both are of the literal


def test_a_loss_that_is_no_number_is_not_clipped_away() -> None:
    proxy = torch.tensor([[float("nan"), 1.0]])
    assert torch.isnan(token_scores("excess", proxy, torch.ones(1, 2))[0, 0])


def gradient(batch: Batch, alpha: np.ndarray, normalisation: str) -> tuple[float, Tensor]:
    """The loss's value and dL / d(token NLL)."""
    losses = batch.proxy.clone().requires_grad_()
    _, counts = domain_sums(losses, batch.mask, batch.ids, batch.domains)
    loss = weighted_loss(losses, batch.mask, batch.ids, alpha, counts, normalisation)  # type: ignore[arg-type]  # of the literal
    loss.backward()
    assert losses.grad is not None
    return float(loss.detach()), losses.grad


def weights_of(batch: Batch, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(batch.domains))


@relaxed
@given(batches(), st.integers(0, 99))
def test_the_gradient_to_a_tokens_loss_is_alpha_over_n(batch: Batch, seed: int) -> None:
    alpha = weights_of(batch, seed)
    loss, found = gradient(batch, alpha, "domain_mean")
    counts = np.array([int((batch.mask & (batch.ids == domain)).sum()) for domain in range(batch.domains)])
    expected = torch.where(batch.mask, torch.tensor(alpha / np.maximum(counts, 1))[batch.ids], 0.0)
    torch.testing.assert_close(found, expected.float())
    assert loss == pytest.approx(float((expected * batch.proxy).sum()), rel=1e-5, abs=1e-6)  # the unclipped loss


@relaxed
@given(batches(), st.integers(0, 99))
def test_token_weighted_is_the_ratio_of_sums(batch: Batch, seed: int) -> None:
    alpha = weights_of(batch, seed)
    loss, found = gradient(batch, alpha, "token_weighted")
    weight = torch.where(batch.mask, torch.tensor(alpha)[batch.ids], 0.0)
    expected = weight / weight.sum().clamp_min(1e-300)
    torch.testing.assert_close(found, expected.float(), atol=1e-6, rtol=1e-5)
    assert loss == pytest.approx(float((expected * batch.proxy).sum()), rel=1e-5, abs=1e-6)


@relaxed
@given(batches(), st.sampled_from(["domain_mean", "token_weighted"]), st.sampled_from([float("nan"), float("inf")]))
def test_no_gradient_comes_from_masked_positions_whatever_they_hold(batch: Batch, normalisation: str, poison: float) -> None:
    alpha = weights_of(batch, 0)
    poisoned = batch._replace(
        proxy=torch.where(batch.mask, batch.proxy, torch.full_like(batch.proxy, poison)), ids=torch.where(batch.mask, batch.ids, -7)
    )
    (loss, found), (clean_loss, clean) = gradient(poisoned, alpha, normalisation), gradient(batch, alpha, normalisation)
    assert loss == clean_loss
    torch.testing.assert_close(found, clean, rtol=0, atol=0)


@relaxed
@given(batches(), st.integers(1, 4), st.sampled_from(["domain_mean", "token_weighted"]))
def test_the_parts_of_micro_batches_add_up_to_the_whole(batch: Batch, size: int, normalisation: str) -> None:
    alpha = weights_of(batch, 1)
    _, counts = domain_sums(batch.proxy, batch.mask, batch.ids, batch.domains)
    whole, _ = gradient(batch, alpha, normalisation)
    parts = [batch.rows(slice(begin, begin + size)) for begin in range(0, len(batch.proxy), size)]
    added = sum(float(weighted_loss(p.proxy, p.mask, p.ids, alpha, counts, normalisation)) for p in parts)  # type: ignore[arg-type]  # as above
    assert added == pytest.approx(whole, rel=1e-5, abs=1e-6)


def test_no_gradient_flows_into_alpha_the_scores_or_the_reference() -> None:
    proxy, reference = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    mask, ids = torch.ones(2, 3, dtype=torch.bool), torch.tensor([0, 1])
    for objective in ("excess", "hardest", "easiest"):
        assert not token_scores(objective, proxy, reference).requires_grad  # type: ignore[arg-type]  # of the literal
    sums, counts = domain_sums(proxy, mask, ids, 2)
    assert not sums.requires_grad
    state = doremi.step(doremi.start(2), doremi.excess_losses(sums, counts, doremi.start(2)), 1.0, 1e-3)
    weighted_loss(proxy, mask, ids, state.alpha, counts, "domain_mean").backward()
    assert reference.grad is None
    torch.testing.assert_close(proxy.grad, torch.tensor(state.alpha / 3, dtype=torch.float32)[:, None].expand(2, 3))


def test_the_ordinary_loss_is_the_mean_over_unmasked_tokens() -> None:
    losses = torch.tensor([[1.0, float("nan")], [3.0, 5.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [True, True]])
    loss = mean_loss(losses, mask, 3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(3.0)
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad, torch.tensor([[1 / 3, 0.0], [1 / 3, 1 / 3]]))


def test_an_empty_batch_scores_nothing_and_moves_nothing() -> None:
    empty = Batch(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.bool), torch.zeros(0, 4).long(), 2)
    assert lambdas(empty).tolist() == [0.0, 0.0]
    assert gradient(empty, np.array([0.5, 0.5]), "token_weighted")[0] == 0.0
