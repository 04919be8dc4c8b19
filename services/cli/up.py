"""`solfa up` and `solfa down`: the whole service on one machine, in one folder."""

import fcntl
import gc
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from api.errors import Conflict, NotFound, SolfaError
from services.cli.connection import DEFAULT_HOME, Home, Running, options, running
from services.cli.screen import err, out
from services.settings import Settings

START_SECONDS = 30.0
STOP_SECONDS = 30.0
PRIVATE = 0o077  # the umask of all that runs in a home: its database and bucket are their owner's, as are the texts in them
TICK = 0.05  # seconds between two looks: another process tells nobody when it has started, ended or let go of a lock
LOCK_SECONDS = 5.0  # for a service that is just ending, and for looks of other commands at the lock


def up(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port (default: 8700; 0 takes a free one).")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Attempts that run at once (default: 1).")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background, with a log file in the home.")] = False,
) -> None:
    """Start the service with everything embedded: database, bucket and launcher in one folder.

    Example: solfa up --detach --home runs --slots 2
    """
    settings = Settings.from_environment(home=home, host=host, port=port, slots=slots)
    os.umask(PRIVATE)
    settings.make_home()
    if found := running(settings.home):
        said = f"A service runs already in {settings.home}: {found.url}"
        if (host, port, slots) != (None, None, None):
            raise Conflict(f"{said}; its options stay as they were: `solfa down{_reach(settings)}` first.")
        out.print(said, soft_wrap=True)
        return
    if settings.reach.roots == ():
        err.print("No spec may read a file: name folders that specs may read, such as SOLFA_DATA_ROOTS=/data.", soft_wrap=True)
    if detach:
        _detach(settings)
        return
    gc.disable()  # until the service is ready: nothing of what a start makes is garbage
    from services.server import open_service  # noqa: PLC0415  # half a second that other commands need not wait

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("torchx").setLevel(logging.WARNING)
    with _only_one(settings.home) as record, open_service(settings) as service:
        service.serve(lambda url: _say(record, url, settings))
    err.print("The service has stopped. Attempts that were running go on; `solfa up` finds them again.", soft_wrap=True)


def down(home: Home = None) -> None:
    """Stop the service that `solfa up --detach` started. Attempts that are running go on."""
    folder = Settings.from_environment(home=home).home
    found = running(folder)
    if found is None:
        raise NotFound(f"No service runs in {folder}.")
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while (still := running(folder)) and still.pid == found.pid:
        if time.monotonic() > deadline:
            raise SolfaError(f"The service (process {found.pid}) did not stop within {STOP_SECONDS:.0f} s; see {folder / 'service.log'}.")
        time.sleep(TICK)
    out.print("The service has stopped.")


def _say(record: Path, url: str, settings: Settings) -> None:
    partial = record.with_suffix(".partial")
    partial.write_text(Running(url=url, pid=os.getpid()).model_dump_json())
    partial.replace(record)
    reach = _reach(settings)
    if any(path.exists() and path.stat().st_mode & PRIVATE for path in (settings.home / "solfa.db", settings.home / "bucket")):
        err.print(
            f"Other users of this machine may read what an earlier version wrote: chmod -R go= {shlex.quote(str(settings.home))}",
            soft_wrap=True,
        )
    err.print(f"Solfa listens on {url} (Ctrl-C stops it; running attempts go on)", soft_wrap=True)
    err.print(f"Next: solfa submit SPEC --wait{reach}    solfa list{reach}    solfa status NAME --watch{reach}", soft_wrap=True)


def _reach(settings: Settings) -> str:
    """What other commands need to find this home."""
    return "" if settings.home == DEFAULT_HOME else options(None, settings.home)


def _detach(settings: Settings) -> None:
    from api.client import Client  # noqa: PLC0415  # as in connection.py

    log = settings.home / "service.log"
    command = [sys.executable, "-P", "-m", "services.cli", "up", "--home", str(settings.home), "--slots", str(settings.slots or 1)]
    with log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603  # a list of our own, no shell
            [*command, "--host", settings.host, "--port", str(settings.port)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = running(settings.home)
        if found and found.pid == process.pid and Client(found.url).ready():
            stop = f"solfa down{_reach(settings)}"
            out.print(f"Solfa listens on {found.url} (process {found.pid}, log {log}); stop it with `{stop}`.", soft_wrap=True)
            return
        if process.poll() is not None:
            raise _why_it_ended(log)
        time.sleep(TICK)
    raise SolfaError(f"The service did not answer within {START_SECONDS:.0f} s; see {log}.")


def _why_it_ended(log: Path) -> SolfaError:
    """What the service said last: a sentence of its own, or the end of a traceback."""
    last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
    if last.startswith("solfa: "):
        return Conflict(last.removeprefix("solfa: "))
    return SolfaError(f"The service did not start; {log} says why.")


@contextmanager
def _only_one(home: Path) -> Iterator[Path]:
    """A lock that dies with the process, so that two services never share a home. Yields where to write down that this one runs."""
    record = home / "service.json"
    with (home / "service.lock").open("a") as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _locked(lock):
            if time.monotonic() > deadline:
                raise Conflict(f"Another service is starting or stopping in {home}; try again in a moment.")
            time.sleep(TICK)
        record.unlink(missing_ok=True)  # of one that was killed
        try:
            yield record
        finally:
            record.unlink(missing_ok=True)


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
