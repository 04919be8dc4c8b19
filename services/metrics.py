"""Every metric's name, help, unit and labels; counts of records are read from the store when scraped."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from api.errors import SolfaError
from services.reconciler import Pass
from services.store import ExperimentStore

VERSION = "0.1.0"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # anybody may send any word as a method
# Without it there are a third more series, of no use to anybody, whose names keep no convention.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it without types


class _Records(Collector):
    def __init__(self, store: ExperimentStore) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("solfa_build", "What is running.", value={"version": VERSION})
        up = GaugeMetricFamily("solfa_store_up", "Whether the database answered this scrape.")
        try:
            counts = self._store.counts()
        except SolfaError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        for name, help_text, label, key in (
            ("solfa_experiments", "Experiments by phase.", "phase", "experiments"),
            ("solfa_stages", "Stages by phase.", "phase", "stages"),
            ("solfa_attempts", "Attempts by the reason they ended for, or live.", "reason", "attempts"),
        ):
            family = GaugeMetricFamily(name, help_text, labels=[label])
            for value, number in sorted(counts[key].items()):
                family.add_metric([value], number)
            yield family


class Metrics:
    """One service's registry."""

    def __init__(self, store: ExperimentStore) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Records(store))
        self._passes = Counter("solfa_reconcile_passes", "Passes of the reconciler.", ["outcome"], registry=self.registry)
        self._moves = Counter("solfa_reconcile_moves", "Moves that the reconciler made.", registry=self.registry)
        self._pass_seconds = Histogram("solfa_reconcile_pass_duration_seconds", "Time of a pass.", registry=self.registry)
        self._requests = Histogram(
            "solfa_http_request_duration_seconds", "Time to answer a request.", ["method", "route", "status"], registry=self.registry
        )

    def saw_pass(self, done: Pass) -> None:
        self._passes.labels("failed" if done.failed else "done").inc()
        self._moves.inc(done.moves)
        self._pass_seconds.observe(done.seconds)

    def saw_request(self, labels: tuple[str, str, int], seconds: float) -> None:
        """`labels`: method, route template (never a path: names are unbounded), status."""
        method, route, status = labels
        self._requests.labels(method if method in METHODS else "other", route, str(status)).observe(seconds)
