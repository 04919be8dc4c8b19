"""The record of a search: Experiment, its Stages, their Attempts. The experiment's phase is derived, never stored."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from api.access import DEFAULT_PROJECT
from api.plan import PlannedStage, final_proxy
from api.stages import StagePhase, StageReason

APP_NAME_LIMIT = 63  # a Kubernetes label; pods add "-trainer-<k>-0", for which app_name leaves room


class Record(BaseModel):
    """A frozen record; a change is a `model_copy`. What a newer version wrote beside it is passed over, so that a rollback can read it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Attempt(Record):
    """One launch of one stage."""

    number: int = Field(ge=1)
    app: str
    """The TorchX app's name, known before the launch."""
    created_at: datetime
    launched_at: datetime | None = None
    """When the cluster accepted it."""
    started_at: datetime | None = None
    """When its workers were first seen up."""
    ended_at: datetime | None = None
    reason: StageReason | None = None
    """Why it ended."""
    message: str = ""
    exit_code: int | None = None
    """Of the process that failed first, as far as it is known."""
    failed_replica: int | None = None
    """The machine that it ran on, by number."""
    free: bool = False
    """Whether it was lost to the platform (preemption, a lost node), which spends no retry."""


class Stage(Record):
    """One node of the plan, with what became of it."""

    plan: PlannedStage
    phase: StagePhase = StagePhase.BLOCKED
    entered_at: datetime | None = None
    """When it came to be in its phase; None: it never left its first one, or left it before that was recorded."""
    reason: StageReason = StageReason.PLANNED
    message: str = ""
    """One sentence for a person: why it waits, or why it failed."""
    digest: str | None = None
    """Of what determines its result; None: it cannot be told (its sources cannot be read from here), so nothing is adopted."""
    result_key: str | None = None
    """Bucket key of its committed result; another stage's where it was adopted."""
    not_before: datetime | None = None
    """End of a back-off."""
    first_launched_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: tuple[Attempt, ...] = ()
    retries_granted: int = 0
    """Retries a person added to the spec's by asking for a retry."""
    replicas: int | None = None
    """Machines that a person asked for, of this attempt and of later ones; None: nobody did, so as many as the spec allows."""

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def adopted(self) -> bool:
        return self.phase is StagePhase.SUCCEEDED and self.reason in (StageReason.ADOPTED, StageReason.CONVERGED)


class ExperimentPhase(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Experiment(Record):
    """A posted spec and its stages. Changed only by compare-and-swap on `version`."""

    id: str
    """`x` and 10 of [a-z2-7]; unique for ever, where a name may be used again after a delete."""
    name: str
    project: str = DEFAULT_PROJECT
    """Within which names are unique, and results are adopted."""
    spec_text: str
    """The spec as it was posted, verbatim."""
    spec_sha256: str
    created_at: datetime
    cancel_requested_at: datetime | None = None
    version: int = 1
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def final_proxy(self) -> Stage:
        """The stage whose averaged weights are the search's answer."""
        name = final_proxy(stage.plan for stage in self.stages).name
        return next(stage for stage in self.stages if stage.name == name)

    def with_stage(self, changed: Stage) -> "Experiment":
        """This record with one stage replaced (the version is the store's to raise)."""
        return self.model_copy(update={"stages": tuple(changed if stage.name == changed.name else stage for stage in self.stages)})

    @property
    def phase(self) -> ExperimentPhase:
        """Derived: what the stages amount to."""
        phases = {stage.phase for stage in self.stages}
        if all(phase.terminal for phase in phases):
            if phases == {StagePhase.SUCCEEDED}:
                return ExperimentPhase.SUCCEEDED
            return ExperimentPhase.FAILED if StagePhase.FAILED in phases else ExperimentPhase.CANCELLED
        if self.cancel_requested_at:
            return ExperimentPhase.CANCELLING
        return ExperimentPhase.PENDING if phases == {StagePhase.BLOCKED} else ExperimentPhase.RUNNING


def app_name(experiment_id: str, stage: str, attempt: int) -> str:
    """The TorchX app of an attempt: the same on every call, so that a repeated launch finds the first."""
    name = f"{experiment_id}-{stage}-{attempt}"
    if len(name) > APP_NAME_LIMIT - len("-trainer-9999-0"):
        raise ValueError(f"app name {name!r} is too long")
    return name
