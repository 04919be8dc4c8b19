"""Tidying: apps that no live stage needs are ended, their logs kept before, and what they left removed. Safe to cut short and to repeat."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from api import keys
from api.bucket import Bucket
from api.errors import NotFound, SolfaError
from api.experiment import Experiment, Stage
from api.results import StageResult
from api.stages import StagePhase
from services.launch.cluster import AppPhase, AppStatus, Cluster
from services.logs import LogKeeper
from services.observation import ALIVE
from services.store import ExperimentStore

logger = logging.getLogger(__name__)

APP = re.compile(r"(x[a-z2-7]{10})-([a-z0-9-]+)-([0-9]+)")  # api.experiment.app_name, read backwards
LINGER = timedelta(seconds=20)  # for a program to end by itself after it has published its result


@dataclass(frozen=True)
class Left:
    """An app and the record it belonged to; `stage` is None when the record is gone."""

    app: str
    experiment_id: str
    stage_name: str
    attempt: int
    stage: Stage | None


class Tidier:
    """Ends and removes the apps of attempts that are over, and keeps their logs in the bucket."""

    def __init__(self, store: ExperimentStore, cluster: Cluster, bucket: Bucket, keeper: LogKeeper) -> None:
        self._store, self._cluster, self._bucket, self._keeper = store, cluster, bucket, keeper
        self._needed: dict[str, tuple[Experiment, frozenset[str]]] = {}  # by id, as the last pass found it of each record

    def tidy(self, apps: Mapping[str, AppStatus], live: Sequence[Experiment], now: datetime) -> int:
        """Look at `apps`, which were looked at before `live` was loaded. Returns how many were ended or removed."""
        needed = self._needed_by(live)
        loaded = {experiment.id: experiment for experiment in live}
        done = 0
        for app, status in apps.items():
            if app in needed:
                continue
            try:
                left = self._whose(app, loaded)
                done += self._end(left, status, now) if left else 0
            except SolfaError as error:
                logger.warning("app %s is left for the next pass: %s", app, error.message)
        return done

    def _needed_by(self, live: Sequence[Experiment]) -> frozenset[str]:
        """Apps that are still to be looked at by `decide`; of a record that has not changed, what was found before."""
        kept = self._needed
        self._needed = {
            one.id: kept[one.id] if one.id in kept and kept[one.id][0] is one else (one, frozenset(_needed(one))) for one in live
        }
        return frozenset().union(*(apps for _, apps in self._needed.values()))

    def _whose(self, app: str, loaded: dict[str, Experiment]) -> Left | None:
        """None for an app whose name is none of ours."""
        match = APP.fullmatch(app)
        if match is None:
            return None
        experiment_id, stage_name, attempt = match[1], match[2], int(match[3])
        try:
            experiment = loaded.get(experiment_id) or self._store.get(experiment_id)
        except NotFound:
            return Left(app, experiment_id, stage_name, attempt, None)
        return Left(app, experiment_id, stage_name, attempt, experiment.stage(stage_name))

    def _end(self, left: Left, status: AppStatus, now: datetime) -> int:
        """Cancel an app that is alive, remove one that is not: the removal last, so that all before it is repeated until it is done."""
        alive = status.phase in ALIVE
        stays = alive and (status.phase is AppPhase.UNKNOWN or _may_linger(left, now))
        if left.stage is not None and (status.ending or not stays):
            self._keeper.keep(left.experiment_id, left.stage_name, left.attempt, left.app)
        if stays:
            return 0
        if alive:
            self._cluster.cancel(left.app)
            return int(not status.ending)  # one that is ending is waited for
        if left.stage is not None and left.stage.phase is StagePhase.SUCCEEDED:
            self._remove_leftovers(left.experiment_id, left.stage)
        self._cluster.remove(left.app)
        return 1

    def _remove_leftovers(self, experiment_id: str, stage: Stage) -> None:
        """Train states, scratch, and what attempts made that the result does not name. A stage that failed keeps all, for a retry."""
        blob = self._bucket.find(keys.result(experiment_id, stage.name))
        if blob is None:
            return
        try:
            result = StageResult.model_validate_json(blob.data)
        except ValidationError:
            return  # another version wrote it: better too much is kept than too little
        self._bucket.delete_prefix(keys.scratch_prefix(experiment_id, stage.name))
        self._bucket.delete_prefix(keys.latest_state(experiment_id, stage.name).removesuffix("latest.json"))
        for attempt in stage.attempts:
            made = keys.output_prefix(experiment_id, stage.name, attempt.number)
            if attempt.number != result.attempt and not any(path.startswith(made) for path in result.files.values()):
                self._bucket.delete_prefix(made)


def _needed(experiment: Experiment) -> Iterator[str]:
    """The newest attempt's app of each stage that still moves."""
    for stage in experiment.stages:
        if stage.attempt and not stage.phase.terminal and stage.phase is not StagePhase.BLOCKED:
            yield stage.attempt.app


def _may_linger(left: Left, now: datetime) -> bool:
    stage = left.stage
    succeeded = stage is not None and stage.phase is StagePhase.SUCCEEDED
    return succeeded and stage is not None and stage.finished_at is not None and now - stage.finished_at < LINGER
