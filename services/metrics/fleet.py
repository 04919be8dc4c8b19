"""What the leader sees of living experiments: kept from its passes, so that a scrape asks nobody."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.experiment import Experiment, Stage
from api.metrics import EXPERIMENTS
from api.stage_config import StageReport
from api.stages import StagePhase
from services.metrics.records import family

Place = tuple[str, str]
"""Experiment id and stage."""


class Restarted(StrEnum):
    """Why all processes of an attempt started again, as the number of them before and after tells."""

    FEWER = "machines_left"
    MORE = "machines_joined"
    SAME = "workers_replaced"


@dataclass(frozen=True)
class Seen:
    """What was last heard of an attempt's processes."""

    attempt: int
    restarts: int
    processes: int
    reported_at: datetime
    progressed_at: datetime


@dataclass(frozen=True)
class Standing:
    """How an experiment stands: what is asked of its record at each pass and scrape, worked out once for each record."""

    experiment: Experiment
    live: tuple[tuple[Stage, datetime], ...]
    """Stages that have not ended, and since when each is in its phase."""
    running: tuple[tuple[Stage, datetime], ...]
    """Of these, the ones that run."""
    oldest: Mapping[tuple[str, str], datetime]
    """By kind and phase, since when the one is in it that is so the longest."""

    @classmethod
    def of(cls, experiment: Experiment) -> "Standing":
        live = tuple((stage, entered(experiment, stage)) for stage in experiment.stages if not stage.phase.terminal)
        oldest: dict[tuple[str, str], datetime] = {}
        for stage, since in live:
            place = (stage.plan.kind.value, stage.phase.value)
            oldest[place] = min(since, oldest.get(place, since))
        return cls(experiment, live, tuple(one for one in live if one[0].phase is StagePhase.RUNNING), oldest)


class FleetCollector(Collector):
    """Told by the reconciler's thread, read by scrapes. `experiments` at most have series of their own: those of which a stage runs before
    those that only wait, the oldest first, so that one that has some keeps them; `dropped` is called once for each of the others."""

    def __init__(self, experiments: int, dropped: Callable[[], None], clock: Callable[[], datetime]) -> None:
        self._cap, self._dropped, self._clock = experiments, dropped, clock
        self._lock = threading.Lock()
        self._live: tuple[Standing, ...] = ()
        self._known: dict[str, Standing] = {}  # the same by id
        self._without: frozenset[str] = frozenset()
        self._counted: frozenset[str] = frozenset()  # of those that live: whoever leads again does not count them again
        self._reports: dict[Place, StageReport] = {}  # of those with series of their own
        self._seen: dict[Place, Seen] = {}  # of all that live

    def sees(self, live: Sequence[Experiment]) -> None:
        """Keep these, and forget what is no longer live."""
        known = {one.id: self._standing(one) for one in live}
        ordered = (*(one for one in known.values() if one.running), *(one for one in known.values() if not one.running))
        without = frozenset(one.experiment.id for one in ordered[self._cap :])
        running = {(one.experiment.id, stage.name) for one in ordered[: self._cap] for stage, _ in one.running}
        with self._lock:
            for _ in without - self._counted:
                self._dropped()
            self._live, self._known, self._without = ordered, known, without
            self._counted = (self._counted & known.keys()) | without
            self._reports = {place: report for place, report in self._reports.items() if place in running}
            self._seen = {place: last for place, last in self._seen.items() if place[0] in known}  # one that lost its machine comes back

    def _standing(self, experiment: Experiment) -> Standing:
        known = self._known.get(experiment.id)
        return known if known and known.experiment is experiment else Standing.of(experiment)  # the store hands out what has not changed

    def reported(self, experiment: Experiment, stage: Stage, report: StageReport) -> tuple[int, Restarted]:
        """Elastic restarts since the last report, and why. None of what was before the first report that this leader sees: whoever led then
        has counted it."""
        moved = report.progressed_at or report.updated_at
        now = Seen(report.attempt, report.restarts, report.world_size, report.updated_at, moved)
        with self._lock:
            last = self._seen.get((experiment.id, stage.name))
            self._seen[experiment.id, stage.name] = now
            if experiment.id not in self._without:
                self._reports[experiment.id, stage.name] = report
        if last is None:
            return 0, Restarted.SAME
        before = last.restarts if last.attempt == now.attempt else 0
        why = Restarted.FEWER if now.processes < last.processes else Restarted.MORE if now.processes > last.processes else Restarted.SAME
        return max(0, now.restarts - before), why

    def forget(self) -> None:
        """Another replica leads."""
        with self._lock:
            self._live, self._known, self._without = (), {}, frozenset()
            self._reports.clear()
            self._seen.clear()

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            live, reports, seen = self._live, dict(self._reports), dict(self._seen)
        now = self._clock()
        families = {metric.name: family(metric.name) for metric in EXPERIMENTS}
        longest = Longest()
        for one in live:
            for place, since in one.oldest.items():
                longest.add("phase", place, since)
            for stage, since in one.running:
                for name, at in _heard(stage, since, seen.get((one.experiment.id, stage.name))):
                    longest.add(name, (stage.plan.kind.value,), at)
        for one in live[: self._cap]:
            for stage, since in one.live:
                place = (one.experiment.id, stage.name)
                _add_stage(families, one.experiment, stage, _age(since, now))
                if report := reports.get(place):
                    _add_report(families, _labels(one.experiment, stage), report)
                if stage.phase is StagePhase.RUNNING:
                    for name, at in _heard(stage, since, seen.get(place)):
                        families[f"solfa_experiment_{name}_age_seconds"].add_metric([*_labels(one.experiment, stage)], _age(at, now))
        without = family("solfa_experiments_without_series")
        without.add_metric([], max(0, len(live) - self._cap))
        return [without, *longest.families(now), *families.values()]


