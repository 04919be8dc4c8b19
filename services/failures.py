"""How a failed stage ended, from what outlives its processes: the record, the failure that it wrote down, and the log that was kept."""

import re

from pydantic import ValidationError

from api import keys
from api.bucket import Bucket
from api.experiment import Experiment, Stage
from api.stage_config import AttemptFailure
from api.stages import StagePhase
from api.views import FailureView
from services.logs import LogKeeper

SHOWN = 20  # lines
_LAUNCHER = re.compile(r"(\[\d+\] )?[IWEF]\d{4} [\d:.]+ .*torch/distributed/")  # a line of torchrun's own, of no process of ours
_LAUNCHER_FAILED = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError"
_TRACEBACK = "Traceback (most recent call last):"


def failure_of(experiment: Experiment, stage: Stage, bucket: Bucket, logs: LogKeeper) -> FailureView | None:
    """Of the newest attempt; None for a stage that has not failed, or never began."""
    attempt = stage.attempt
    if stage.phase is not StagePhase.FAILED or attempt is None:
        return None
    told = _told(experiment, stage, attempt.number, bucket)
    lines = told.tail if told else []
    if not lines:
        lines = own_lines(_of_replica(logs.kept(experiment.id, stage.name, attempt.number), attempt.failed_replica))
    return FailureView(
        attempt=attempt.number,
        exit_code=told.exit_code if told else attempt.exit_code,
        rank=told.rank if told else None,
        replica=attempt.failed_replica,
        last_lines=lines[-SHOWN:],
    )


def own_lines(lines: list[str]) -> list[str]:
    """Those of our processes alone: without torchrun's remarks, and its traceback and table of errors at the end. All, if none is left."""
    end = next((place for place, line in enumerate(lines) if _LAUNCHER_FAILED in line), len(lines))
    if end < len(lines):
        end = next((place for place in range(end, -1, -1) if _TRACEBACK in lines[place]), end)
    return [line for line in lines[:end] if not _LAUNCHER.match(line)] or lines


def _told(experiment: Experiment, stage: Stage, attempt: int, bucket: Bucket) -> AttemptFailure | None:
    """What the attempt itself said; None where it could not, or in words of another version."""
    blob = bucket.find(keys.attempt_failure(experiment.id, stage.name, attempt))
    try:
        return AttemptFailure.model_validate_json(blob.data) if blob else None
    except ValidationError:
        return None


def _of_replica(lines: list[str], replica: int | None) -> list[str]:
    """Those of the machine that failed, where it is known and said anything."""
    return [line for line in lines if line.startswith(f"[{replica}] ")] or lines
