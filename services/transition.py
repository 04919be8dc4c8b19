"""A move, applied to the record: the only code that changes a stage's phase, and it refuses what the table does not allow. Pure."""

import hashlib
from datetime import datetime
from typing import Any

from api.experiment import Attempt, Experiment, Stage, app_name
from api.stages import StagePhase, StageReason, is_legal
from services.decide import Move
from services.store.port import NewEvent


def apply(experiment: Experiment, stage: Stage, move: Move, now: datetime) -> Experiment:
    """The record after `move`. Raises ValueError for a transition that is not legal."""
    if not is_legal(stage.phase, move.phase):
        raise ValueError(f"{stage.name} may not go from {stage.phase} to {move.phase}")
    changed: dict[str, Any] = {"phase": move.phase, "reason": move.reason, "message": move.message, "not_before": move.not_before}
    if move.phase is not stage.phase:
        changed |= {"entered_at": now, **_entering(experiment, stage, move, now)}
    after = experiment.with_stage(stage.model_copy(update=changed))
    return _with_settled_digests(after, stage, move.digest) if move.reason is StageReason.CONVERGED else after


def is_change(stage: Stage, move: Move) -> bool:
    """Whether `apply` would make another record of it: most moves of most passes only say once more what the record says."""
    said = (stage.phase, stage.reason, stage.message, stage.not_before)
    return said != (move.phase, move.reason, move.message, move.not_before)


def _entering(experiment: Experiment, stage: Stage, move: Move, now: datetime) -> dict[str, Any]:
    """What a stage's record gains when it enters a phase."""
    match move.phase:
        case StagePhase.LAUNCHING:
            number = len(stage.attempts) + 1
            attempt = Attempt(number=number, app=app_name(experiment.id, stage.name, number), created_at=now)
            return {"attempts": (*stage.attempts, attempt), "first_launched_at": stage.first_launched_at or now}
        case StagePhase.QUEUED if stage.phase is StagePhase.LAUNCHING:
            return {"attempts": _newest(stage, launched_at=now)}
        case StagePhase.RUNNING:
            return {"attempts": _newest(stage, started_at=now)}
    changed: dict[str, Any] = {"result_key": move.result_key}
    ended: dict[str, Any] = {"ended_at": now, "reason": move.reason, "message": move.message, "free": move.free}
    ended |= {"exit_code": move.exit_code, "failed_replica": move.failed_replica}
    if move.phase is StagePhase.SUCCEEDED and move.reason is StageReason.COMPLETED:
        ended["launched_at"] = now  # where it was faster than our looks at it
    if move.phase.terminal:
        changed["finished_at"] = now
    if move.phase.terminal or move.phase is StagePhase.BACKOFF:
        changed["attempts"] = _newest(stage, **ended)
    return changed


def _newest(stage: Stage, **changed: Any) -> tuple[Attempt, ...]:
    """The attempts with the newest one changed: what it says of a time already, it keeps."""
    if not stage.attempt or stage.attempt.ended_at:
        return stage.attempts
    kept = {name: value for name, value in changed.items() if not name.endswith("_at") or getattr(stage.attempt, name) is None}
    return (*stage.attempts[:-1], stage.attempt.model_copy(update=kept))


def _with_settled_digests(experiment: Experiment, stage: Stage, digest: str | None) -> Experiment:
    """A converged stage holds an earlier round's result, so it takes that one's digest; and what is made from it is no longer what a
    full iteration would have made, so each stage downstream gets a new digest: the same wherever the same search converges alike.
    """
    names = {stage.name}
    stages = []
    for other in experiment.stages:  # in plan order: each after all that it needs
        if other.name == stage.name:
            stages.append(other.model_copy(update={"digest": digest}))
        elif names.intersection(other.plan.needs) and not other.phase.terminal:
            names.add(other.name)
            derived = hashlib.sha256(f"{other.digest}:{digest}".encode()).hexdigest() if other.digest and digest else None
            stages.append(other.model_copy(update={"digest": derived}))
        else:
            stages.append(other)
    return experiment.model_copy(update={"stages": tuple(stages)})


def events(before: Experiment, after: Experiment, name: str) -> list[NewEvent]:
    """What is told of a change of stage `name`."""
    old, new = before.stage(name), after.stage(name)
    told = []
    if old and new and old.phase is not new.phase:
        number = new.attempt.number if new.attempt else None
        data = {"from": old.phase, "to": new.phase, "reason": new.reason, "message": new.message, "attempt": number}
        told.append(NewEvent("stage_changed", name, data))
        if old.attempt and new.attempt and new.attempt.launched_at and not old.attempt.launched_at:
            told.append(NewEvent("attempt_launched", name, {"attempt": number, "app": new.attempt.app}))
    if all(stage.phase.terminal for stage in after.stages):
        told.append(NewEvent("experiment_finished", data={"phase": after.phase}))
    return told
