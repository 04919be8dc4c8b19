"""ExperimentSpec: what a person posts."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from api.domains import DomainName
from api.spec.base import Part
from api.spec.compute import Compute, StageCompute
from api.spec.consistency import inconsistencies
from api.spec.doremi import Comparison, Doremi
from api.spec.models import Model, Models
from api.spec.sources import Domain
from api.spec.tokenizer import Tokenizer, TrainedTokenizer
from api.spec.training import StageTraining, Training
from api.stages import StageKind

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
ExperimentName = Annotated[str, Field(pattern=NAME_PATTERN)]


class ExperimentSpec(Part):
    """A search for a data mixture: the data, the models, how they train, what is compared, and what it runs on."""

    name: ExperimentName
    """Lower-case letters, digits and dashes, at most 40; unique in the service."""
    description: str = ""
    """For people: what this run is meant to show, and why its numbers are what they are."""
    domains: dict[DomainName, Domain] = Field(min_length=1, max_length=1000)
    """Named sources of text."""
    tokenizer: Tokenizer = TrainedTokenizer()
    """What turns text into ids."""
    sequence_length: int = Field(default=1024, ge=8)
    """Tokens a sequence that the model predicts (rows hold one more)."""
    models: Models
    """The shapes of the proxy and of the large model."""
    training: StageTraining
    """Steps, batch, optimiser and schedule of each kind of stage."""
    doremi: Doremi = Doremi()
    """The search itself."""
    comparison: Comparison = Comparison()
    """What the weights are compared with."""
    compute: StageCompute = StageCompute()
    """What each kind of stage runs on."""
    adopt: Literal["same_digest", "never"] = "same_digest"
    """Whether a stage takes over the result of a finished one that had the same inputs, or always runs afresh."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if found := inconsistencies(self.model_dump(mode="json")):
            raise ValueError("; ".join(message for _, message, _ in found))
        return self

    @property
    def domain_names(self) -> list[str]:
        """In canonical order: the order of every vector over domains."""
        return sorted(self.domains)

    def model_for(self, kind: StageKind) -> Model:
        large = kind in (StageKind.MAIN, StageKind.BASELINE)
        return self.models.main or self.models.proxy if large else self.models.proxy

    def training_for(self, kind: StageKind) -> Training:
        """Of a stage that trains; an `evaluate` stage takes its batch and precision from `main`."""
        if kind is StageKind.REFERENCE:
            return self.training.reference or self.training.proxy
        if kind in (StageKind.MAIN, StageKind.BASELINE, StageKind.EVALUATE):
            return self.training.main or self.training.proxy
        return self.training.proxy

    def compute_for(self, kind: StageKind) -> Compute:
        field = StageKind.MAIN if kind is StageKind.BASELINE else kind
        chosen: Compute | None = getattr(self.compute, field.value)
        return chosen or self.compute.default
