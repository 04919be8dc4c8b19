"""Looking: what the cluster, the bucket and the store say of one stage, as an Observation."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from api import keys
from api.bucket import Bucket
from api.experiment import Experiment, Stage
from api.results import StageResult
from api.stage_config import AttemptFailure, StageReport
from api.stages import StageKind, StagePhase, StageReason
from services.inputs import rules_of
from services.launch.cluster import AppPhase, AppStatus
from services.observation import Observation, StandIn
from services.store import ExperimentStore

Message = TypeVar("Message", bound=BaseModel)
logger = logging.getLogger(__name__)

ABSENT = AppStatus(AppPhase.ABSENT)
ENDED = frozenset({AppPhase.SUCCEEDED, AppPhase.FAILED, AppPhase.CANCELLED, AppPhase.ABSENT})


class Observer:
    """Reads, and changes nothing. Of apps it knows what it was told as the pass began."""

    def __init__(self, store: ExperimentStore, bucket: Bucket) -> None:
        self._store = store
        self._bucket = bucket
        self._apps: Mapping[str, AppStatus] = {}
        self._deltas: dict[str, float | None] = {}  # by result key: a manifest never changes
        self._heard: dict[str, datetime] = {}  # by app: when it reported last, as far as a look has seen

    def glance(self, stage: Stage) -> Observation | None:
        """The app alone: enough to tell that there is nothing to do, too little to do anything. None: it takes a look."""
        attempt = stage.attempt
        if attempt is None or (stage.phase is StagePhase.RUNNING and attempt.app not in self._heard):
            return None
        app = self._apps.get(attempt.app, ABSENT)
        over = app.phase in ENDED or app.crashes
        return None if over and stage.phase is not StagePhase.BACKOFF else Observation(app, reported_at=self._heard.get(attempt.app))

    def begin(self, apps: Mapping[str, AppStatus]) -> None:
        """A pass begins: what the cluster says of all apps, and nothing is kept of any other."""
        self._apps = apps
        self._heard = {app: at for app, at in self._heard.items() if app in apps}

    def look(self, experiment: Experiment, stage: Stage) -> Observation:
        """What is to be known about `stage` in its phase. Raises BucketError, StoreError."""
        attempt = stage.attempt
        if attempt is None:
            return Observation(stand_in=self._stand_in(experiment, stage))
        app = self._apps.get(attempt.app, ABSENT)  # as of before all that follows: what an ended one had committed is there to be seen
        key = keys.result(experiment.id, stage.name)
        committed = self._bucket.exists(key)
        report = self._report(experiment, stage, attempt.number) if stage.phase is StagePhase.RUNNING else None
        if committed:
            return Observation(app, committed=key, report=report)  # what it last said, such as a restart, is heard though it is done
        over = app.phase in ENDED or app.crashes
        failure = self._failure(experiment, stage, attempt.number) if over else None
        reported_at = report.updated_at if report else None
        if reported_at:
            self._heard[attempt.app] = reported_at
        return Observation(app, failure=failure, reported_at=reported_at, report=report, stand_in=self._stand_in(experiment, stage))

    def _failure(self, experiment: Experiment, stage: Stage, attempt: int) -> AttemptFailure | None:
        return self._read(keys.attempt_failure(experiment.id, stage.name, attempt), AttemptFailure)

    def _report(self, experiment: Experiment, stage: Stage, attempt: int) -> StageReport | None:
        return self._read(keys.attempt_report(experiment.id, stage.name, attempt), StageReport)

    def _stand_in(self, experiment: Experiment, stage: Stage) -> StandIn | None:
        """A result that serves a blocked stage, once all that it needs is there."""
        if stage.phase is not StagePhase.BLOCKED or not self._is_ready(experiment, stage):
            return None
        return self._converged(experiment, stage) or self._adopted(experiment, stage)

    def _is_ready(self, experiment: Experiment, stage: Stage) -> bool:
        needs = [experiment.stage(name) for name in stage.plan.needs]
        return all(need is not None and need.phase is StagePhase.SUCCEEDED for need in needs)

    def _converged(self, experiment: Experiment, stage: Stage) -> StandIn | None:
        """Iterated DoReMi has met its tolerance: the round before has the answer, and its reference."""
        if stage.plan.round == 1 or stage.plan.kind not in (StageKind.REFERENCE, StageKind.PROXY):
            return None
        before = experiment.stage(f"{StageKind.PROXY}-{stage.plan.round - 1}")
        same = experiment.stage(f"{stage.plan.kind}-{stage.plan.round - 1}")
        if before is None or same is None or before.result_key is None or same.result_key is None:
            return None
        delta, tolerance = self._delta(before.result_key), rules_of(experiment).tolerance
        if delta is None or delta >= tolerance:
            return None
        sentence = (
            f"{before.name} moved the weights by {delta:.2g}, less than the tolerance of {tolerance:.2g}: {same.name}'s result stands."
        )
        return StandIn(same.result_key, StageReason.CONVERGED, sentence, same.digest)

    def _delta(self, result_key: str) -> float | None:
        if result_key not in self._deltas:
            result = self._read(result_key, StageResult)
            self._deltas[result_key] = result.searched.delta if result and result.searched else None
        return self._deltas[result_key]

    def _adopted(self, experiment: Experiment, stage: Stage) -> StandIn | None:
        if stage.digest is None or rules_of(experiment).adopt == "never":
            return None
        found = self._store.within(experiment.project).find_result(stage.digest)
        if found is None or not self._bucket.exists(found[1]):
            return None
        donor, key = found
        where = "this experiment" if donor == experiment.id else f"experiment {donor}"
        sentence = f"Taken over from {key.split('/')[-2]} of {where}: same inputs."
        return StandIn(key, StageReason.ADOPTED, sentence, stage.digest)

    def _read(self, key: str, model: type[Message]) -> Message | None:
        """None where there is no object, or one that this version cannot read."""
        blob = self._bucket.find(key)
        try:
            return model.model_validate_json(blob.data) if blob else None
        except ValidationError:
            logger.warning("%s is no %s that this version can read", key, model.__name__)
            return None
