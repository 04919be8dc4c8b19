"""LocalCluster: the Cluster port on one machine, through TorchX's Runner and the durable local scheduler."""

import json
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from torchx.runner import Runner
from torchx.specs import AppDryRunInfo, make_app_handle

from api.errors import ClusterUnavailable, LaunchRejected
from api.reach import EVERYTHING, Reach
from services.launch.appdef import Site, make_app
from services.launch.cluster import AppPhase, AppStatus, LaunchRequest
from services.launch.phases import to_phase
from services.launch.scheduler import NAME, LocalRequest, LocalScheduler
from services.settings import passed_on

ENDED = (AppPhase.SUCCEEDED, AppPhase.FAILED, AppPhase.CANCELLED)


class LocalCluster:
    """Attempts as processes of this machine, `slots` of them at a time; the others wait for their turn.

    CPU threads: each app gets the machine's CPUs divided by `slots`, divided among its processes; a spec that sets `cpus` can get fewer.
    A cancelled app has `grace_seconds` to save and end by itself.
    """

    def __init__(
        self,
        root: Path,
        bucket_url: str,
        slots: int = 1,
        command: Sequence[str] | None = None,
        grace_seconds: float = 30.0,
        reach: Reach = EVERYTHING,
    ) -> None:
        self.slots: int | None = slots
        cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        self._site = Site(bucket_url, max(1, cpus // slots), tuple(command) if command else None, python=sys.executable, reach=reach)
        with _translated():
            self._scheduler = LocalScheduler(root.absolute(), passed_on(), slots)
        self._runner = Runner("torchx", {NAME: lambda _session, **_options: self._scheduler})  # what TORCHX_* sets must not reach it
        self._grace_seconds = grace_seconds
        self._closed = threading.Event()
        logging.getLogger("torchx-events-null").addFilter(lambda _: False)  # a line for every call, of no use to anybody

    def launch(self, request: LaunchRequest) -> None:
        with _translated():
            try:
                self._runner.schedule(self._dryrun(request))
            except FileExistsError as error:
                raise LaunchRejected(f"{error} Nothing was started.") from error

    def render(self, request: LaunchRequest) -> dict[str, Any]:
        with _translated():
            return asdict(self._dryrun(request).request)

    def _dryrun(self, request: LaunchRequest) -> AppDryRunInfo[LocalRequest]:
        compute = request.config.spec.compute_for(request.config.plan.kind)
        if compute.replicas.min > 1:
            stage = request.config.plan.name
            raise LaunchRejected(
                f"{stage} asks for at least {compute.replicas.min} machines, and here is one; set compute.replicas.min to 1."
            )
        if compute.resources:
            named = " and ".join(compute.resources)
            raise LaunchRejected(
                f"{request.config.plan.name} asks for {named}, which only a cluster hands out; leave compute.resources out."
            )
        return self._runner.dryrun(make_app(request, self._site), NAME, {"grace_seconds": self._grace_seconds})

    def status(self, app: str) -> AppStatus:
        with _translated():
            found = self._runner.status(make_app_handle(NAME, "torchx", app))
        if found is None:
            return AppStatus(AppPhase.ABSENT)
        phase = to_phase(found.state)
        result = json.loads(found.structured_error_msg) if phase in ENDED else {}
        return AppStatus(
            phase=phase,
            workers_up=1 if phase is AppPhase.RUNNING else 0,
            message=found.msg,
            exit_code=result.get("exit_code"),
            lost=result.get("lost", False),
            ending=phase is AppPhase.RUNNING and self._scheduler.is_cancelled(app),
        )

    def heal(self, app: str) -> None:
        """What runs here cannot be stranded."""

    def resize(self, app: str, replicas: int) -> None:
        """There is one machine, and no app has more or fewer."""

    def cancel(self, app: str) -> None:
        with _translated():
            self._scheduler.cancel(app)

    def remove(self, app: str) -> None:
        with _translated():
            self._scheduler.delete(app)

    def look(self) -> dict[str, AppStatus]:
        with _translated():
            names = [app.app_id for app in self._runner.list(NAME)]
        return {name: self._status_or_unknown(name) for name in names}

    def _status_or_unknown(self, app: str) -> AppStatus:
        """One that cannot be looked at must not hold up the others."""
        try:
            return self.status(app)
        except ClusterUnavailable as error:
            return AppStatus(AppPhase.UNKNOWN, message=error.message)

    def logs(self, app: str, tail: int | None = None) -> list[str]:
        path = self._scheduler.log_path(app)
        try:
            with _translated(), path.open(errors="replace") as file:
                return [line.rstrip("\n") for line in (file if tail is None else deque(file, maxlen=tail))]
        except FileNotFoundError:
            return []

    def follow(self, app: str) -> Iterator[str | None]:
        line = ""
        with ExitStack() as stack:
            file: TextIO | None = None
            while not self._closed.is_set():
                ended = self.status(app).phase in (*ENDED, AppPhase.ABSENT)  # looked at first: what it wrote before is then all there
                if file is None and self._scheduler.log_path(app).exists():
                    file = stack.enter_context(self._scheduler.log_path(app).open(errors="replace"))
                while file is not None and (part := file.readline()):
                    line += part
                    if line.endswith("\n"):
                        yield line.rstrip("\n")
                        line = ""
                if ended:
                    break
                yield None
            if line:
                yield line

    def close(self) -> None:
        self._closed.set()
        self._runner.close()


@contextmanager
def _translated() -> Iterator[None]:
    """TorchX's and the operating system's errors as ours, in one sentence."""
    try:
        yield
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        raise ClusterUnavailable(f"The machine could not do that: {error}.") from error
    except ValueError as error:
        raise LaunchRejected(f"TorchX refused the app: {error}.") from error
