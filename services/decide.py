"""What becomes of a stage: from its record and one observation to at most one move. Pure: the whole life of a stage is on these pages.

Three rules stand over all others: terminal is final; success is a committed result in the bucket, whatever an exit code says; and attempt
n + 1 never starts while attempt n may still be alive.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from api.experiment import Experiment, Stage
from api.spec import Compute
from api.stage_config import ExitCode
from api.stages import StagePhase, StageReason
from services.launch.cluster import AppPhase
from services.observation import Observation
from services.precedence import gives_way
from services.retry import FOR_GOOD, FREE, Backoff, judge


class Effect(StrEnum):
    """What is done to the newest attempt's app. Each is idempotent by the app's name, so doing it again after a crash is harmless."""

    NONE = "none"
    LAUNCH = "launch"
    CANCEL = "cancel"
    HEAL = "heal"
    RESIZE = "resize"


@dataclass(frozen=True)
class Move:
    """The stage's next phase and why, in one word and in one sentence; what is to be done; what the record is to hold."""

    phase: StagePhase
    reason: StageReason
    message: str = ""
    effect: Effect = Effect.NONE
    result_key: str | None = None
    digest: str | None = None
    not_before: datetime | None = None
    free: bool = False
    """Whether the attempt that ends with this move was lost to the platform."""
    replicas: int | None = None
    """What the app is resized to."""
    exit_code: int | None = None
    failed_replica: int | None = None
    """Of the attempt that ends with this move: what ended first, and where."""


@dataclass(frozen=True)
class Terms:
    """What a stage may use: from its spec, and from the service's settings."""

    compute: Compute
    backoff: Backoff
    slots: int | None = None
    """Attempts that the cluster has room for at once; None: any number."""


def decide(experiment: Experiment, stage: Stage, seen: Observation, terms: Terms, now: datetime) -> Move | None:  # noqa: PLR0911  # rows of a table
    """The next move of `stage`; None: it is as it should be."""
    if stage.phase.terminal:
        return None
    if seen.committed:
        return Move(StagePhase.SUCCEEDED, StageReason.COMPLETED, result_key=seen.committed)
    if experiment.cancel_requested_at or stage.phase is StagePhase.CANCELLING:
        return _cancelled(stage, seen)
    if _is_overdue(stage, terms.compute, now):
        sentence = f"It was not done {terms.compute.deadline_seconds} s after its first launch, which is its deadline."
        return Move(StagePhase.FAILED, StageReason.DEADLINE_EXCEEDED, sentence, Effect.CANCEL)
    match stage.phase:
        case StagePhase.BLOCKED:
            return _blocked(experiment, stage, seen, terms)
        case StagePhase.LAUNCHING:
            return _launching(stage, seen)
        case StagePhase.QUEUED | StagePhase.RUNNING:
            return _upkeep(stage, seen, terms, _launched(stage, seen, terms, now))
        case _:
            return _backing_off(stage, seen, now)


def only_waits(experiment: Experiment, stage: Stage) -> bool:
    """Whether nothing but a change of the record itself can move `stage` on: nothing was launched for it, and what it needs is not over."""
    if stage.phase is not StagePhase.BLOCKED or stage.attempts or experiment.cancel_requested_at:
        return False
    needs = [need for name in stage.plan.needs if (need := experiment.stage(name))]
    return any(not need.phase.terminal for need in needs)


def _cancelled(stage: Stage, seen: Observation) -> Move:
    if stage.phase is StagePhase.CANCELLING or (stage.phase is StagePhase.BLOCKED and not seen.alive):
        if seen.alive:
            return Move(stage.phase, stage.reason, stage.message, Effect.CANCEL)
        return Move(StagePhase.CANCELLED, StageReason.CANCELLED_BY_USER, "It was cancelled.")
    return Move(StagePhase.CANCELLING, StageReason.CANCEL_REQUESTED, "It is being ended: somebody cancelled it.", Effect.CANCEL)


