"""What one look at a stage saw, in the cluster, the bucket and the store: everything `decide` may go by, besides the record."""

from dataclasses import dataclass
from datetime import datetime

from api.stage_config import AttemptFailure, StageReport
from api.stages import StageReason
from services.launch.cluster import AppPhase, AppStatus

ALIVE = frozenset({AppPhase.PENDING, AppPhase.RUNNING, AppPhase.UNKNOWN})


NOWHERE = AppStatus(AppPhase.ABSENT)


@dataclass(frozen=True)
class StandIn:
    """A committed result that serves a stage which has not run."""

    result_key: str
    reason: StageReason
    """ADOPTED or CONVERGED."""
    message: str
    digest: str | None
    """Of the result."""


@dataclass(frozen=True)
class Observation:
    """One look at one stage and its newest attempt."""

    app: AppStatus = NOWHERE
    committed: str | None = None
    """Bucket key of the stage's own result, once it is there."""
    failure: AttemptFailure | None = None
    """What the attempt said of its own failure; looked for when its app has ended, or crashes for ever."""
    reported_at: datetime | None = None
    """When the attempt last reported; looked for while it runs."""
    report: StageReport | None = None
    """What it said then."""
    stand_in: StandIn | None = None
    """Looked for when a blocked stage has all that it needs."""
    rejected: str | None = None
    """The cluster's refusal of a launch, or of a resize, in this pass."""

    @property
    def alive(self) -> bool:
        """Whether the attempt may still be running: then no other may start."""
        return self.app.phase in ALIVE
