"""One optimiser step's losses and gradients: the plain one, and DoReMi's. What differs between the two is all here."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from api.errors import NonFiniteLoss
from api.spec import Doremi, Objective
from trainer import doremi
from trainer.data import Batch
from trainer.objective import domain_sums, mean_loss, token_scores, weighted_loss
from trainer.parallel import Micro, ParallelModel
from trainer.world import World


@dataclass(frozen=True)
class StepRecord:
    """What one step saw, over all ranks and micro-batches."""

    domain_losses: NDArray[np.float64]
    """Mean unclipped token loss by domain, nats, [k]; NaN for an absent domain."""
    domain_tokens: NDArray[np.int64]
    """Unmasked tokens by domain, [k]."""
    scores: NDArray[np.float64] | None = None
    """lambda_t, [k], of a proxy."""

    @property
    def tokens(self) -> int:
        return int(self.domain_tokens.sum())

    @property
    def loss(self) -> float:
        """Mean over the batch's tokens."""
        present = self.domain_tokens > 0
        return float((self.domain_losses[present] * self.domain_tokens[present]).sum() / self.tokens)


class Step(Protocol):
    """Computes the gradients of one global batch, and says what it saw."""

    def __call__(self, model: ParallelModel, batch: Batch) -> StepRecord: ...


class ReferenceLosses(Protocol):
    """The reference's token losses for a micro-batch, [n, s] float32, without gradient."""

    def __call__(self, micro: Micro) -> Tensor: ...


class PlainStep:
    """The mean loss over the global batch's tokens."""

    def __init__(self, world: World, names: list[str]) -> None:
        self._world, self._names = world, names

    def __call__(self, model: ParallelModel, batch: Batch) -> StepRecord:
        micros = model.micro_batches(batch)
        k = len(self._names)
        tokens = int(self._world.sum(torch.tensor([sum(int(micro.mask.sum()) for micro in micros)])).item())
        sums, counts = torch.zeros(k, dtype=torch.float64), torch.zeros(k, dtype=torch.int64)
        for number, micro in enumerate(micros, 1):
            with model.synchronised(last=number == len(micros)):
                losses = model.losses(micro)
                more, many = domain_sums(losses, micro.mask, micro.domain_ids, k)
                # Ranks average their gradients; times the number of ranks, they are summed.
                (mean_loss(losses, micro.mask, tokens) * self._world.size).backward()  # type: ignore[no-untyped-call]  # torch
            sums += more.cpu()
            counts += many.cpu()
        return record(self._world.sum(sums), self._world.sum(counts), self._names)


class DoremiStep:
    """Algorithm 1's step: excess losses move alpha, then the proxy is updated under the new alpha, on the same batch."""

    def __init__(self, world: World, names: list[str], settings: Doremi, objective: Objective, reference: ReferenceLosses | None) -> None:
        self._world, self._names, self._settings = world, names, settings
        self._objective, self._reference = objective, reference
        self.state = doremi.start(len(names))

    def __call__(self, model: ParallelModel, batch: Batch) -> StepRecord:
        micros = model.micro_batches(batch)
        if len(micros) == 1:  # one graph serves the excess and the gradient: about 4/3 of a plain step
            with model.synchronised(last=True):
                losses = model.losses(micros[0])
                seen = self._update([(micros[0], losses)])
                self._backward(losses, micros[0], seen)
            return seen
        with torch.no_grad():
            seen = self._update([(micro, model.losses(micro)) for micro in micros])
        for number, micro in enumerate(micros, 1):
            with model.synchronised(last=number == len(micros)):
                self._backward(model.losses(micro), micro, seen)
        return seen

    def _update(self, seen: list[tuple[Micro, Tensor]]) -> StepRecord:
        """alpha_{t-1} to alpha_t, from sums over all micro-batches and ranks, divided only then."""
        k = len(self._names)
        totals = torch.zeros(3, k, dtype=torch.float64)
        for micro, losses in seen:
            reference = self._reference(micro) if self._reference else None
            score_sums, counts = domain_sums(token_scores(self._objective, losses, reference), micro.mask, micro.domain_ids, k)
            loss_sums, _ = domain_sums(losses, micro.mask, micro.domain_ids, k)
            totals += torch.stack((score_sums, loss_sums, counts.double())).cpu()
        score_totals, loss_totals, count_totals = self._world.sum(totals)
        found = record(loss_totals, count_totals.long(), self._names)
        refuse_non_finite(score_totals, self._names, "reference loss")
        scores = doremi.excess_losses(score_totals.numpy(), count_totals.numpy(), self.state, self._settings.absent_domain)
        self.state = doremi.step(self.state, scores, self._settings.eta, self._settings.smoothing)
        return StepRecord(found.domain_losses, found.domain_tokens, scores)

    def _backward(self, losses: Tensor, micro: Micro, seen: StepRecord) -> None:
        loss = weighted_loss(losses, micro.mask, micro.domain_ids, self.state.alpha, seen.domain_tokens, self._settings.normalisation)
        (loss * self._world.size).backward()  # type: ignore[no-untyped-call]  # torch


def record(sums: Tensor, counts: Tensor, names: list[str]) -> StepRecord:
    """From loss sums and token counts by domain. Raises NonFiniteLoss that names the domain."""
    refuse_non_finite(sums, names, "loss")
    numbers = counts.numpy()
    with np.errstate(invalid="ignore"):
        means = np.where(numbers > 0, sums.numpy() / np.maximum(numbers, 1), np.nan)
    return StepRecord(means, numbers)


def refuse_non_finite(values: Tensor, names: list[str], what: str) -> None:
    """Raises NonFiniteLoss that names the domains whose value [k] is none."""
    if bad := [name for name, value in zip(names, values.tolist(), strict=True) if not np.isfinite(value)]:
        raise NonFiniteLoss(f"The {what} of {', '.join(bad)} is NaN or infinite; lower the learning rate or look at that domain's data.")