def _blocked(experiment: Experiment, stage: Stage, seen: Observation, terms: Terms) -> Move:
    needs = [need for name in stage.plan.needs if (need := experiment.stage(name))]
    lost = [need.name for need in needs if need.phase in (StagePhase.FAILED, StagePhase.CANCELLED)]
    waiting = [need.name for need in needs if not need.phase.terminal]
    if seen.alive:  # an attempt from before a person's retry
        return Move(stage.phase, stage.reason, stage.message, Effect.CANCEL)
    if lost:
        sentence = f"It needs {_listed(lost)}, which did not succeed."
        return Move(StagePhase.CANCELLED, StageReason.PREDECESSOR_FAILED, sentence)
    if waiting:
        return Move(stage.phase, stage.reason, f"It waits for {_listed(waiting)}.")
    if seen.stand_in:
        found = seen.stand_in
        return Move(StagePhase.SUCCEEDED, found.reason, found.message, result_key=found.result_key, digest=found.digest)
    if terms.slots and gives_way(experiment, stage, terms.slots):
        few = f"{terms.slots} attempts run" if terms.slots > 1 else "one attempt runs"
        sentence = f"It waits until {experiment.final_proxy.name} has found the weights: {few} at a time here, and the search goes first."
        return Move(stage.phase, stage.reason, sentence)
    return Move(StagePhase.LAUNCHING, StageReason.READY, f"Attempt {len(stage.attempts) + 1} is being started.", Effect.LAUNCH)


def _launching(stage: Stage, seen: Observation) -> Move | None:
    if seen.rejected:
        return Move(StagePhase.FAILED, StageReason.LAUNCH_REJECTED, seen.rejected)
    if seen.app.phase is AppPhase.ABSENT:
        return Move(stage.phase, StageReason.SUBMITTED, "It was handed to the cluster.", Effect.LAUNCH)
    if seen.app.phase is AppPhase.UNKNOWN:
        return None
    return Move(StagePhase.QUEUED, StageReason.ACCEPTED, seen.app.message if seen.alive else "")


def _launched(stage: Stage, seen: Observation, terms: Terms, now: datetime) -> Move | None:  # noqa: PLR0911  # rows of a table
    running = stage.phase is StagePhase.RUNNING
    needed = terms.compute.replicas.min
    match seen.app.phase:
        case AppPhase.PENDING | AppPhase.RUNNING if seen.app.crashes:
            return _ended(stage, seen, terms, *_why(seen), now)
        case AppPhase.PENDING if running:
            return Move(StagePhase.QUEUED, StageReason.PREEMPTED, seen.app.message or "It lost its machine, and waits for another.")
        case AppPhase.PENDING:
            return Move(stage.phase, stage.reason, seen.app.message or "It waits for a machine.")
        case AppPhase.RUNNING if not running and seen.app.workers_up >= needed:
            return Move(StagePhase.RUNNING, StageReason.STARTED)
        case AppPhase.RUNNING if not running:
            return Move(stage.phase, stage.reason, f"{seen.app.workers_up} of at least {needed} machines are up.")
        case AppPhase.RUNNING | AppPhase.UNKNOWN if running and _is_stalled(stage, seen, terms.compute, now):
            sentence = f"It has reported nothing for {terms.compute.stall_seconds} s, and is being ended."
            return _ended(stage, seen, terms, StageReason.STALLED, sentence, now)
        case AppPhase.RUNNING | AppPhase.UNKNOWN:
            return None
    return _ended(stage, seen, terms, *_why(seen), now)


def _upkeep(stage: Stage, seen: Observation, terms: Terms, move: Move | None) -> Move | None:
    """`move`, which may be none, and with it what keeps a living app as it should be, unless the move itself does something to it."""
    moved = move or Move(stage.phase, stage.reason, stage.message)
    if not seen.alive or moved.effect is not Effect.NONE or moved.phase not in (StagePhase.QUEUED, StagePhase.RUNNING):
        return move
    if seen.app.stranded:
        return replace(moved, effect=Effect.HEAL)
    wanted = stage.replicas or terms.compute.replicas.max
    if seen.app.replicas in (None, wanted) or seen.rejected:
        return move
    return replace(moved, effect=Effect.RESIZE, replicas=wanted)


