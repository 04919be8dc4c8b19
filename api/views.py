"""What the service answers: records as a reader wants them, with progress beside them; and what changes a stage. Nothing here is stored."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.access import DEFAULT_PROJECT
from api.domains import DomainWeights
from api.experiment import Attempt, ExperimentPhase
from api.plan import Plan
from api.results import Compared, PreparedDomain
from api.stage_config import StageReport
from api.stages import StageKind, StagePhase, StageReason
from api.weights import HistoryHeader, WeightCheckpoint


class View(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)  # unknown fields pass: an old client reads a newer service


class StageChange(BaseModel):
    """What may be changed of a stage that is live."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    replicas: int = Field(ge=1, examples=[1])
    """Machines to go on with, within the spec's `replicas.min` to `replicas.max`; of later attempts too."""


class FailureView(View):
    """How the newest attempt of a failed stage ended; it is known as long as the experiment is."""

    attempt: int
    exit_code: int | None
    """Of the process that failed first; None: it is not known, as where a machine was lost."""
    rank: int | None
    """Of that process, where it could still say so itself."""
    replica: int | None
    """The machine that it ran on, where the cluster could say so."""
    last_lines: list[str]
    """Its own last words, or the last lines of its machine's log."""


class StageView(View):
    name: str
    kind: StageKind
    round: int
    needs: list[str]
    phase: StagePhase
    reason: StageReason
    message: str
    adopted: bool
    """Whether its result is another stage's."""
    digest: str | None
    result_key: str | None
    not_before: datetime | None
    first_launched_at: datetime | None
    finished_at: datetime | None
    replicas: int | None = None
    """Machines that a person asked for; None: as many as the spec allows."""
    attempts: list[Attempt]
    failure: FailureView | None = None
    """Of a stage that has failed (in lists of experiments: never)."""
    report: StageReport | None = None
    """The newest attempt's, while the stage is live (in lists of experiments: never)."""


class ExperimentView(View):
    id: str
    name: str
    project: str = DEFAULT_PROJECT
    phase: ExperimentPhase
    spec_sha256: str
    created_at: datetime
    cancel_requested_at: datetime | None
    version: int
    """Rises with each change; the ETag, which If-Match takes, is the id and this: `"x2ab3cd4ef5.7"`."""
    stages: list[StageView]


class ExperimentSummary(View):
    id: str
    name: str
    project: str = DEFAULT_PROJECT
    phase: ExperimentPhase
    created_at: datetime
    stages: dict[StagePhase, int]
    """Number of stages in each phase."""


class ExperimentList(View):
    experiments: list[ExperimentSummary]
    next_cursor: str | None
    """Pass it as `cursor` for the next page; None: this was the last."""


class Validated(View):
    """The answer to a submission with `validate_only`."""

    name: str
    spec_sha256: str
    plan: Plan
    launches: list[dict[str, Any]]
    """Exactly what would be launched, in the plan's order."""


class Provenance(View):
    """What a weight set depends on."""

    experiment: str
    experiment_id: str
    spec_sha256: str
    stage: str
    round: int
    steps: int
    eta: float
    smoothing: float
    objective: str
    tokenizer: str
    sequence_length: int
    proxy: str
    """The proxy's shape, for a person."""
    reference_weights: DomainWeights


class Weights(View):
    """The averaged domain weights: fractions of tokens."""

    averaged_weights: DomainWeights
    delta: float
    """max_i |averaged - reference|."""
    mean_document_tokens: dict[str, float]
    """Tokens a document, by domain: what turns fractions of tokens into fractions of documents."""
    provenance: Provenance


class CurrentWeights(View):
    """alpha_t while the proxy runs."""

    stage: str
    step: int
    total: int
    updated_at: datetime
    domain_weights: DomainWeights
    averaged_weights: DomainWeights | None
    excess_losses: dict[str, float]


class WeightHistory(View):
    """alpha_t step by step, and the constants of its update."""

    header: HistoryHeader | None
    """None: no step is recorded yet."""
    checkpoints: list[WeightCheckpoint]


class DataView(View):
    """What `prepare` made of the domains, and how often the search passes over them."""

    experiment: str
    domains: dict[str, PreparedDomain]
    token_shares: DomainWeights
    vocab_size: int
    sequence_length: int
    planned_epochs: dict[str, dict[str, float]]
    """Passes over each domain, by stage, where the mixture is known beforehand."""
    epochs: dict[str, dict[str, float]]
    """Realised passes, by stage that has finished."""


class ComparisonView(View):
    experiment: str
    compared: Compared


class EventView(View):
    id: int
    experiment_id: str
    at: datetime
    kind: str
    stage: str | None
    data: dict[str, Any]


class EventList(View):
    events: list[EventView]


class LogView(View):
    stage: str
    attempt: int
    lines: list[str]


class ProblemDocument(View):
    """RFC 9457."""

    type: str
    """`https://solfa.invalid/problems/<code>`: an identifier, not an address."""
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    problems: list[dict[str, Any]] = []
    """For `invalid_spec`: every problem, each with `pointer`, `message`, and where known `line` and `suggestion`."""
