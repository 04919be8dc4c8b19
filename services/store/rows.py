"""Records to rows and back: the one place that computes what the index columns hold.

What a record does not know is left out of its JSON: an older version, which knows fewer fields, can then read it after a rollback.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row

from api.experiment import Attempt, Experiment, Stage

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


def from_micros(value: int) -> datetime:
    return EPOCH + value * MICROSECOND


def experiment_row(experiment: Experiment) -> dict[str, Any]:
    return {
        "id": experiment.id,
        "name": experiment.name,
        "project": experiment.project,
        "created_at": to_micros(experiment.created_at),
        "spec_sha256": experiment.spec_sha256,
        "spec_text": experiment.spec_text,
        **changing_columns(experiment),
    }


def changing_columns(experiment: Experiment) -> dict[str, Any]:
    """Of `experiment_row`, all that a change can change."""
    return {
        "phase": experiment.phase.value,
        "version": experiment.version,
        "cancel_requested_at": to_micros(experiment.cancel_requested_at) if experiment.cancel_requested_at else None,
    }


def stage_rows(experiment: Experiment) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By (stage name,). The attempts are rows of their own."""
    return {
        (stage.name,): {
            "experiment_id": experiment.id,
            "position": position,
            "name": stage.name,
            "phase": stage.phase.value,
            "digest": stage.digest,
            "result_key": stage.result_key,
            "record": stage.model_dump_json(exclude={"attempts"}, exclude_none=True),
        }
        for position, stage in enumerate(experiment.stages)
    }


def attempt_rows(experiment: Experiment) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By (stage name, number)."""
    return {
        (stage.name, attempt.number): {
            "experiment_id": experiment.id,
            "stage": stage.name,
            "number": attempt.number,
            "reason": attempt.reason.value if attempt.reason else None,
            "record": attempt.model_dump_json(exclude_none=True),
        }
        for stage in experiment.stages
        for attempt in stage.attempts
    }


def to_experiment(row: Row[Any], stage_records: Iterable[str], attempt_records: Iterable[tuple[str, str]]) -> Experiment:
    """The record: `stage_records` in plan order, `attempt_records` (stage, record) by number."""
    attempts: dict[str, list[Attempt]] = {}
    for stage_name, record in attempt_records:
        attempts.setdefault(stage_name, []).append(Attempt.model_validate_json(record))
    stages = [Stage.model_validate_json(record) for record in stage_records]
    return Experiment(
        id=row.id,
        name=row.name,
        project=row.project,
        spec_text=row.spec_text,
        spec_sha256=row.spec_sha256,
        created_at=from_micros(row.created_at),
        cancel_requested_at=None if row.cancel_requested_at is None else from_micros(row.cancel_requested_at),
        version=row.version,
        stages=tuple(
            stage.model_copy(update={"attempts": tuple(attempts[stage.name])}) if stage.name in attempts else stage for stage in stages
        ),
    )
