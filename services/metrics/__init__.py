"""What is measured of one service: counters of its own work, and collectors of what the database and the reconciler know."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from api.bucket import Bucket
from api.experiment import Experiment, Stage
from api.metrics import OF_SERVICE
from api.stage_config import StageReport
from api.stages import StageKind, StagePhase, StageReason
from services.metrics.fleet import FleetCollector, Restarted, entered
from services.metrics.ports import BUCKET_OPERATIONS, STORE_OPERATIONS, timed
from services.metrics.records import VERSION, RecordsCollector
from services.retry import FOR_GOOD, FREE
from services.store import ExperimentStore
from services.watch import Pass, Watcher

__all__ = ["VERSION", "Metrics"]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # anybody may send any word as a method
SHORT = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60)  # seconds: of an operation
LAUNCH = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400)
LONG = (*LAUNCH, 3 * 86400, 7 * 86400)  # of a phase, of a search
ANSWER = (*Histogram.DEFAULT_BUCKETS[:-1], 30, 60, 120, 300)  # the longest that `?wait=` may ask for
PASS = (*Histogram.DEFAULT_BUCKETS[:-1], 20, 30, 60, 120, 300)  # past 120 nobody counts as leading
LEFT = [phase for phase in StagePhase if not phase.terminal]
RETRIED = (  # what an attempt that is followed by another one ended for
    *sorted(FREE),
    *(StageReason.WORKER_FAILED, StageReason.OUT_OF_MEMORY, StageReason.STALLED, StageReason.RESULT_MISSING),
)
ENTERED = {  # every way into a phase
    StagePhase.LAUNCHING: (StageReason.READY, StageReason.RETRYING),
    StagePhase.QUEUED: (StageReason.ACCEPTED, StageReason.PREEMPTED),
    StagePhase.RUNNING: (StageReason.STARTED,),
    StagePhase.BACKOFF: RETRIED,
    StagePhase.CANCELLING: (StageReason.CANCEL_REQUESTED,),
    StagePhase.SUCCEEDED: (StageReason.COMPLETED, StageReason.ADOPTED, StageReason.CONVERGED),
    StagePhase.FAILED: (*sorted(FOR_GOOD), StageReason.ATTEMPTS_EXHAUSTED),
    StagePhase.CANCELLED: (StageReason.CANCELLED_BY_USER, StageReason.PREDECESSOR_FAILED),
}
ENDED = (StageReason.COMPLETED, *RETRIED, *ENTERED[StagePhase.FAILED], StageReason.CANCELLED_BY_USER)  # for what an attempt is over
# Without it there are a third more series, of no use to anybody, whose names keep no convention.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it without types


def utc_now() -> datetime:
    return datetime.now(UTC)


class Metrics(Watcher):
    """One service's registry. `experiments`: how many of those that are live have series of their own."""

    def __init__(self, store: ExperimentStore, experiments: int = 50, clock: Callable[[], datetime] = utc_now) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._requests = self._histogram("solfa_http_request_duration_seconds", ANSWER)
        self._bucket = self._histogram("solfa_bucket_operation_duration_seconds", SHORT)
        self._bucket_errors = self._counter("solfa_bucket_errors_total")
        self._store = self._histogram("solfa_store_operation_duration_seconds", SHORT)
        self._store_errors = self._counter("solfa_store_errors_total")
        self._leader = self._gauge("solfa_leader")
        self._passes = self._counter("solfa_reconcile_passes_total")
        self._moves = self._counter("solfa_reconcile_moves_total")
        self._pass_seconds = self._histogram("solfa_reconcile_pass_duration_seconds", PASS)
        self._last_pass = self._gauge("solfa_reconcile_last_pass_timestamp_seconds")
        self._gauge("solfa_reconcile_lag_seconds").set_function(self._lag)
        self._failures = self._counter("solfa_reconcile_failures_total")
        self._transitions = self._counter("solfa_stage_transitions_total")
        self._phase_seconds = self._histogram("solfa_stage_phase_duration_seconds", LONG)
        self._ended = self._counter("solfa_attempts_ended_total")
        self._retries = self._counter("solfa_retries_total")
        self._restarts = self._counter("solfa_elastic_restarts_total")
        self._launches = self._histogram("solfa_launch_latency_seconds", LAUNCH)
        self._to_weights = self._histogram("solfa_submit_to_weights_seconds", LONG)
        self._fleet = FleetCollector(experiments, self._counter("solfa_experiments_dropped_total").inc, clock)
        self._begin_at_zero()
        self._led_at: datetime | None = None
        self._lock = threading.Lock()
        self.registry.register(RecordsCollector(store))
        self.registry.register(self._fleet)

    def _begin_at_zero(self) -> None:
        """What happens seldom has its series before it happens: of one that begins at 1 Prometheus sees no increase."""
        for kind in StageKind:
            self._launches.labels(kind)
            for why in Restarted:
                self._restarts.labels(kind, why)
            for phase in LEFT:
                self._phase_seconds.labels(kind, phase)
            for reason in RETRIED:
                self._retries.labels(kind, reason)
            for reason in ENDED:
                self._ended.labels(kind, reason)
            for phase, reasons in ENTERED.items():
                for reason in reasons:
                    self._transitions.labels(kind, phase, reason)

    def timed_store(self, store: ExperimentStore) -> ExperimentStore:
        """The same store, each operation of which is measured."""
        return timed(store, STORE_OPERATIONS, self._store, self._store_errors)

    def timed_bucket(self, bucket: Bucket) -> Bucket:
        """The same bucket, each operation of which is measured."""
        return timed(bucket, BUCKET_OPERATIONS, self._bucket, self._bucket_errors)

    def saw_request(self, labels: tuple[str, str, int], seconds: float) -> None:
        """`labels`: method, route template (never a path: names are unbounded), status."""
        method, route, status = labels
        self._requests.labels(method if method in METHODS else "other", route, str(status)).observe(seconds)

    def passed(self, done: Pass) -> None:
        self._passes.labels("failed" if done.failed else "done" if done.leads else "follows").inc()
        self._leader.set(done.leads)
        self._moves.inc(done.moves)
        self._pass_seconds.observe(done.seconds)
        now = self._clock()
        with self._lock:
            if not done.leads:
                self._led_at = None
            elif not done.failed or self._led_at is None:
                self._led_at = now
        if done.leads and not done.failed:
            self._last_pass.set(now.timestamp())
        if not done.leads:
            self._fleet.forget()

    def sees(self, live: Sequence[Experiment]) -> None:
        self._fleet.sees(live)

    def reported(self, experiment: Experiment, stage: Stage, report: StageReport) -> None:
        again, why = self._fleet.reported(experiment, stage, report)
        self._restarts.labels(stage.plan.kind, why).inc(again)

    def moved(self, before: Stage, after: Stage, experiment: Experiment) -> None:
        if after.phase is before.phase:
            return
        kind, now = after.plan.kind, self._clock()
        self._phase_seconds.labels(kind, before.phase).observe(max(0.0, (now - entered(experiment, before)).total_seconds()))
        self._transitions.labels(kind, after.phase, after.reason).inc()
        was, attempt = before.attempt, after.attempt
        if attempt and was and attempt.ended_at and not was.ended_at:
            self._ended.labels(kind, attempt.reason or after.reason).inc()
        if after.phase is StagePhase.BACKOFF:
            self._retries.labels(kind, after.reason).inc()
        if after.phase is StagePhase.RUNNING and before.phase is StagePhase.QUEUED and attempt and was and not was.started_at:
            self._launches.labels(kind).observe(max(0.0, (now - attempt.created_at).total_seconds()))
        if after.phase is StagePhase.SUCCEEDED and kind is StageKind.PROXY and _has_weights(experiment):
            self._to_weights.observe(max(0.0, (now - experiment.created_at).total_seconds()))

    def left(self, code: str) -> None:
        self._failures.labels(code).inc()

    def _lag(self) -> float:
        with self._lock:
            return (self._clock() - self._led_at).total_seconds() if self._led_at else 0.0

    def _counter(self, name: str) -> Counter:
        metric = OF_SERVICE[name]
        return Counter(name, metric.help, metric.labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        metric = OF_SERVICE[name]
        return Gauge(name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, name: str, buckets: Sequence[float]) -> Histogram:
        metric = OF_SERVICE[name]
        return Histogram(name, metric.help, metric.labels, registry=self.registry, buckets=buckets)


def _has_weights(experiment: Experiment) -> bool:
    """Whether the last round's answer is there."""
    return all(stage.phase is StagePhase.SUCCEEDED for stage in experiment.stages if stage.plan.kind is StageKind.PROXY)
