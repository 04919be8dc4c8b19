"""The optimiser and its learning rate: what a spec's `training` says, as torch objects and as a pure function of the step."""

import math

import torch
from torch import nn

from api.spec import AdamW, Training, WarmupStableDecaySchedule
from api.spec.training import CosineSchedule


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """AdamW, fused where the parameters allow it, or the paper's Adafactor. Weight decay spares norms and biases (vectors).

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
        fused = all(parameter.is_floating_point() and parameter.device.type in ("cuda", "cpu") for parameter in parameters)
        return torch.optim.AdamW(groups, lr=rate, betas=(chosen.beta1, chosen.beta2), eps=chosen.epsilon, fused=fused)
    return torch.optim.Adafactor(groups, lr=rate)


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
