"""TorchX's `Scheduler` for one machine, made durable: apps outlive the service that launched them, and it finds them again."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from torchx.schedulers.api import DescribeAppResponse, ListAppResponse, Scheduler, Stream
from torchx.specs import AppDef, AppDryRunInfo, AppState, CfgVal, ReplicaStatus, RoleStatus, macros, runopts

from services.launch import supervisor

NAME = "local_durable"
RANDOM_ENVIRONMENT = ("TORCHX_INTERNAL_SESSION_ID", "TORCHX_JOB_ID")  # differs between dry runs, or tells nothing


@dataclass(frozen=True)
class LocalRequest:
    """What a supervisor is given, as far as it is the same on every dry run."""

    app: str
    identity: str
    command: list[str]
    environment: dict[str, str]
    slots: int
    grace_seconds: float
    metadata: dict[str, str] = field(default_factory=dict)


class LocalScheduler(Scheduler[Mapping[str, CfgVal]]):  # type: ignore[misc]  # TorchX's sources do not pass our mypy, so it is Any here
    """Apps as folders below `root`, each with a supervisor process; see services.launch.supervisor for what a folder holds."""

    def __init__(self, root: Path, environment: Mapping[str, str], slots: int) -> None:
        super().__init__(NAME, "solfa")
        self.root = root
        self._environment = dict(environment)
        self._slots = slots
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in root.glob(".removed-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _run_opts(self) -> runopts:
        options = runopts()
        options.add("grace_seconds", type_=float, default=30.0, help="between SIGTERM and SIGKILL when an app is cancelled")
        return options

    def _submit_dryrun(self, app: AppDef, cfg: Mapping[str, CfgVal]) -> AppDryRunInfo[LocalRequest]:
        values = macros.Values(img_root=str(self.root), app_id=app.name, replica_id="0", rank0_env="TORCHX_RANK0_HOST")
        role = values.apply(app.roles[0])
        environment = {name: value for name, value in role.env.items() if name not in RANDOM_ENVIRONMENT}
        request = LocalRequest(
            app=app.name,
            identity=app.metadata.get("request", ""),
            command=[role.entrypoint, *role.args],
            environment=environment,
            slots=self._slots,
            grace_seconds=float(cfg.get("grace_seconds") or 0.0),
            metadata=dict(app.metadata),
        )
        return AppDryRunInfo(request, lambda shown: json.dumps(asdict(shown), indent=2))

    def schedule(self, dryrun_info: AppDryRunInfo[LocalRequest]) -> str:
        """Start the app, or find it. Raises FileExistsError when another request has its name, OSError when it cannot be started."""
        request: LocalRequest = dryrun_info.request
        folder = self._folder(request.app)
        if not folder.exists():
            self._make_folder(folder, request)
        elif json.loads((folder / "request.json").read_text())["identity"] != request.identity:
            raise FileExistsError(f"There is an app {request.app} already, made from another request.")
        if not (folder / "begun").exists():
            self._start_supervisor(folder)
        return request.app

    def _make_folder(self, folder: Path, request: LocalRequest) -> None:
        """All of it or nothing: a folder is renamed into its name, which fails if somebody was faster."""
        partial = self.root / f".new-{uuid.uuid4().hex}"
        partial.mkdir(mode=0o700)
        (partial / "lock").touch()
        (partial / "output.log").touch()
        content = {**asdict(request), "token": uuid.uuid4().hex, "folder": str(self.root)}
        supervisor.write_atomically(partial / "request.json", content)
        try:
            partial.rename(folder)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            if not folder.exists():
                raise

    def _start_supervisor(self, folder: Path) -> None:
        """The lock is taken here and inherited, so that there is no moment at which a started supervisor looks dead."""
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            if not supervisor.try_lock(lock) or self.result(folder.name) is not None:
                return  # it is alive, or was ended before it began
            with (folder / "supervisor.log").open("ab") as log:
                subprocess.Popen(  # noqa: S603  # a list of our own, no shell
                    [sys.executable, "-I", "-S", supervisor.__file__, str(folder), str(lock)],
                    env=self._environment,
                    cwd=self.root,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        finally:
            os.close(lock)

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        """None for an app that is not there, or that was never begun: launching it again begins it.

        `structured_error_msg` holds the result as the supervisor wrote it.
        """
        folder = self._folder(app_id)
        result = self.result(app_id)
        if result is None and not supervisor.is_alive(folder):
            result = self.result(app_id) or self._bury(folder)  # it may have ended between the two looks
            if result is None:
                return None
        answer = DescribeAppResponse(app_id=app_id, num_restarts=0)
        if result is not None:
            answer.state = _ended_state(result)
            answer.msg = result["message"]
            answer.structured_error_msg = json.dumps(result)
        else:
            answer.state = AppState.RUNNING if (folder / "started.json").exists() else AppState.PENDING
            answer.msg = "" if answer.state is AppState.RUNNING else "It waits for a free slot on this machine."
        answer.roles_statuses = [RoleStatus("trainer", [ReplicaStatus(id=0, state=answer.state, role="trainer", hostname="localhost")])]
        return answer

    def _bury(self, folder: Path) -> dict[str, Any] | None:
        """The end of an app whose supervisor died without a word: kill what it left, then write that it was lost."""
        if not (folder / "begun").exists():
            return None
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            if not supervisor.try_lock(lock):
                return {"exit_code": None, "cancelled": False, "lost": True, "message": "", "unfinished": True}  # another is at it
            token = json.loads((folder / "request.json").read_text())["token"]
            if supervisor.kill_marked(token):
                return {"exit_code": None, "cancelled": False, "lost": True, "message": "", "unfinished": True}  # until none is seen
            sentence = "Its supervisor was killed, or the machine restarted."
            supervisor.write_result(folder, lost=True, cancelled=(folder / "cancel").exists(), message=sentence)
        finally:
            os.close(lock)
        return self.result(folder.name)

    def result(self, app_id: str) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads((self._folder(app_id) / "result.json").read_text())
        except FileNotFoundError:
            return None
        return content

    def list(self, cfg: Mapping[str, CfgVal] | None = None) -> list[ListAppResponse]:
        """All apps, also those that were never begun; their states are for `describe` to tell."""
        names = sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))
        return [ListAppResponse(app_id=name, state=AppState.UNKNOWN, name=name) for name in names]

    def exists(self, app_id: str) -> bool:
        return self._folder(app_id).exists()

    def _cancel_existing(self, app_id: str) -> None:
        folder = self._folder(app_id)
        (folder / "cancel").touch()
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            if supervisor.try_lock(lock) and not (folder / "begun").exists():  # no supervisor is there to read the file
                supervisor.write_result(folder, cancelled=True, message="It was ended before it began.")
        finally:
            os.close(lock)

    def is_cancelled(self, app_id: str) -> bool:
        """Whether somebody has asked for its end."""
        return (self._folder(app_id) / "cancel").exists()

    def _delete_existing(self, app_id: str) -> None:
        """Raises OSError while the app is alive."""
        folder = self._folder(app_id)
        if self.result(app_id) is None and supervisor.is_alive(folder):
            raise OSError(f"the app {app_id} is still running")
        gone = self.root / f".removed-{uuid.uuid4().hex}"
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def log_iter(  # noqa: PLR0913, PLR0917  # TorchX's signature
        self,
        app_id: str,
        role_name: str,
        k: int = 0,
        regex: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        should_tail: bool = False,
        streams: Stream | None = None,
    ) -> Iterable[str]:
        """Every line so far, with its newline; following is LocalCluster's, which can be closed."""
        path = self.log_path(app_id)
        if not path.exists():
            return []
        with path.open(errors="replace") as file:
            return [line for line in file if regex is None or regex in line]

    def log_path(self, app_id: str) -> Path:
        return self._folder(app_id) / "output.log"

    def _folder(self, app_id: str) -> Path:
        return self.root / app_id


def _ended_state(result: Mapping[str, Any]) -> AppState:
    if result.get("unfinished"):
        return AppState.UNKNOWN
    if result["cancelled"]:
        return AppState.CANCELLED
    return AppState.SUCCEEDED if result["exit_code"] == 0 else AppState.FAILED
