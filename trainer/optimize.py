"""The optimiser and its learning rate: what a spec's `training` says, as torch objects and as a pure function of the step."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from api.spec import AdamW, CosineSchedule, Training, WarmupStableDecaySchedule


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """AdamW, fused, or the paper's Adafactor. Weight decay spares norms and biases (vectors).

    The learning rate it is made with is that of step 1; the loop sets `group["lr"] = learning_rate(step, training)` before each step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen = training.optimizer
    groups = [
        {"params": [parameter for parameter in parameters if parameter.dim() >= 2], "weight_decay": chosen.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = learning_rate(1, training)
    if isinstance(chosen, AdamW):
        fused = all(parameter.device.type in ("cuda", "cpu") for parameter in parameters)
        return torch.optim.AdamW(groups, lr=rate, betas=(chosen.beta1, chosen.beta2), eps=chosen.epsilon, fused=fused)
    return FactoredSecondMoments(groups, rate)


def learning_rate(step: int, training: Training) -> float:
    """The learning rate of optimiser step `step`, 1 .. steps: linear warm-up to the peak, then the schedule down to its final rate.

    The peak is reached at step round(warmup_fraction * steps), the final rate at the last step; later steps keep the final rate.
    """
    schedule, steps = training.schedule, training.steps
    step = min(max(step, 1), steps)
    warmup = round(schedule.warmup_fraction * steps)
    if step <= warmup:
        return training.learning_rate * step / warmup
    if isinstance(schedule, WarmupStableDecaySchedule):
        begin = max(warmup, steps - round(schedule.decay_fraction * steps))
        share = 1 - (1 - schedule.final_fraction) * max(0, step - begin) / max(1, steps - begin)
        return training.learning_rate * share
    progress = (step - warmup) / (steps - warmup)
    if isinstance(schedule, CosineSchedule):
        share = schedule.final_fraction + (1 - schedule.final_fraction) * (1 + math.cos(math.pi * progress)) / 2
    else:
        share = schedule.final_fraction**progress
    return training.learning_rate * share


class FactoredSecondMoments(torch.optim.Optimizer):
    """Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, algorithm 4) with an external learning rate and no first moment.

    A matrix's second moments are kept as a row and a column of means, an update's root mean square is clipped to 1, and the step is
    relative to the parameter's own root mean square. torch's Adafactor computes the same but refuses parameters sharded by FSDP2 (torch
    2.13), which this one takes.
    """

    DECAY = 0.8  # beta2 at step t is 1 - t ** -DECAY
    SMALLEST_SCALE = 1e-3  # epsilon_2: the root mean square that a parameter of zeros is taken to have

    def __init__(self, groups: list[dict[str, Any]], rate: float) -> None:
        super().__init__(groups, {"lr": rate, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads on closure
        """Update every parameter that has a gradient."""
        loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["weight_decay"])
        return loss

    def _update(self, parameter: Tensor, rate: float, weight_decay: float) -> None:
        gradient, state = cast(Tensor, parameter.grad), self.state[parameter]
        matrix = parameter.dim() >= 2
        square = gradient.square()
        means = {"row": _mean(square, -1), "column": _mean(square, -2)} if matrix else {"whole": square}
        if not state:
            state.update({"step": torch.zeros(()), **{name: torch.zeros_like(mean) for name, mean in means.items()}})
        state["step"] += 1
        for name, mean in means.items():
            state[name].lerp_(mean, float(state["step"]) ** -self.DECAY)
        tiny = torch.finfo(parameter.dtype).eps
        variance = state["row"] * state["column"] / _mean(state["row"], -2).clamp_min(tiny) if matrix else state["whole"]
        update = gradient / variance.sqrt().clamp_min(tiny)
        scale = _root_mean_square(parameter).clamp_min(self.SMALLEST_SCALE)
        clip = _root_mean_square(update).clamp_min(1.0)
        parameter.mul_(1 - rate * weight_decay).sub_(update * (scale / clip * rate))


def _mean(values: Tensor, axis: int) -> Tensor:
    """The mean along one axis, kept as an axis of length 1; where a sharded tensor's shards lie along it, whole on every rank."""
    mean = values.mean(dim=axis, keepdim=True)
    if isinstance(mean, DTensor) and any(placement.is_partial() for placement in mean.placements):
        return mean.redistribute(placements=[Replicate()] * mean.device_mesh.ndim)
    return mean


def _root_mean_square(values: Tensor) -> Tensor:
    """A scalar; of a sharded tensor, over all of it."""
    total = values.square().sum()
    whole = total.full_tensor() if isinstance(total, DTensor) else total
    return (whole / values.numel()).sqrt()
