"""PostgreSQL on this machine, at the address that pods reach, from Debian's package; for a release with several replicas."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest


@contextmanager
def postgresql(host: str) -> Iterator[str]:
    """The URL of an empty database, whose server goes when the context ends. Skips where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL server is installed here (looked in /usr/lib/postgresql)")
    binaries, user, password = found[-1].parent, _user(), secrets.token_hex(8)
    folder = Path(tempfile.mkdtemp(prefix="solfa-pg-"))  # not below pytest's folder, which only root may enter
    data = folder / "data"
    (folder / "password").write_text(password)
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]

    def run(*command: str | Path) -> None:
        subprocess.run(command, user=user, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)

    run(binaries / "initdb", "--auth=scram-sha-256", "-U", "solfa", "--pwfile", folder / "password", "--no-sync", "-D", data)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all solfa 0.0.0.0/0 scram-sha-256\n")
    run(
        binaries / "pg_ctl",
        "-D",
        data,
        "-o",
        f"-p {port} -k {folder} -c listen_addresses={host} -c fsync=off",
        "-l",
        folder / "log",
        "-w",
        "start",
    )
    address = f"solfa:{password}@{host}:{port}"
    try:
        with psycopg.connect(f"postgresql://{address}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE solfa")
        yield f"postgresql://{address}/solfa"
    finally:
        run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"
