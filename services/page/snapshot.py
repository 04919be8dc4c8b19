"""All that the page of one experiment shows, read at one moment; what is not there yet says why in a sentence."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from api.errors import BadRequest, NotReady, SolfaError
from api.experiment import Attempt, Experiment, ExperimentPhase, Stage
from api.results import Compared, EvaluationPoint
from api.stages import StageKind, StagePhase, StageReason
from api.views import ExperimentView, StageView, Weights
from services import weights as reading
from services.experiments import TERMINAL, stage_view
from services.histories import History
from services.inputs import spec_of
from services.results import result_of
from services.routes.context import Context
from services.store import Event

T = TypeVar("T")
EVENTS, LOG_LINES = 200, 200  # the newest that are shown


@dataclass(frozen=True)
class Missing:
    """In the place of what is not there."""

    why: str


@dataclass(frozen=True)
class Snapshot:
    at: datetime
    experiment: ExperimentView
    description: str
    stages: list[StageView]
    domains: list[str]
    """Canonical order."""
    history: History | Missing
    """Of the newest search stage."""
    others: list[History]
    """Of the search stages besides it that have begun, in the plan's order: earlier rounds, other objectives."""
    weights: Weights | Missing
    compared: Compared | Missing
    validation: dict[str, list[EvaluationPoint]]
    """By stage, oldest first; only stages that have evaluated."""
    events: list[Event]
    """Newest first."""
    spec: str
    logs: dict[str, list[str]]
    """By stage, the newest attempt's last lines; empty unless asked for."""

    @property
    def live(self) -> bool:
        return self.experiment.phase not in TERMINAL

    @property
    def can_retry(self) -> bool:
        return self.experiment.phase in (ExperimentPhase.FAILED, ExperimentPhase.CANCELLED)

    @property
    def can_cancel(self) -> bool:
        return self.live and self.experiment.cancel_requested_at is None


def snapshot(service: Context, record: Experiment, with_logs: bool) -> Snapshot:
    """Raises StoreUnavailable; what the bucket does not give is missing with its reason."""
    try:
        spec = spec_of(record)
        domains, description = sorted(spec.domains), spec.description or ""
    except SolfaError:  # of a version that this one does not read: the rest of its record can be shown
        domains, description = [], ""
    newest = reading.newest_proxy(record)
    others = [stage for stage in record.stages if stage.plan.kind is StageKind.PROXY and _has_begun(stage) and stage is not newest]
    history = _history(service, record, newest)
    stages = [_stage_view(service, record, stage) for stage in record.stages]
    return Snapshot(
        at=datetime.now(UTC),
        experiment=service.experiments.view(record),
        description=description,
        stages=stages,
        domains=domains or (history.domains if isinstance(history, History) else []),
        history=history,
        others=[found for found in (_history(service, record, stage) for stage in others) if isinstance(found, History)],
        weights=_or_why(lambda: reading.averaged(record, service.bucket)),
        compared=_or_why(lambda: reading.comparison(record, service.bucket)),
        validation=_validation(service, record, stages),
        events=_events(service, record),
        spec=record.spec_text,
        logs={stage.name: _log(service, record, stage.name, stage.attempt) for stage in record.stages if stage.attempt}
        if with_logs
        else {},
    )


def _has_begun(proxy: Stage) -> bool:
    """Itself: a round whose predecessor had converged never does."""
    return bool(proxy.attempts) or (proxy.phase is StagePhase.SUCCEEDED and proxy.reason is not StageReason.CONVERGED)


def _history(service: Context, record: Experiment, proxy: Stage) -> History | Missing:
    return _or_why(lambda: service.histories.read(record, proxy, service.experiments.report(record, proxy), service.bucket))


def _or_why(read: Callable[[], T]) -> T | Missing:
    try:
        return read()
    except (NotReady, BadRequest) as error:
        return Missing(error.message)
    except SolfaError as error:
        return Missing(f"This cannot be read at the moment: {error.message}")


def _stage_view(service: Context, record: Experiment, stage: Stage) -> StageView:
    found = _or_why(lambda: service.experiments.stage_view(record, stage))
    return stage_view(stage) if isinstance(found, Missing) else found


def _validation(service: Context, record: Experiment, stages: list[StageView]) -> dict[str, list[EvaluationPoint]]:
    found = {}
    for stage, view in zip(record.stages, stages, strict=True):
        if view.report:
            points: list[EvaluationPoint] | Missing = view.report.evaluations
        elif stage.phase is StagePhase.SUCCEEDED:
            points = _or_why(lambda stage=stage: _evaluations(service, record, stage))  # type: ignore[misc]  # a lambda's default has no type
        else:
            continue
        if points and not isinstance(points, Missing):
            found[stage.name] = points
    return found


def _evaluations(service: Context, record: Experiment, stage: Stage) -> list[EvaluationPoint]:
    trained = result_of(record, stage, service.bucket).trained
    return trained.evaluations if trained else []


def _events(service: Context, record: Experiment) -> list[Event]:
    """The newest of them: they are read from the oldest on, as the store has them."""
    found: list[Event] = []
    while some := service.store.events(record.id, found[-1].id if found else 0, 1000):
        found = [*found, *some][-EVENTS:]
    return found[::-1]


def _log(service: Context, record: Experiment, stage: str, attempt: Attempt) -> list[str]:
    lines = _or_why(lambda: service.logs.read(record.id, stage, attempt.number, attempt.app))
    return [lines.why] if isinstance(lines, Missing) else lines[-LOG_LINES:]
