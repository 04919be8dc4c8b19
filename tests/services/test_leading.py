"""Who leads: a reconciler that cannot renew its lease leads no longer once that is over, whatever it did last."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

from obstore.store import MemoryStore

from api.bucket import Bucket
from api.errors import StoreUnavailable
from services.launch.cluster import AppPhase, AppStatus, LaunchRequest
from services.metrics import Metrics
from services.reconciler import Pace, Reconciler
from services.store import open_store
from services.watch import Pass, Watcher
from tests.builders import START, make_experiment


class Full:
    """A cluster on which whatever is launched waits."""

    slots: int | None = None

    def __init__(self) -> None:
        self._waiting: dict[str, AppStatus] = {}

    def look(self) -> dict[str, AppStatus]:
        return dict(self._waiting)

    def launch(self, request: LaunchRequest) -> None:
        self._waiting[request.app] = AppStatus(AppPhase.PENDING)


class Store:
    """Another one's, until it is away."""

    def __init__(self, store: Any) -> None:
        self._store, self.away = store, False

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise StoreUnavailable("It is away.")
        return getattr(self._store, name)


class Passes(Watcher):
    """Three seconds each; after the first the database is away, until after the fourth."""

    def __init__(self, store: Store) -> None:
        self.store, self.now, self.stop = store, START, threading.Event()
        self.metrics = Metrics(store, clock=lambda: self.now)  # type: ignore[arg-type]  # it is one, in all that is asked of it
        self.seen: list[tuple[float | None, bool]] = []

    def passed(self, done: Pass) -> None:
        self.metrics.passed(done)
        value = self.metrics.registry.get_sample_value
        told = value("solfa_stage_phase_age_seconds", {"kind": "proxy", "phase": "blocked"}) is not None
        self.seen.append((value("solfa_leader"), told))
        self.now += timedelta(seconds=3)
        self.store.away = 1 <= len(self.seen) < 4
        if len(self.seen) == 5:
            self.stop.set()

    def sees(self, live: Any) -> None:
        self.metrics.sees(live)


def test_one_that_is_cut_off_from_the_database_leads_until_its_lease_is_over(tmp_path: Path) -> None:
    inner = open_store(f"sqlite:///{tmp_path}/solfa.db")
    inner.create(make_experiment(), None, START)
    passes = Passes(Store(inner))
    pace = Pace(interval=0.001, longest=0.001, lease=5)
    cluster: Any = Full()
    Reconciler(passes.store, cluster, Bucket(MemoryStore(), "memory://"), lambda: passes.now, pace, passes).run(passes.stop)  # type: ignore[arg-type]  # as above
    assert passes.seen == [(1, True), (1, True), (0, False), (0, False), (1, True)]
    inner.close()
