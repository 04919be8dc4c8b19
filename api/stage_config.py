"""What an attempt is given and what it says back: StageConfig, StageReport, AttemptFailure, TrainStatePointer, exit codes."""

from datetime import datetime
from enum import IntEnum

from pydantic import BaseModel, ConfigDict

from api.domains import DomainWeights
from api.plan import PlannedStage
from api.results import EvaluationPoint
from api.spec import ExperimentSpec


class ExitCode(IntEnum):
    """The trainer's exit codes; every other one is a failure that may be retried."""

    DONE = 0
    BAD_CONFIG = 64  # EX_USAGE: what it was given can never work; do not retry
    INTERRUPTED = 75  # EX_TEMPFAIL: asked to stop; the train state was saved


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Inputs(Message):
    """Bucket keys of the results a stage reads, by role."""

    prepare: str | None = None
    reference: str | None = None
    """The reference model, for a proxy stage."""
    averaged: str | None = None
    """The proxy result whose averaged weights the stage's mixture names."""
    models: dict[str, str] = {}
    """Stage name to result, for an evaluate stage."""


class StageConfig(Message):
    """The exact input of one attempt, written to the bucket before it is launched."""

    format: int = 1
    experiment_id: str
    spec: ExperimentSpec
    spec_sha256: str
    plan: PlannedStage
    siblings: tuple[PlannedStage, ...]
    """The whole plan: `prepare` reports planned epochs, `evaluate` the rows' order."""
    attempt: int
    digest: str | None
    inputs: Inputs = Inputs()


class StageReport(Message):
    """Progress and heartbeat, overwritten by rank 0 every few seconds. What a newer version says beside it is passed over."""

    model_config = ConfigDict(extra="ignore")

    attempt: int
    updated_at: datetime
    progressed_at: datetime | None = None
    """When its program last got on, which one that hangs does not while its heartbeat goes on; None: an older version does not tell."""
    activity: str
    """What it does now, for a person: "tokenising github", "training", "evaluating", "saving"."""
    step: int = 0
    total: int = 0
    """Steps, or bytes of input while preparing; 0: not known yet."""
    unit: str = "steps"
    world_size: int = 1
    restarts: int = 0
    """Restarts of all processes within this attempt, those of torchrun's agent itself among them."""
    resumed_from: int = 0
    """Step of the train state that this attempt began with."""
    loss: float | None = None
    gradient_norm: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    data_wait_share: float | None = None
    """Share of the time spent waiting for data."""
    mfu: float | None = None
    """Model FLOPs utilisation, where the device's peak is known or given."""
    peak_memory_bytes: int | None = None
    seconds_left: float | None = None
    domain_weights: DomainWeights | None = None
    averaged_weights: DomainWeights | None = None
    reference_weights: DomainWeights | None = None
    """alpha_ref of a proxy's round."""
    excess_losses: dict[str, float] = {}
    domain_losses: dict[str, float] = {}
    epochs: dict[str, float] = {}
    evaluations: list[EvaluationPoint] = []
    """Newest last."""


class AttemptFailure(Message):
    """Why an attempt failed, in its own words, written before it exits."""

    attempt: int
    code: str
    """Of the SolfaError, or `unexpected`."""
    message: str
    retryable: bool
    exit_code: int
    rank: int
    at: datetime
    tail: list[str] = []
    """Last lines: the traceback of an unexpected error."""


class TrainStatePointer(Message):
    """`latest`: the newest train state and the history that belongs to it; moved by compare-and-swap."""

    step: int
    attempt: int
    state: str
    """Bucket prefix of the state's files."""
    history: list[str] = []
    """Keys of all history segments up to `step`, in order."""
    created_at: datetime
