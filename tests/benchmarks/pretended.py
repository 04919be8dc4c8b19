"""`python -m tests.benchmarks.pretended [SECONDS LOOKS]`: the service, wired as always, over a cluster that is nothing but memory.

SECONDS: what its bucket takes to answer, as one does that is elsewhere; LOOKS: how many looks the reconciler has on their way then.

Its apps wait or run as their records say; each that runs loses its machine for a while every few minutes, so that a reconciler has real
moves to make all the time. What a trainer would write into the bucket, the bench writes.
"""

import logging
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from api.bucket import Bucket, open_bucket
from api.stages import StagePhase
from services.launch.cluster import AppPhase, AppStatus, LaunchRequest
from services.reconciler import Pace
from services.server import Service
from services.settings import Settings
from services.store import open_store
from tests.benchmarks.records import WAITS

PERIOD, AWAY = 200.0, 5.0  # seconds: each running app is without a machine for AWAY of them
PENDING = AppStatus(AppPhase.PENDING, message=WAITS)
STATUS = {
    "pending": PENDING,
    "running": AppStatus(AppPhase.RUNNING, workers_up=1),
    "cancelled": AppStatus(AppPhase.CANCELLED),
}
ABSENT = AppStatus(AppPhase.ABSENT)


class MemoryCluster:
    """Apps by name, each pending, running or cancelled."""

    slots: int | None = None

    def __init__(self, apps: dict[str, str]) -> None:
        self._apps = apps

    def launch(self, request: LaunchRequest) -> None:
        self._apps.setdefault(request.app, "pending")

    def render(self, request: LaunchRequest) -> dict[str, Any]:
        return {"app": request.app, "config": request.config.model_dump(mode="json")}

    def status(self, app: str) -> AppStatus:
        found = self._apps.get(app)
        if found == "running" and (time.monotonic() + zlib.crc32(app.encode()) % int(PERIOD)) % PERIOD < AWAY:
            return PENDING
        return STATUS[found] if found else ABSENT

    def heal(self, app: str) -> None: ...

    def resize(self, app: str, replicas: int) -> None: ...

    def cancel(self, app: str) -> None:
        if app in self._apps:
            self._apps[app] = "cancelled"

    def remove(self, app: str) -> None:
        self._apps.pop(app, None)

    def look(self) -> dict[str, AppStatus]:
        return {app: self.status(app) for app in self._apps}

    def logs(self, app: str, tail: int | None = None) -> list[str]:
        return []

    def follow(self, app: str) -> Iterator[str | None]:
        return iter(())

    def close(self) -> None: ...


class Distant(Bucket):
    """A bucket each of whose answers takes `seconds`."""

    def __init__(self, near: Bucket, seconds: float) -> None:
        super().__init__(near._store, near.url)
        self._seconds = seconds

    def _at(self, key: str) -> AbstractContextManager[None]:
        time.sleep(self._seconds)
        return super()._at(key)


def main() -> None:
    """Says its URL on the first line of its standard output."""
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    settings = Settings.from_environment()
    settings.make_home()
    store = open_store(settings.database)
    kinds = {StagePhase.QUEUED: "pending", StagePhase.RUNNING: "running"}
    stages = [stage for experiment in store.live() for stage in experiment.stages]
    apps = {stage.attempt.app: kinds[stage.phase] for stage in stages if stage.attempt and stage.phase in kinds}
    del stages
    bucket, pace = open_bucket(settings.bucket), None
    if len(sys.argv) > 1:
        bucket, pace = Distant(bucket, float(sys.argv[1])), Pace(at_once=int(sys.argv[2]))
    service = Service(settings, store, bucket, MemoryCluster(apps), pace)
    service.serve(lambda url: print(url, flush=True))
    store.close()


if __name__ == "__main__":
    main()
