"""The process that outlives the service: one for each attempt on this machine. It starts the attempt when a slot is free, ends it
when asked, leaves nothing running, and writes down how it ended. Standard library only, so that it starts in milliseconds.

Run as `python -I -S supervisor.py <app folder> <descriptor of the lock>`. The app's folder:

    request.json   what to run, written before the folder appears under its name
    lock           held (flock) for as long as this process lives
    begun          this process has begun
    started.json   the attempt's program has been started
    cancel         the attempt is to end
    output.log     stdout and stderr of all its processes
    rendezvous     where torchrun's agent keeps its state, and store-N, where its workers meet after its Nth restart of them
    result.json    how it ended, written last and atomically, when none of its processes is left
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

TOKEN = "SOLFA_APP_TOKEN"  # in the environment of every process of an attempt: how its processes are known, whatever their parents  # noqa: S105  # a variable's name
TICK = 0.1  # seconds between looks at the cancel file, a slot, or a process that is to end
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(folder: Path, lock: int) -> None:
    """Supervise the attempt in `folder`, from the wait for a slot to its result."""
    os.set_inheritable(lock, False)
    stop = _StopAsked()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the attempt become ours, so that none escapes
    (folder / "begun").touch()
    request = json.loads((folder / "request.json").read_text())
    slot = _wait_for_slot(folder, request["slots"], stop)
    if slot is None:
        write_result(folder, cancelled=not stop.seen, lost=stop.seen, message="It was ended before it began.")
        return
    agent = _start(folder, request)
    asked = _wait_for_end(folder, agent, stop, request["grace_seconds"])
    end_tree()
    write_result(
        folder,
        exit_code=agent.returncode,
        cancelled=asked and not stop.seen,
        lost=stop.seen,
        message="The machine is shutting down." if stop.seen else _sentence(agent.returncode),
    )


class _StopAsked:
    """Whether this process was told to end (a machine that shuts down): the attempt is then lost, not cancelled."""

    def __init__(self) -> None:
        self.seen = False
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.seen = True


def _wait_for_slot(folder: Path, slots: int, stop: _StopAsked) -> int | None:
    """A held descriptor of a slot, when it is this app's turn; None: asked to end before that."""
    places = folder.parent / ".slots"
    places.mkdir(exist_ok=True)
    while not (stop.seen or (folder / "cancel").exists()):
        if not any(_waits(other) for other in _earlier(folder)):
            for number in range(slots):
                descriptor = os.open(places / str(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                if try_lock(descriptor):
                    return descriptor
                os.close(descriptor)
        time.sleep(TICK)
    return None


def _earlier(folder: Path) -> Iterator[Path]:
    """Folders of apps that were launched before this one."""
    mine = _age(folder)
    for other in folder.parent.iterdir():
        if not other.name.startswith(".") and (age := _age(other)) and mine and age < mine:
            yield other


def _age(folder: Path) -> tuple[int, str] | None:
    try:
        return (folder / "request.json").stat().st_mtime_ns, folder.name
    except OSError:  # just removed
        return None


def _waits(folder: Path) -> bool:
    if (folder / "started.json").exists() or (folder / "result.json").exists() or (folder / "cancel").exists():
        return False
    return is_alive(folder)


def _start(folder: Path, request: dict[str, Any]) -> subprocess.Popen[bytes]:
    me = os.getpid()

    def die_with_me() -> None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # torchrun ends its workers on SIGTERM; what remains is swept at the next look
        if os.getppid() != me:
            os._exit(1)

    with (folder / "output.log").open("ab") as log:
        try:
            agent = subprocess.Popen(  # noqa: S603  # the app that the service rendered, no shell
                request["command"],
                env={**os.environ, **request["environment"], TOKEN: request["token"]},
                cwd=request["folder"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_me,  # noqa: PLW1509  # safe here: this process has one thread
            )
        except OSError as error:
            write_result(folder, exit_code=127, message=f"Its program could not be started: {error}.")
            sys.exit(0)
    write_atomically(folder / "started.json", {"pid": agent.pid, "at": time.time()})
    return agent


def _wait_for_end(folder: Path, agent: subprocess.Popen[bytes], stop: _StopAsked, grace: float) -> bool:
    """Wait for the agent's end, asking for it where it is due (SIGTERM, after `grace` seconds SIGKILL). Returns whether it was asked."""
    asked_at: float | None = None
    watched = [os.pidfd_open(agent.pid)] if hasattr(os, "pidfd_open") else []
    while agent.poll() is None:
        _reap(agent.pid)
        if asked_at is None and (stop.seen or (folder / "cancel").exists()):
            asked_at = time.monotonic()
            agent.terminate()
        if asked_at is not None and time.monotonic() - asked_at > grace:
            agent.kill()
        select.select(watched, [], [], TICK)
    return asked_at is not None


def end_tree() -> None:
    """Kill every descendant of this process, until there is none."""
    _reap(None)
    while pids := _descendants(os.getpid()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        _reap(None)


def _descendants(root: int) -> set[int]:
    """Living processes below `root`; where /proc is missing, none can be told."""
    parents: dict[int, int] = {}
    for pid in _pids():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[pid] = int(fields[1])
    found: set[int] = set()
    grew = True
    while grew:
        below = {pid for pid, parent in parents.items() if parent == root or parent in found}
        grew, found = below != found, below
    return found


def _reap(but: int | None) -> None:
    """Collect dead orphans; the agent's own end (`but`) is left to its Popen."""
    try:
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and dead.si_pid != but:
            os.waitpid(dead.si_pid, 0)
    except ChildProcessError:  # there are no children at all
        pass


def kill_marked(token: str) -> int:
    """SIGKILL every process whose environment carries `token`. Returns how many there were. A reused pid is never hit: the process is held
    by a descriptor while its environment is read."""
    mark = f"{TOKEN}={token}".encode()
    killed = 0
    for pid in _pids():
        try:
            held = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                signal.pidfd_send_signal(held, signal.SIGKILL)
                killed += 1
        except OSError:  # not ours to read, or just gone
            continue
        finally:
            os.close(held)
    return killed


def _pids() -> list[int]:
    try:
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    except OSError:
        return []


def try_lock(descriptor: int, shared: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_alive(folder: Path) -> bool:
    """Whether the supervisor of the app in `folder` lives: the kernel lets go of its lock however it dies."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def write_result(folder: Path, *, exit_code: int | None = None, cancelled: bool = False, lost: bool = False, message: str = "") -> None:
    result = {"exit_code": exit_code, "cancelled": cancelled, "lost": lost, "message": message, "ended_at": time.time()}
    write_atomically(folder / "result.json", result)


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _sentence(exit_code: int) -> str:
    if exit_code == 0:
        return ""
    if exit_code == -signal.SIGKILL:
        return "Its launcher was killed (SIGKILL); often that means that the machine ran out of memory."
    if exit_code < 0:
        return f"Its launcher was ended by {signal.Signals(-exit_code).name}."
    return f"Its program ended with exit code {exit_code}."


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
