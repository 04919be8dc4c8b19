"""A PostgreSQL server from Debian's package, at the address that it is told: started, stopped and started again as a test likes.

Two ways to use it: `postgres_url`, an empty database on one server that all tests of this process share; and `postgresql`, a server of a
test's own, with a password, for pods that reach it over the network.
"""

import atexit
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
import pytest

USER = "solfa"


class Postgres:
    """A cluster of databases in a folder of its own. It keeps its port over a stop, so that clients find it again."""

    def __init__(self, host: str = "127.0.0.1", password: str = "") -> None:
        self._binaries, self._account = _binaries(), _account()
        self._password = password
        self._folder = Path(tempfile.mkdtemp(prefix="solfa-pg-", dir="/tmp"))  # not below pytest's folder, which only root may enter
        with socket.socket() as probe:
            probe.bind((host, 0))
            self._address = f"{host}:{probe.getsockname()[1]}"
        self._initialise()

    def url(self, database: str, driver: str = "postgresql") -> str:
        """As SQLAlchemy and psycopg take it."""
        login = f"{USER}:{self._password}" if self._password else USER
        return f"{driver}://{login}@{self._address}/{database}"

    def start(self) -> None:
        """Ends when it answers; a server that runs is left alone."""
        if self._ctl("status", check=False) == 0:
            return
        host, _, port = self._address.partition(":")
        options = f"-p {port} -k {self._folder} -c listen_addresses={host} -c fsync=off"
        self._ctl("-o", options, "-l", str(self._folder / "log"), "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        """`fast` ends connections with a word, `immediate` as a crash does. Ends when it is gone; one that is gone is left alone."""
        if self._ctl("status", check=False) == 0:
            self._ctl("-m", mode, "-w", "stop")

    def restart(self) -> None:
        self.stop("fast")
        self.start()

    def create(self, database: str) -> None:
        """An empty database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {database}")

    def remove(self) -> None:
        """Stop it, and leave nothing."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _initialise(self) -> None:
        if self._account:
            shutil.chown(self._folder, self._account)
        chosen = ["-A", "trust"]
        if self._password:
            secret = self._folder / "password"
            secret.write_text(self._password)
            if self._account:
                shutil.chown(secret, self._account)
            chosen = ["--auth=scram-sha-256", "--pwfile", str(secret)]
        self._run("initdb", *chosen, "-U", USER, "--no-sync", "-D", str(self._data))
        if self._password:
            with (self._data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all {USER} 0.0.0.0/0 scram-sha-256\n")

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _ctl(self, *words: str, check: bool = True) -> int:
        return self._run("pg_ctl", "-D", str(self._data), *words, check=check)

    def _run(self, program: str, *words: str, check: bool = True) -> int:
        command, quiet = [str(self._binaries / program), *words], subprocess.DEVNULL
        return subprocess.run(command, user=self._account, check=check, cwd=self._folder, stdout=quiet, stderr=quiet).returncode


@contextmanager
def postgresql(host: str) -> Iterator[Postgres]:
    """A server at `host` with a password and an empty database `solfa`, until the context ends. Skips where PostgreSQL is not installed."""
    server = Postgres(host, secrets.token_hex(8))
    try:
        server.start()
        server.create("solfa")
        yield server
    finally:
        server.remove()


def postgres_url() -> Iterator[str]:
    """An empty database on this process's server; skips where there is none."""
    server, name = _shared(), f"t{uuid.uuid4().hex[:8]}"
    server.create(name)
    yield server.url(name, "postgresql+psycopg")


@cache
def _shared() -> Postgres:
    server = Postgres()
    atexit.register(server.remove)
    server.start()
    return server


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL server is installed here (looked in /usr/lib/postgresql)")
    return found[-1].parent


def _account() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"
