"""What the service answers: records as a reader wants them, with progress beside them. Nothing here is stored."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from api.domains import DomainWeights
from api.experiment import Attempt, ExperimentPhase
from api.plan import Plan
from api.results import Compared, PreparedDomain
from api.stage_config import StageReport
from api.stages import StageKind, StagePhase, StageReason
from api.weights import HistoryHeader, WeightCheckpoint


class View(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)  # unknown fields pass: an old client reads a newer service


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
    attempts: list[Attempt]
    report: StageReport | None = None
    """The newest attempt's, while the stage is live (in lists of experiments: never)."""


class ExperimentView(View):
    id: str
    name: str
    phase: ExperimentPhase
    spec_sha256: str
    created_at: datetime
    cancel_requested_at: datetime | None
    version: int
    """Also the ETag; send it as If-Match with a change."""
    stages: list[StageView]


class ExperimentSummary(View):
    id: str
    name: str
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
