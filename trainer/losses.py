"""Per-token cross entropy that never holds all logits at once: by chunks of tokens, recomputed in the backward pass where they are many.

Materialised logits and their gradients peak at 12 bytes x tokens x vocabulary (3 GiB for 8,192 tokens of 32k). A model's own loss does
that, and averages; DoReMi needs the loss of every token. Losses are float32 whatever the type of the matrix product.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MEBIBYTE = 2**20
CHUNK_BYTES = {"cpu": 8 * MEBIBYTE, "cuda": 512 * MEBIBYTE}
"""Of float32 logits in one chunk. Measured on a CPU (1,024 to 4,096 tokens; 2k to 32k ids): 1.2 to 1.6 times as fast as one piece, because
larger blocks are mapped and faulted in afresh each time (the C library keeps up to 32 MiB)."""
KEPT_BYTES = {"cpu": 256 * MEBIBYTE, "cuda": 4096 * MEBIBYTE}
"""Of float32 logits in all: up to it they are kept for the backward pass, above it each chunk is computed a second time, which costs 1/3
more of the head's work."""
FEWEST_TOKENS = 256  # a chunk's weight gradient is added to the others' over the whole head: with fewer tokens that sum would weigh


def token_losses(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    chunk_tokens: int | None = None,
    head_bias: Tensor | None = None,
    kept_bytes: int | None = None,
) -> Tensor:
    """-log p(target) of every token, in nats.

    Args:
        hidden: [b, s, d], the body's output.
        head_weight: [v, d].
        targets: [b, s] int64; below 0: masked, where the loss is 0 and no gradient comes from, whatever `hidden` holds there.
        chunk_tokens: tokens in one chunk; None: by CHUNK_BYTES.
        head_bias: [v] or None.
        kept_bytes: of logits that are kept rather than recomputed; None: KEPT_BYTES.

    Returns:
        [b, s] float32.
    """
    mask = targets.reshape(-1) >= 0
    flat = hidden.reshape(-1, hidden.shape[-1])
    flat = torch.where(mask.unsqueeze(-1), flat, flat.new_zeros(()))
    wanted = torch.where(mask, targets.reshape(-1), 0)
    tokens, row_bytes, device = flat.shape[0], 4 * head_weight.shape[0], hidden.device.type
    size = chunk_tokens or _chunk_tokens(tokens, row_bytes, CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]))
    kept = KEPT_BYTES.get(device, KEPT_BYTES["cuda"]) if kept_bytes is None else kept_bytes
    recompute = torch.is_grad_enabled() and tokens * row_bytes > kept
    losses = []
    for part, want in zip(torch.split(flat, size), torch.split(wanted, size), strict=True):
        if recompute:
            losses.append(checkpoint(_losses, part, head_weight, head_bias, want, use_reentrant=False, preserve_rng_state=False))
        else:
            losses.append(_losses(part, head_weight, head_bias, want))
    whole = losses[0] if len(losses) == 1 else torch.cat(losses)
    return torch.where(mask, whole, whole.new_zeros(())).view(targets.shape)


def _chunk_tokens(tokens: int, row_bytes: int, chunk_bytes: int) -> int:
    """Tokens a chunk: chunks of one size, as few as the bytes allow."""
    most = max(FEWEST_TOKENS, chunk_bytes // row_bytes)
    chunks = max(1, -(-tokens // most))
    return max(1, -(-tokens // chunks))


def _losses(hidden: Tensor, head_weight: Tensor, head_bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = torch.nn.functional.linear(hidden, head_weight, head_bias)
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
