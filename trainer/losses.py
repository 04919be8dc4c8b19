"""Per-token cross entropy that never holds all logits: by chunks of tokens, each recomputed in the backward pass.

Materialised logits and their gradients peak at 12 bytes x tokens x vocabulary (2.4 GiB for 8,192 tokens of 32k). A model's own loss
does that, and averages; DoReMi needs the loss of every token. Losses are float32 whatever the type of the matrix product.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

WHOLE_BYTES = 256 * 2**20  # float32 logits up to this size are made in one piece and kept: recomputing them would cost 1/3 of the head
CHUNK_BYTES = 256 * 2**20  # of float32 logits in one recomputed chunk


def token_losses(
    hidden: Tensor, head_weight: Tensor, targets: Tensor, chunk_tokens: int | None = None, head_bias: Tensor | None = None
) -> Tensor:
    """-log p(target) of every token, in nats.

    Args:
        hidden: [b, s, d], the body's output.
        head_weight: [v, d].
        targets: [b, s] int64; below 0: masked, where the loss is 0 and `hidden` gets no gradient, whatever it holds.
        chunk_tokens: tokens in one chunk; None: chosen from the size of the logits, one piece without recomputation where they are small.
        head_bias: [v] or None.

    Returns:
        [b, s] float32.
    """
    mask = targets.reshape(-1) >= 0
    flat = hidden.reshape(-1, hidden.shape[-1])
    flat = torch.where(mask.unsqueeze(-1), flat, flat.new_zeros(()))
    wanted = torch.where(mask, targets.reshape(-1), 0)
    number = flat.shape[0]
    size = chunk_tokens or _chunk_tokens(number, head_weight.shape[0])
    if size >= number:
        losses = _cross_entropy(flat, head_weight, head_bias, wanted)
    else:
        parts = zip(torch.split(flat, size), torch.split(wanted, size), strict=True)
        losses = torch.cat([_recomputed(part, head_weight, head_bias, want) for part, want in parts])
    return torch.where(mask, losses, losses.new_zeros(())).view(targets.shape)


def _chunk_tokens(tokens: int, vocabulary: int) -> int:
    """Tokens a chunk: all of them where their logits are small, else an even split below the chunk's size."""
    size = 4 * vocabulary * tokens
    if size <= WHOLE_BYTES:
        return tokens
    chunks = -(-size // CHUNK_BYTES)
    return -(-tokens // chunks)


def _cross_entropy(hidden: Tensor, head_weight: Tensor, head_bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = torch.nn.functional.linear(hidden, head_weight, head_bias)
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def _recomputed(hidden: Tensor, head_weight: Tensor, head_bias: Tensor | None, targets: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return _cross_entropy(hidden, head_weight, head_bias, targets)
    losses: Tensor = checkpoint(_cross_entropy, hidden, head_weight, head_bias, targets, use_reentrant=False, preserve_rng_state=False)
    return losses
