"""Use cases on experiments: submit, look, cancel, retry, resize, delete. They record; the reconciler acts."""

import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from typing import Any

from api import keys
from api.access import DEFAULT_PROJECT, Scope
from api.bucket import Bucket
from api.errors import Conflict, Forbidden, InvalidRequest, NotFound, SolfaError, StaleVersion
from api.experiment import Experiment, ExperimentPhase, Stage, app_name
from api.plan import make_plan, stage_digests
from api.spec import ExperimentSpec, Replicas, parse_spec
from api.stage_config import StageConfig, StageReport
from api.stages import StagePhase, StageReason
from api.views import ExperimentList, ExperimentSummary, ExperimentView, FailureView, StageView, Validated
from services.access.changes import change_by
from services.access.principal import LOCAL, Principal
from services.failures import failure_of
from services.inputs import spec_of
from services.launch.cluster import Cluster, LaunchRequest
from services.logs import LogKeeper
from services.quotas import quota_guard
from services.settings import Settings
from services.sources import check_sources, fingerprints
from services.store import Change, ExperimentStore, Idempotent, Listed, NewEvent

ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
TERMINAL = (ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED, ExperimentPhase.CANCELLED)
TRIES = 20  # of a compare-and-swap that the reconciler, which writes often, may win


class Experiments:
    """What the routes ask for; every change is one guarded write of a record."""

    def __init__(self, settings: Settings, store: ExperimentStore, bucket: Bucket, cluster: Cluster, clock: Callable[[], datetime]) -> None:
        self._settings, self._store, self._bucket, self._cluster, self._clock = settings, store, bucket, cluster, clock
        self._logs = LogKeeper(cluster, bucket)
        self.on_change: Callable[[], None] = lambda: None
        """Called after a write, so that the reconciler looks at once."""
        self._by = LOCAL

    def of(self, principal: Principal) -> "Experiments":
        """The same, asked by `principal`: within what they may see."""
        bound = Experiments(self._settings, self._store.within(principal.project), self._bucket, self._cluster, self._clock)
        bound._by, bound.on_change = principal, self.on_change
        return bound

    def submit(self, text: str, idempotency_key: str | None = None) -> Experiment:
        """Store a new experiment. Raises SpecError with every problem, NameTaken, IdempotencyMismatch, Forbidden.

        A repetition is answered with what the first request made, whatever has become of the sources or the experiment since.
        """
        sha256 = _sha256(text)
        idempotent = Idempotent(_sha256(f"{self._by.own_project} {idempotency_key}"), sha256) if idempotency_key else None
        if idempotent and (made := self._store.repeated(idempotent)):
            return made
        self._check_project()
        spec = self._parsed(text)
        plan = make_plan(spec)
        digests = stage_digests(spec, plan, fingerprints(spec)) if self._settings.check_sources else {}
        experiment = Experiment(
            id="x" + "".join(secrets.choice(ID_LETTERS) for _ in range(10)),
            name=spec.name,
            project=self._by.own_project,
            spec_text=text,
            spec_sha256=sha256,
            created_at=self._clock(),
            stages=tuple(Stage(plan=planned, digest=digests.get(planned.name)) for planned in plan.stages),
        )
        return self._recorded(experiment, idempotent)

    def _check_project(self) -> None:
        """Raises Forbidden for a new project: who could begin any number would have the quota of all others as many times."""
        project = self._by.own_project
        known = project == DEFAULT_PROJECT or project in self._settings.quotas or self._by.scope is Scope.ADMIN
        if not known and not self._store.has_project(project):
            raise Forbidden(
                f"There is no project {project}, and only an administrator begins one: by a token of it "
                f"(`solfa token create NAME --project {project}`), or by an experiment."
            )

    def _recorded(self, experiment: Experiment, idempotent: Idempotent | None) -> Experiment:
        """The copy of the spec goes first: it counts for nothing without its record, where a record without it would be half of one."""
        copy = keys.spec(experiment.id)
        self._bucket.put(copy, experiment.spec_text.encode())
        try:
            stored = self._store.create(experiment, idempotent, self._clock(), self._told("submit", within=experiment))
        except SolfaError:
            with suppress(SolfaError):
                self._bucket.delete(copy)
            raise
        if stored.id != experiment.id:  # another request with this key was a moment earlier
            self._bucket.delete(copy)
        self.on_change()
        return stored

    def validate(self, text: str) -> Validated:
        """What a submission would make, down to the launch of each stage; nothing is stored."""
        spec = self._parsed(text)
        sha256, plan = _sha256(text), make_plan(spec)
        example = "x" + "0" * 10  # the id of an experiment that is not there
        launches: list[dict[str, Any]] = []
        for planned in plan.stages:
            config = StageConfig(
                experiment_id=example,
                spec=spec,
                spec_sha256=sha256,
                plan=planned,
                siblings=plan.stages,
                attempt=1,
                digest=None,
            )
            key = keys.attempt_config(example, planned.name, 1)
            request = LaunchRequest(app_name(example, planned.name, 1), key, config, project=self._by.own_project)
            launches.append(self._cluster.render(request))
        return Validated(name=spec.name, spec_sha256=sha256, plan=plan, launches=launches)

    def get(self, name_or_id: str) -> Experiment:
        """Raises NotFound, also for what the principal may not see."""
        found = self._store.get(name_or_id)
        if self._by.experiment_id not in (None, found.id):
            raise NotFound(f"There is no experiment {name_or_id}.")
        return found

    def page(self, limit: int, cursor: str | None, phase: ExperimentPhase | None, name_prefix: str | None) -> ExperimentList:
        page = self._store.page(limit, cursor, phase, name_prefix)
        return ExperimentList(experiments=[_summary(listed) for listed in page.experiments], next_cursor=page.next_cursor)

    def cancel(self, name_or_id: str, if_match: str | None = None) -> Experiment:
        """Ask for an experiment to end; a second time is harmless. Raises Conflict when it has ended."""

        def change(experiment: Experiment) -> Experiment:
            if experiment.cancel_requested_at:
                return experiment
            if experiment.phase in TERMINAL:
                raise Conflict(f"{experiment.name} has {experiment.phase}; there is nothing to cancel.")
            return experiment.model_copy(update={"cancel_requested_at": self._clock()})

        return self._change(name_or_id, change, NewEvent("cancel_requested"), if_match, "cancel")

    def retry(self, name_or_id: str, if_match: str | None = None) -> Experiment:
        """Give every failed or cancelled stage another try, keeping its attempts. Raises Conflict where none has ended so.

        Terminal phases have no way out by themselves: the stage starts over as a blocked one because a person asked for it.
        """

        def change(experiment: Experiment) -> Experiment:
            if experiment.phase not in (ExperimentPhase.FAILED, ExperimentPhase.CANCELLED):
                raise Conflict(f"{experiment.name} is {experiment.phase}; only one that failed or was cancelled can be retried.")
            stages = tuple(stage if stage.phase is StagePhase.SUCCEEDED else _again(stage, self._clock()) for stage in experiment.stages)
            return experiment.model_copy(update={"stages": stages, "cancel_requested_at": None})

        return self._change(name_or_id, change, NewEvent("retry_requested"), if_match, "retry")

    def resize(self, name_or_id: str, stage_name: str, replicas: int, if_match: str | None = None) -> Experiment:
        """Ask for a live stage to have so many machines, in this attempt and in later ones; a second time is harmless.

        Raises NotFound, InvalidRequest outside of the spec's range, Conflict where the stage has ended.
        """

        def change(experiment: Experiment) -> Experiment:
            stage = self._stage(experiment, stage_name)
            if stage.phase.terminal:
                raise Conflict(f"{stage_name} of {experiment.name} has {_ended_as(stage.phase)}; it has no machines any more.")
            _check_range(replicas, spec_of(experiment).compute_for(stage.plan.kind).replicas, stage_name)
            return experiment.with_stage(stage.model_copy(update={"replicas": replicas}))

        return self._change(name_or_id, change, NewEvent("resize_requested", stage_name, {"replicas": replicas}), if_match, "resize")

    def delete(self, name_or_id: str, if_match: str | None = None) -> None:
        """Remove a finished experiment and what it made, but for results that others adopted. Raises Conflict while it is live."""
        experiment = self._store.get(name_or_id)
        _check_version(experiment, if_match)
        if experiment.phase not in TERMINAL:
            first = "wait until it has ended" if experiment.phase is ExperimentPhase.CANCELLING else "cancel it first"
            raise Conflict(f"{experiment.name} is {experiment.phase}; {first}.")
        self._bucket.exists(keys.spec(experiment.id))  # a bucket that is away says so before the record is gone
        self._store.delete(experiment.id, experiment.version, self._told("delete"))  # a retry in between wins
        self._bucket.delete(keys.spec(experiment.id))
        for prefix in self._unused(experiment):
            self._bucket.delete_prefix(prefix)

    def _unused(self, deleted: Experiment) -> Iterator[str]:
        """Prefixes of stages that only the deleted record named: its own, and those it had adopted from experiments deleted earlier.

        The record is gone by now, so nothing starts to adopt its results while this looks who did.
        """
        adopted = self._store.adopters(deleted.id)
        for stage in deleted.stages:
            if keys.result(deleted.id, stage.name) not in adopted:
                yield keys.stage_prefix(deleted.id, stage.name)
        for key in {stage.result_key for stage in deleted.stages if stage.result_key}:
            donor, name = keys.owner(key)
            if donor != deleted.id and not self._exists(donor) and key not in self._store.adopters(donor):
                yield keys.stage_prefix(donor, name)

    def _exists(self, experiment_id: str) -> bool:
        try:
            return self._store.get(experiment_id).id == experiment_id
        except NotFound:
            return False

    def stage(self, name_or_id: str, stage_name: str) -> tuple[Experiment, Stage]:
        """Raises NotFound."""
        experiment = self._store.get(name_or_id)
        return experiment, self._stage(experiment, stage_name)

    def _stage(self, experiment: Experiment, stage_name: str) -> Stage:
        stage = experiment.stage(stage_name)
        if stage is None:
            names = ", ".join(one.name for one in experiment.stages)
            raise NotFound(f"{experiment.name} has no stage {stage_name}; it has {names}.")
        return stage

    def view(self, experiment: Experiment) -> ExperimentView:
        """The record as a reader wants it; without reports, so that nothing but its version changes it."""
        return ExperimentView(
            **experiment.model_dump(include={"id", "name", "project", "spec_sha256", "created_at", "cancel_requested_at", "version"}),
            phase=experiment.phase,
            stages=[stage_view(stage) for stage in experiment.stages],
        )

    def stage_view(self, experiment: Experiment, stage: Stage) -> StageView:
        """One stage with its newest attempt's report while it is live, and with how that ended where it failed."""
        return stage_view(stage, self.report(experiment, stage), failure_of(experiment, stage, self._bucket, self._logs))

    def report(self, experiment: Experiment, stage: Stage) -> StageReport | None:
        """What the newest attempt last said of itself; None before it said anything, and once the stage has ended."""
        if stage.attempt is None or stage.phase.terminal:
            return None
        blob = self._bucket.find(keys.attempt_report(experiment.id, stage.name, stage.attempt.number))
        return StageReport.model_validate_json(blob.data) if blob else None

    def _parsed(self, text: str) -> ExperimentSpec:
        spec = parse_spec(text)
        check_sources(spec, self._settings.check_sources, self._settings.reach)
        return spec

    def _told(self, action: str, event: NewEvent | None = None, within: Experiment | None = None) -> Change:
        """What the audit record is told; `within`: the record as it is to be, which is held to its project's quota."""
        details = {"stage": event.stage, **(event.data or {})} if event and event.stage else {}
        guard = quota_guard(within, self._settings.quotas) if within else None
        return change_by(self._by, action, self._clock(), details, guard)

    def _change(
        self, name_or_id: str, change: Callable[[Experiment], Experiment], event: NewEvent, if_match: str | None, action: str
    ) -> Experiment:
        for _ in range(TRIES):
            experiment = self._store.get(name_or_id)
            _check_version(experiment, if_match)
            changed = change(experiment)
            if changed == experiment:
                return experiment
            try:
                told = self._told(action, event, None if action == "cancel" else changed)
                stored = self._store.replace(changed, [event], self._clock(), change=told)
            except StaleVersion:
                if if_match is not None:
                    raise
                continue
            self.on_change()
            return stored
        raise StaleVersion(f"{name_or_id} changed {TRIES} times while it was being written; try again.")


