"""How a stage trains: steps, batch, optimiser, schedule, precision, and how often it saves and evaluates."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from api.spec.base import Part


class AdamW(Part):
    """Adam with decoupled weight decay."""

    type: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the second moment."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled; not applied to norms and biases."""


class Adafactor(Part):
    """The paper's optimiser."""

    type: Literal["adafactor"] = "adafactor"
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled; not applied to norms and biases."""


Optimizer = Annotated[AdamW | Adafactor, Field(discriminator="type")]


class ExponentialSchedule(Part):
    """The paper's: linear warm-up, then exponential decay to the final rate."""

    type: Literal["exponential"] = "exponential"
    warmup_fraction: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps."""
    final_fraction: float = Field(default=0.1, gt=0, le=1)
    """Final learning rate as a share of the peak (paper: 1e-3 to 1e-4)."""


class CosineSchedule(Part):
    """Linear warm-up, then half a cosine down to the final rate."""

    type: Literal["cosine"] = "cosine"
    warmup_fraction: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps."""
    final_fraction: float = Field(default=0.1, ge=0, le=1)
    """Final learning rate as a share of the peak."""


class WarmupStableDecaySchedule(Part):
    """Linear warm-up, constant, then linear decay to the final rate."""

    type: Literal["warmup_stable_decay"] = "warmup_stable_decay"
    warmup_fraction: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps."""
    decay_fraction: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the end."""
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    """Final learning rate as a share of the peak."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError("warmup_fraction and decay_fraction are more than 1 together; lower one of them")
        return self


Schedule = Annotated[ExponentialSchedule | CosineSchedule | WarmupStableDecaySchedule, Field(discriminator="type")]


class Training(Part):
    """One stage's training."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    global_batch: int = Field(default=512, ge=1)
    """Sequences a step, over all processes."""
    micro_batch: int = Field(default=8, ge=1)
    """Sequences a forward pass of one process; changes memory and speed, not the result (but for rounding)."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak."""
    optimizer: Optimizer = AdamW()
    """AdamW, or the paper's Adafactor."""
    schedule: Schedule = ExponentialSchedule()
    """The learning rate over the steps; default: the paper's."""
    gradient_clip: float | None = Field(default=1.0, gt=0)
    """Global norm; None: no clipping."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products; weights, losses and reductions stay float32."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the weights' initialisation and the order of the data."""
    save_every: int = Field(default=1000, ge=1)
    """Steps between train states."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations on held-out text; None: only at the end."""
    evaluate_sequences: int = Field(default=64, ge=1)
    """Held-out sequences a domain, at most, in an evaluation during training; the final one takes all, up to `comparison.sequences`."""


class StageTraining(Part):
    """The training of each kind of stage."""

    proxy: Training
    """Of every proxy stage."""
    reference: Training | None = None
    """None: as the proxy."""
    main: Training | None = None
    """Of `main` and every `baseline`; None: as the proxy."""
