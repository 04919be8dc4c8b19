"""Chunked cross entropy: the same losses and gradients as in one piece, float32, deaf to masked positions, bounded in memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from trainer import losses
from trainer.losses import token_losses

torch.set_num_threads(1)
relaxed = settings(deadline=None, derandomize=True, max_examples=40)


def inputs(rows: int = 3, width: int = 7, dimension: int = 8, vocabulary: int = 19, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, dimension, generator=random).requires_grad_()
    weight = torch.randn(vocabulary, dimension, generator=random).requires_grad_()
    bias = torch.randn(vocabulary, generator=random).requires_grad_()
    return hidden, weight, bias, torch.randint(vocabulary, (rows, width), generator=random)


def gradients(found: Tensor, *leaves: Tensor) -> list[Tensor]:
    """Of a differently weighted sum of the token losses."""
    weighting = torch.linspace(0.1, 2.0, found.numel()).view_as(found)
    return list(torch.autograd.grad((found * weighting).sum(), leaves))


@relaxed
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 40), st.booleans(), st.booleans())
def test_chunks_kept_or_recomputed_give_the_losses_and_gradients_of_one_piece(
    rows: int, width: int, chunk: int, recompute: bool, biased: bool
) -> None:
    hidden, weight, bias, targets = inputs(rows, width, seed=chunk)
    head_bias = bias if biased else None
    leaves = [hidden, weight, *([bias] if biased else [])]
    logits = functional.linear(hidden, weight, head_bias)
    expected = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(rows, width)
    found = token_losses(hidden, weight, targets, chunk, head_bias, kept_bytes=0 if recompute else None)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(gradients(found, *leaves), gradients(expected, *leaves), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kept_bytes", [None, 0])
def test_a_masked_position_has_no_loss_and_gives_no_gradient_whatever_it_holds(poison: float, kept_bytes: int | None) -> None:
    hidden, weight, _, targets = inputs()
    targets[1, 2:] = -1
    targets[2, 0] = -100
    poisoned = torch.where((targets < 0).unsqueeze(-1), poison, hidden.detach()).requires_grad_()
    found = token_losses(poisoned, weight, targets, 4, kept_bytes=kept_bytes)
    assert torch.all(found[targets < 0] == 0)
    clean = token_losses(hidden, weight, targets, 4)
    torch.testing.assert_close(found, clean)
    for ours, theirs in zip(gradients(found, poisoned, weight), gradients(clean, hidden, weight), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.all(gradients(token_losses(poisoned, weight, targets), poisoned)[0][targets < 0] == 0)


def test_all_masked_and_none_at_all() -> None:
    hidden, weight, _, targets = inputs()
    assert torch.all(token_losses(hidden, weight, torch.full_like(targets, -1)) == 0)
    assert token_losses(hidden[:0], weight, targets[:0]).shape == (0, 7)


@pytest.mark.parametrize("kept_bytes", [None, 0])
def test_under_bfloat16_autocast_the_losses_are_float32(kept_bytes: int | None) -> None:
    hidden, weight, _, targets = inputs(dimension=64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = token_losses(hidden / 8, weight, targets, 4, kept_bytes=kept_bytes)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, token_losses(hidden / 8, weight, targets), atol=0.03, rtol=0.03)
    assert all(gradient.dtype == torch.float32 for gradient in gradients(found, hidden, weight))


def test_without_gradients_nothing_is_recomputed_and_nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "checkpoint", None)
    hidden, weight, _, targets = inputs()
    with torch.no_grad():
        assert not token_losses(hidden, weight, targets, 4, kept_bytes=0).requires_grad


def saved_bytes(kept_bytes: int | None) -> int:
    """What the graph holds for the backward pass."""
    hidden, weight, _, targets = inputs(4, 64, vocabulary=1000)
    held = 0

    def hold(tensor: Tensor) -> Tensor:
        nonlocal held
        held += tensor.numel() * tensor.element_size() if tensor is not weight else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        token_losses(hidden, weight, targets, 32, kept_bytes=kept_bytes)
    return held


def test_recomputed_chunks_hold_no_logits() -> None:
    logits = 4 * 4 * 64 * 1000
    assert saved_bytes(None) >= logits
    assert saved_bytes(0) < logits / 10


@pytest.mark.parametrize(
    ("tokens", "vocabulary", "expected"), [(1024, 2048, 1024), (4096, 4096, 512), (1000, 32_000, 250), (8, 256_000, 8), (0, 10, 1)]
)
def test_chunks_are_of_one_size_and_not_too_small(tokens: int, vocabulary: int, expected: int) -> None:
    assert losses._chunk_tokens(tokens, 4 * vocabulary, losses.CHUNK_BYTES["cpu"]) == expected