def _why(seen: Observation) -> tuple[StageReason, str]:  # noqa: PLR0911  # rows of a table
    """Why an app ended that left no result, in one word and in one sentence."""
    app, failure = seen.app, seen.failure
    exit_code = failure.exit_code if failure else app.exit_code
    said = failure.message if failure else app.message
    if exit_code == ExitCode.BAD_CONFIG or (failure and not failure.retryable):
        return StageReason.WORKER_FAILED_PERMANENTLY, said or "Its program says that this can never work."
    if app.phase is AppPhase.ABSENT:
        return StageReason.APP_LOST, "Its app is gone from the cluster, and it left no result."
    if app.lost:
        return StageReason.NODE_LOST, app.message or "Its machine was lost."
    if app.phase is AppPhase.CANCELLED:
        return StageReason.PREEMPTED, "Its app was ended from outside."
    if exit_code == ExitCode.INTERRUPTED:
        return StageReason.INTERRUPTED, said or "It was asked to stop, and saved its state."
    if (failure and failure.code == "out_of_memory") or "OOMKilled" in app.message:
        return StageReason.OUT_OF_MEMORY, said
    if app.phase is AppPhase.SUCCEEDED and not failure:
        return StageReason.RESULT_MISSING, "Its program ended as if all were well, but left no result."
    return StageReason.WORKER_FAILED, said or "Its program failed without a word; its last log lines may tell."


def _ended(stage: Stage, seen: Observation, terms: Terms, reason: StageReason, said: str, now: datetime) -> Move:
    """The attempt is over (or, alive, is about to be): another one after a while, or none."""
    move = _followed(stage, terms, reason, said, now)
    failed = seen.failure.exit_code if seen.failure else seen.app.exit_code
    effect = Effect.CANCEL if seen.alive else Effect.NONE
    return replace(move, effect=effect, exit_code=failed, failed_replica=seen.app.failed_replica)


def _followed(stage: Stage, terms: Terms, reason: StageReason, said: str, now: datetime) -> Move:
    verdict = judge(stage, terms.compute, reason, terms.backoff)
    if verdict.after is not None:
        left = "" if reason in FREE else f", {verdict.left} {'retry' if verdict.left == 1 else 'retries'} left"
        sentence = f"{said} It is tried again in {_seconds(verdict.after)}{left}."
        return Move(StagePhase.BACKOFF, reason, sentence, not_before=now + verdict.after, free=reason in FREE)
    if reason in FOR_GOOD:
        return Move(StagePhase.FAILED, reason, said)
    sentence = f"{said} That was the last of {verdict.spent} {'attempt' if verdict.spent == 1 else 'attempts'}."
    return Move(StagePhase.FAILED, StageReason.ATTEMPTS_EXHAUSTED, sentence)


def _backing_off(stage: Stage, seen: Observation, now: datetime) -> Move | None:
    if seen.alive:
        return Move(stage.phase, stage.reason, stage.message, Effect.CANCEL, not_before=stage.not_before)
    if stage.not_before and now < stage.not_before:
        return None
    return Move(StagePhase.LAUNCHING, StageReason.RETRYING, f"Attempt {len(stage.attempts) + 1} is being started.", Effect.LAUNCH)


def _is_overdue(stage: Stage, compute: Compute, now: datetime) -> bool:
    if compute.deadline_seconds is None or stage.first_launched_at is None:
        return False
    return now - stage.first_launched_at > timedelta(seconds=compute.deadline_seconds)


def _is_stalled(stage: Stage, seen: Observation, compute: Compute, now: datetime) -> bool:
    """Silence from before it was given another machine does not count."""
    signs = [at for at in (seen.reported_at, stage.entered_at, stage.attempt and stage.attempt.started_at) if at]
    return bool(signs) and now - max(signs) > timedelta(seconds=compute.stall_seconds)


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _seconds(wait: timedelta) -> str:
    return f"{wait.total_seconds():.3g} s"
