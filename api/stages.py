"""Stages: their kinds, phases, reasons and the one table of legal transitions."""

from enum import StrEnum


class StageKind(StrEnum):
    """What a stage does. `main` is the large model on the averaged weights, `baseline` the same model on another mixture."""

    PREPARE = "prepare"
    REFERENCE = "reference"
    PROXY = "proxy"
    MAIN = "main"
    BASELINE = "baseline"
    EVALUATE = "evaluate"


class StagePhase(StrEnum):
    BLOCKED = "blocked"
    LAUNCHING = "launching"
    QUEUED = "queued"
    RUNNING = "running"
    BACKOFF = "backoff"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({StagePhase.SUCCEEDED, StagePhase.FAILED, StagePhase.CANCELLED})


class StageReason(StrEnum):
    """Why a stage is in its phase; the record carries a sentence beside it."""

    PLANNED = "planned"
    READY = "ready"
    ADOPTED = "adopted"  # a finished stage with the same digest had done this work
    CONVERGED = "converged"  # the round before met the tolerance: its result stands for this round's
    PREDECESSOR_FAILED = "predecessor_failed"
    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    LAUNCH_REJECTED = "launch_rejected"
    STARTED = "started"
    PREEMPTED = "preempted"
    COMPLETED = "completed"
    RESULT_MISSING = "result_missing"
    WORKER_FAILED = "worker_failed"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_LOST = "node_lost"
    INTERRUPTED = "interrupted"
    WORKER_FAILED_PERMANENTLY = "worker_failed_permanently"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    APP_LOST = "app_lost"
    STALLED = "stalled"
    RETRYING = "retrying"
    RETRY_REQUESTED = "retry_requested"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED_BY_USER = "cancelled_by_user"


# The whole life of a stage. A phase that stays (running -> running) is not a transition and is not listed.
# A retry by the user starts a new record of the stage (see services.experiments), so terminal phases have no way out here.
LEGAL: dict[StagePhase, frozenset[StagePhase]] = {
    StagePhase.BLOCKED: frozenset(
        {StagePhase.LAUNCHING, StagePhase.SUCCEEDED, StagePhase.CANCELLED, StagePhase.FAILED, StagePhase.CANCELLING}
    ),
    StagePhase.LAUNCHING: frozenset(
        {StagePhase.QUEUED, StagePhase.SUCCEEDED, StagePhase.FAILED, StagePhase.BACKOFF, StagePhase.CANCELLING}
    ),
    StagePhase.QUEUED: frozenset({StagePhase.RUNNING, StagePhase.SUCCEEDED, StagePhase.BACKOFF, StagePhase.FAILED, StagePhase.CANCELLING}),
    StagePhase.RUNNING: frozenset({StagePhase.QUEUED, StagePhase.SUCCEEDED, StagePhase.BACKOFF, StagePhase.FAILED, StagePhase.CANCELLING}),
    StagePhase.BACKOFF: frozenset({StagePhase.LAUNCHING, StagePhase.SUCCEEDED, StagePhase.FAILED, StagePhase.CANCELLING}),
    StagePhase.CANCELLING: frozenset({StagePhase.CANCELLED, StagePhase.SUCCEEDED}),
    StagePhase.SUCCEEDED: frozenset(),
    StagePhase.FAILED: frozenset(),
    StagePhase.CANCELLED: frozenset(),
}


def is_legal(before: StagePhase, after: StagePhase) -> bool:
    """Whether a record may go from `before` to `after`; staying in a live phase always may."""
    return before == after or after in LEGAL[before]
