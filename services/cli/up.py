"""`solfa up` and `solfa down`: the whole service on one machine, in one folder."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from api.client import Client
from api.errors import Conflict, NotFound, SolfaError
from services.cli.connection import Home, Running, running
from services.cli.screen import err, out
from services.settings import Settings

START_SECONDS = 30.0
STOP_SECONDS = 30.0


def up(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (default: 8700; 0 takes a free one).")] = None,
    slots: Annotated[int | None, typer.Option(help="Attempts that run at once (default: 1).")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background, with a log file in the home.")] = False,
) -> None:
    """Start the service with everything embedded: database, bucket and launcher in one folder."""
    settings = Settings.from_environment(home=home, host=host, port=port, slots=slots)
    settings.home.mkdir(parents=True, exist_ok=True)
    if found := running(settings.home):
        out.print(f"A service runs already in {settings.home}: {found.url}")
        return
    if detach:
        _detach(settings)
        return
    from services.server import open_service  # noqa: PLC0415  # half a second that other commands need not wait

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("torchx").setLevel(logging.WARNING)
    with _only_one(settings.home), open_service(settings) as service:
        record = settings.home / "service.json"
        try:
            service.serve(lambda url: _say(record, url))
        finally:
            record.unlink(missing_ok=True)
    err.print("The service has stopped. Attempts that were running go on; `solfa up` finds them again.")


def down(home: Home = None) -> None:
    """Stop the service that `solfa up --detach` started. Attempts that are running go on."""
    folder = Settings.from_environment(home=home).home
    found = running(folder)
    if found is None:
        raise NotFound(f"No service runs in {folder}.")
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running(folder):
        if time.monotonic() > deadline:
            raise SolfaError(f"The service (process {found.pid}) did not stop within {STOP_SECONDS:.0f} s; see {folder / 'service.log'}.")
        time.sleep(0.1)
    out.print("The service has stopped.")


def _say(record: Path, url: str) -> None:
    partial = record.with_suffix(".partial")
    partial.write_text(Running(url=url, pid=os.getpid()).model_dump_json())
    partial.replace(record)
    err.print(f"Solfa listens on [bold]{url}[/]  (Ctrl-C stops it; running attempts go on)")
    err.print("Next: solfa submit SPEC --wait    solfa list    solfa status NAME --watch")


def _detach(settings: Settings) -> None:
    log = settings.home / "service.log"
    command = [
        sys.executable,
        "-m",
        "services.cli",
        "up",
        "--home",
        str(settings.home),
        "--host",
        settings.host,
        "--port",
        str(settings.port),
    ]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*command, "--slots", str(settings.slots)], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = running(settings.home)
        if found and found.pid == process.pid and Client(found.url).ready():
            out.print(f"Solfa listens on [bold]{found.url}[/]  (process {found.pid}, log {log}; stop it with `solfa down`)")
            return
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise Conflict(last[0].removeprefix("solfa: "))
        time.sleep(0.05)
    raise SolfaError(f"The service did not answer within {START_SECONDS:.0f} s; see {log}.")


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """A lock that dies with the process, so that two services never share a home."""
    with (home / "service.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"Another service is starting or stopping in {home}; try again in a moment.") from error
        yield
