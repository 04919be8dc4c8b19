"""A private PostgreSQL server, where the machine has one installed: it lives as long as the test process."""

import atexit
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psycopg
import pytest


@cache
def _server() -> int | None:
    """The port of a server of our own, started at the first call; None: no binaries here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        return None
    binaries = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    user = _user()
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*command: str | Path, check: bool = True) -> None:
        subprocess.run(command, user=user, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)

    data = folder / "data"
    run(binaries / "initdb", "-A", "trust", "-U", "solfa", "--no-sync", "-D", data)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run(binaries / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")

    def stop() -> None:
        run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop", check=False)
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    return int(port)


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def postgres_url() -> Iterator[str]:
    """An empty database on that server; skips where there is none."""
    port = _server()
    if port is None:
        pytest.skip("no PostgreSQL server is installed here (looked in /usr/lib/postgresql)")
    name = f"t{uuid.uuid4().hex[:8]}"
    with psycopg.connect(f"postgresql://solfa@127.0.0.1:{port}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    yield f"postgresql+psycopg://solfa@127.0.0.1:{port}/{name}"
