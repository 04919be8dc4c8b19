"""Rank 0's StageReport: progress and heartbeat, overwritten in the bucket every few seconds while the process lives."""

import logging
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from api import keys
from api.bucket import Bucket
from api.errors import SolfaError
from api.stage_config import StageConfig, StageReport
from trainer.world import World

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 2.0


class Reporter:
    """Keeps the newest report and writes it from a thread of its own, so that a slow bucket never slows a step.

    A context manager: leaving it writes the last report.
    """

    def __init__(self, config: StageConfig, bucket: Bucket, world: World) -> None:
        self._bucket, self._writes = bucket, world.is_first
        self._key = keys.attempt_report(config.experiment_id, config.plan.name, config.attempt)
        self._lock = threading.Lock()
        self._done = threading.Event()
        now = datetime.now(UTC)
        self._report = StageReport(
            attempt=config.attempt,
            updated_at=now,
            progressed_at=now,
            activity="starting",
            world_size=world.size,
            restarts=world.restarts,
        )
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def report(self) -> StageReport:
        """As it is now."""
        with self._lock:
            return self._report

    def progress(self, activity: str, step: int = 0, total: int = 0, unit: str = "steps", **fields: Any) -> None:
        """What is being done now; other fields of StageReport by name, kept until they are given anew."""
        with self._lock:
            now = datetime.now(UTC)
            changed = {"activity": activity, "step": step, "total": total, "unit": unit, "updated_at": now, "progressed_at": now, **fields}
            self._report = self._report.model_copy(update=changed)

    def moves(self) -> None:
        """What was last said takes long, but gets on."""
        with self._lock:
            self._report = self._report.model_copy(update={"progressed_at": datetime.now(UTC)})

    def __enter__(self) -> Self:
        if self._writes:
            self._count_on()
            self._write()
            self._thread.start()
        return self

    def _count_on(self) -> None:
        """An agent that itself starts again counts from 0: how often this attempt had begun before is in what it said last."""
        try:
            blob = self._bucket.find(self._key)
            before = StageReport.model_validate_json(blob.data).restarts if blob else None
        except (SolfaError, ValidationError) as error:
            log.warning("restarts are counted from here, because the report before cannot be read: %s", error)
            return
        if before is not None:
            self._report = self._report.model_copy(update={"restarts": max(self._report.restarts, before + 1)})

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        if self._writes:
            self._thread.join()

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            report = self._report.model_copy(update={"updated_at": datetime.now(UTC)})
        try:
            self._bucket.put(self._key, report.model_dump_json().encode())
        except SolfaError as error:  # progress is not worth a stage: the next beat tries again
            log.warning("the report was not written: %s", error)