class Longest:
    """Of all that live, with series of their own or without: what is oldest."""

    def __init__(self) -> None:
        self._times: dict[str, dict[tuple[str, ...], datetime]] = {"phase": {}, "report": {}, "progress": {}}

    def add(self, name: str, labels: tuple[str, ...], at: datetime) -> None:
        times = self._times[name]
        if labels not in times or at < times[labels]:
            times[labels] = at

    def families(self, now: datetime) -> Iterable[Metric]:
        for name, times in self._times.items():
            found = family(f"solfa_stage_{name}_age_seconds")
            for labels, at in sorted(times.items()):
                found.add_metric([*labels], _age(at, now))
            yield found


def _age(since: datetime, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds())


def _heard(stage: Stage, since: datetime, seen: Seen | None) -> tuple[tuple[str, datetime], tuple[str, datetime]]:
    """When the running attempt last reported and got on; when it began to run, where it has not yet."""
    if seen is None or stage.attempt is None or seen.attempt != stage.attempt.number:
        return ("report", since), ("progress", since)
    return ("report", max(since, seen.reported_at)), ("progress", max(since, seen.progressed_at))


def _labels(experiment: Experiment, stage: Stage) -> tuple[str, str, str]:
    return experiment.project, experiment.name, stage.name


def entered(experiment: Experiment, stage: Stage) -> datetime:
    """When a stage came to be in its phase, as far as its record tells."""
    attempt = stage.attempt
    return stage.entered_at or ((attempt.started_at or attempt.created_at) if attempt else experiment.created_at)


def _add_stage(families: Mapping[str, GaugeMetricFamily], experiment: Experiment, stage: Stage, age: float) -> None:
    place = _labels(experiment, stage)
    families["solfa_experiment_stage_phase_seconds"].add_metric([*place, stage.phase.value], age)
    families["solfa_experiment_attempts"].add_metric([*place], len(stage.attempts))


def _add_report(families: Mapping[str, GaugeMetricFamily], place: tuple[str, str, str], report: StageReport) -> None:
    """`place`: the experiment's project and name, and the stage's."""
    for name, value in (
        ("step", report.step if report.unit == "steps" else None),
        ("target_step", report.total if report.unit == "steps" else None),
        ("tokens_per_second", report.tokens_per_second),
        ("loss", report.loss),
        ("gradient_norm", report.gradient_norm),
        ("data_wait_ratio", report.data_wait_share),
        ("mfu_ratio", report.mfu),
        ("processes", report.world_size),
    ):
        if value is not None:
            families[f"solfa_experiment_{name}"].add_metric([*place], value)
    validated = report.evaluations[-1].evaluation.losses if report.evaluations else {}
    for name, values in (
        ("domain_weight_ratio", report.domain_weights.root if report.domain_weights else {}),
        ("averaged_weight_ratio", report.averaged_weights.root if report.averaged_weights else {}),
        ("reference_weight_ratio", report.reference_weights.root if report.reference_weights else {}),
        ("excess_loss", report.excess_losses),
        ("domain_loss", report.domain_losses),
        ("validation_loss", validated),
        ("epochs", report.epochs),
    ):
        for domain, number in values.items():
            families[f"solfa_experiment_{name}"].add_metric([*place, domain], number)
