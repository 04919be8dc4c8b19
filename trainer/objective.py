"""What a stage minimises and what a domain scores: from per-token losses to per-domain sums and to one scalar.

All functions see one micro-batch of one rank. Sums and counts are additive: the caller adds them over micro-batches and ranks, and only
then divides (`trainer.doremi.excess_losses`). A masked position may hold anything, NaN and inf included: it is replaced before any
arithmetic, so that neither a value nor a gradient can come from it.
"""

from typing import Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from api.errors import SpecError
from api.spec import Objective

Normalisation = Literal["domain_mean", "token_weighted"]


def domain_sums(values: Tensor, mask: Tensor, domain_ids: Tensor, domains: int) -> tuple[Tensor, Tensor]:
    """Each domain's sum of `values` over its unmasked tokens, and their number.

    Args:
        values: [b, s], any float type; no gradient is kept.
        mask: [b, s] bool, True where a token counts.
        domain_ids: [b, s], or [b] where each sequence is of one domain; what stands at masked positions is not looked at.
        domains: k.

    Returns:
        sums [k] float64 and counts [k] int64, on the device of `values`.
    """
    ids = _flat_ids(domain_ids, mask)
    kept = torch.where(mask, values.detach(), values.new_zeros(())).double().reshape(-1)
    sums = torch.zeros(domains, dtype=torch.float64, device=values.device).index_add_(0, ids, kept)
    counts = torch.zeros(domains, dtype=torch.int64, device=values.device).index_add_(0, ids, mask.long().reshape(-1))
    return sums, counts


def token_scores(objective: Objective, token_losses: Tensor, reference_losses: Tensor | None) -> Tensor:
    """What each token adds to its domain's score [b, s]: no gradient, and clipped per token, before any mean.

    `excess`: max(l_proxy - l_ref, 0). `hardest`: l_proxy. `easiest`: -l_ref (the paper's table 7).

    Raises:
        SpecError: the objective needs the reference's losses and there are none; `hardest` is never used in their place.
    """
    if objective == "hardest":
        return token_losses.detach()
    if reference_losses is None:
        raise SpecError(f"The objective `{objective}` needs the losses of a reference model, and there are none; train a reference first.")
    if objective == "easiest":
        return -reference_losses.detach()
    return torch.clamp_min(token_losses.detach() - reference_losses.detach(), 0.0)  # NaN stays NaN


def weighted_loss(
    token_losses: Tensor, mask: Tensor, domain_ids: Tensor, alpha: ArrayLike, global_counts: ArrayLike, normalisation: Normalisation
) -> Tensor:
    """What the proxy minimises (algorithm 1's update of theta), this micro-batch's part of it: a scalar, float32.

    `domain_mean`: sum_i alpha_i * S_i / n_i, so that dL / d(token NLL) = alpha_i / n_i. `token_weighted`: sum_i alpha_i S_i over
    sum_i alpha_i n_i. S_i sums the unclipped losses. The parts of all micro-batches and ranks add up to the whole: a caller whose
    gradients are averaged over ranks multiplies by their number.

    Args:
        token_losses: [b, s] with gradient.
        mask: [b, s] bool.
        domain_ids: [b, s] or [b].
        alpha: [k], alpha_t: numbers, through which no gradient can flow.
        global_counts: [k], n_i: the domain's unmasked tokens in the whole global batch.
        normalisation: which of the two.
    """
    weights = _token_weights(
        torch.as_tensor(alpha, dtype=torch.float64).cpu(), torch.as_tensor(global_counts).double().cpu(), normalisation
    )
    weight = weights.to(device=token_losses.device, dtype=torch.float32)[_flat_ids(domain_ids, mask)].view_as(token_losses)
    return _masked_sum(token_losses, weight, mask)


def mean_loss(token_losses: Tensor, mask: Tensor, global_count: int) -> Tensor:
    """The ordinary loss, this micro-batch's part of it: the sum over its unmasked tokens / the global batch's number of them."""
    weight = torch.full((), 1.0 / max(global_count, 1), dtype=torch.float32, device=token_losses.device)
    return _masked_sum(token_losses, weight, mask)


def _token_weights(alpha: Tensor, counts: Tensor, normalisation: Normalisation) -> Tensor:
    """dL / d(token NLL) for a token of each domain [k]; 0 for a domain that the batch lacks."""
    alpha = torch.where(counts > 0, alpha, torch.zeros_like(alpha))
    if normalisation == "token_weighted":
        return alpha / torch.clamp_min((alpha * counts).sum(), torch.finfo(torch.float64).tiny)
    return alpha / torch.clamp_min(counts, 1.0)


def _masked_sum(token_losses: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    kept = torch.where(mask, token_losses, token_losses.new_zeros(()))
    return (kept.float() * weight).sum()


def _flat_ids(domain_ids: Tensor, mask: Tensor) -> Tensor:
    """Domain ids [b * s], with 0 at masked positions."""
    per_token = domain_ids if domain_ids.dim() == mask.dim() else domain_ids.unsqueeze(-1).expand_as(mask)
    return torch.where(mask, per_token, per_token.new_zeros(())).reshape(-1).long()
