"""What a finished stage says: one manifest, written last with create-if-absent. Its presence is success."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.domains import DomainWeights
from api.spec import MixtureName
from api.stages import StageKind


class Result(BaseModel):
    """What a newer version has added is passed over, so that a service that was rolled back reads all the results there are."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class PreparedDomain(Result):
    """One domain as `prepare` counted it."""

    documents: int
    tokens: int
    """Training tokens, end-of-text included, before packing dropped a last incomplete row."""
    rows: int
    """Packed rows of sequence_length + 1 ids."""
    share: float
    """Of all domains' training tokens."""
    validation_documents: int
    validation_tokens: int
    validation_rows: int
    bytes_per_token: float | None = None
    """UTF-8 bytes of text a token; None where the source was tokenised."""
    sha256: str | None = None
    """Of the packed rows' ids (int32, little-endian), against which a copy of them is checked; None in an older version's manifest."""
    validation_sha256: str | None = None


class Prepared(Result):
    """The `prepare` stage's figures; the rows lie under `files["data"]`, the tokenizer at `files["tokenizer"]`."""

    domains: dict[str, PreparedDomain]
    token_shares: DomainWeights
    """alpha_ref when the spec says `tokens`."""
    vocab_size: int
    eos_id: int
    sequence_length: int
    fingerprint: str
    """sha256 over all written rows: what precomputed losses and models are tied to."""


class Evaluation(Result):
    """Log-perplexity (mean loss on held-out text, nats per token) by domain."""

    losses: dict[str, float]
    tokens: dict[str, int]
    average: float
    """Unweighted mean over domains."""
    worst: float


class EvaluationPoint(Result):
    step: int
    evaluation: Evaluation


class Trained(Result):
    """A training stage's figures; the model's weights lie under `files["model"]`."""

    steps: int
    tokens: int
    parameters: int
    sampling_weights: DomainWeights
    epochs: dict[str, float]
    """Realised passes over each domain."""
    final_loss: float
    evaluations: list[EvaluationPoint]
    seconds: float
    """Training wall time of all attempts, saves included."""
    tokens_per_second: float


class Searched(Result):
    """A proxy stage's answer."""

    averaged_weights: DomainWeights
    """Mean of alpha_1 .. alpha_T."""
    final_weights: DomainWeights
    """alpha_T."""
    reference_weights: DomainWeights
    """alpha_ref of this round."""
    delta: float
    """max_i |averaged - reference|."""
    history: list[str]
    """Bucket keys of the history's segments, in order."""


class MixtureRow(Result):
    """One large model in the comparison."""

    mixture: MixtureName
    stage: str
    sampling_weights: DomainWeights
    evaluation: Evaluation
    curve: list[EvaluationPoint]
    """As evaluated during training."""
    better: list[str]
    """Domains with a lower loss than the baseline (the `reference` mixture, where there is one)."""
    worse: list[str]
    steps_to_baseline: int | None
    """First evaluated step at which the average loss during training was at or below the baseline's last one; None: never."""


class Compared(Result):
    baseline: MixtureName | None
    """The mixture that the others are compared with; None: there is no `reference` row."""
    rows: list[MixtureRow]


class StageResult(Result):
    """The manifest."""

    format: int = 1
    experiment_id: str
    stage: str
    kind: StageKind
    round: int
    attempt: int
    digest: str | None
    created_at: datetime
    files: dict[str, str] = Field(default_factory=dict)
    """What was made, by role: bucket keys, or prefixes that end in a slash."""
    prepared: Prepared | None = None
    trained: Trained | None = None
    searched: Searched | None = None
    compared: Compared | None = None