def etag(experiment: Experiment) -> str:
    """The strong validator of the record as it is now: of no other experiment, though it has the same name and number."""
    return f'"{experiment.id}.{experiment.version}"'


def _check_version(experiment: Experiment, if_match: str | None) -> None:
    if if_match is not None and not {tag.strip() for tag in if_match.split(",")} & {"*", etag(experiment)}:
        raise StaleVersion(f"{experiment.name} is at version {etag(experiment)}, not {if_match}; read it again and decide anew.")


def _check_range(replicas: int, allowed: Replicas, stage_name: str) -> None:
    if not allowed.min <= replicas <= allowed.max:
        span = f"{allowed.min} to {allowed.max} machines" if allowed.max > allowed.min else f"{allowed.max} and no other number of machines"
        sentence = f"{stage_name} may have {span}, as its spec's compute says, not {replicas}"
        raise InvalidRequest(f"{sentence}.", problems=[{"pointer": "/replicas", "message": sentence}])


def _ended_as(phase: StagePhase) -> str:
    return "been cancelled" if phase is StagePhase.CANCELLED else str(phase)


def _again(stage: Stage, now: datetime) -> Stage:
    return stage.model_copy(
        update={
            "phase": StagePhase.BLOCKED,
            "entered_at": now,
            "reason": StageReason.RETRY_REQUESTED,
            "message": "Somebody asked for another try.",
            "not_before": None,
            "finished_at": None,
            "first_launched_at": None,
            "retries_granted": sum(not attempt.free for attempt in stage.attempts),  # what was spent is given back
        }
    )


def stage_view(stage: Stage, report: StageReport | None = None, failure: FailureView | None = None) -> StageView:
    """A stage as a reader wants it."""
    ours = ("name", "kind", "round", "needs", "attempts", "report", "failure")
    fields = [name for name in StageView.model_fields if name not in ours]
    return StageView(
        name=stage.name,
        kind=stage.plan.kind,
        round=stage.plan.round,
        needs=list(stage.plan.needs),
        attempts=list(stage.attempts),
        report=report,
        failure=failure,
        **{name: getattr(stage, name) for name in fields},
    )


def _summary(listed: Listed) -> ExperimentSummary:
    return ExperimentSummary(**{field.name: getattr(listed, field.name) for field in fields(listed)})


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
