"""Counts of records, from the database: read at most every few seconds, however often and by however many a service is scraped, and given
up after a deadline, so that a database that is away hides nothing else and holds up no scrape."""

import threading
import time
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.errors import SolfaError
from api.experiment import ExperimentPhase
from api.metrics import OF_SERVICE
from api.stages import StagePhase
from services.store import ExperimentStore

VERSION = "0.1.0"
MAX_AGE = 5.0  # seconds
DEADLINE = 2.0
Counts = dict[str, dict[str, int]]
# What there is none of is 0: a series that is not there cannot be told from a service that is not scraped.
KNOWN: Counts = {
    "experiments": dict.fromkeys([phase.value for phase in ExperimentPhase], 0),
    "stages": dict.fromkeys([phase.value for phase in StagePhase], 0),
    "attempts": {"live": 0},
}


def family(name: str) -> GaugeMetricFamily:
    """An empty one, as it was reviewed."""
    metric = OF_SERVICE[name]
    return GaugeMetricFamily(name, metric.help, labels=list(metric.labels))


class RecordsCollector(Collector):
    """A scrape waits for one reading, which a thread of its own makes."""

    def __init__(self, store: ExperimentStore, max_age: float = MAX_AGE, deadline: float = DEADLINE) -> None:
        self._store, self._max_age, self._deadline = store, max_age, deadline
        self._lock = threading.Lock()
        self._reading: threading.Event | None = None
        self._counts: Counts | None = None
        self._read_at = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """So that registering it reads nothing."""
        return []

    def collect(self) -> Iterable[Metric]:
        build, up = family("solfa_build_info"), family("solfa_store_up")
        build.add_metric([VERSION], 1)
        yield build
        counts = self._fresh()
        up.add_metric([], counts is not None)
        yield up
        for name, known in KNOWN.items():
            found = family(f"solfa_{name}")
            numbers = {**known, **counts.get(name, {})} if counts is not None else {}
            for value, number in sorted(numbers.items()):
                found.add_metric([value], number)
            yield found

    def _fresh(self) -> Counts | None:
        """None: the database does not answer, or not in time."""
        with self._lock:
            if time.monotonic() - self._read_at < self._max_age:
                return self._counts
            if self._reading is None:
                self._reading = threading.Event()
                threading.Thread(target=self._read, args=(self._reading,), name="counts", daemon=True).start()
            reading = self._reading
        return self._counts if reading.wait(self._deadline) else None

    def _read(self, done: threading.Event) -> None:
        counts = None
        try:
            counts = self._store.counts()
        except SolfaError:
            pass  # it is told as solfa_store_up 0
        finally:
            with self._lock:
                self._counts, self._read_at, self._reading = counts, time.monotonic(), None
            done.set()
