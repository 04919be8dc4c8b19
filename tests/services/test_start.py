"""`python -m services serve` where it cannot start: one sentence with what to do, an exit code, no traceback; and how it ends."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from api.errors import SolfaError
from services.server import open_service
from services.settings import Settings
from services.store import open_store
from tests.builders import spec_mapping
from tests.services.waiting import wait_for

Fault = Callable[[Path, ExitStack], dict[str, str]]


def start(home: Path, **environment: str) -> subprocess.Popen[str]:
    cleaned = {name: value for name, value in os.environ.items() if not name.startswith(("SOLFA_", "AWS_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "services", "serve"],
        env={**cleaned, "SOLFA_HOME": str(home), "SOLFA_PORT": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def port_taken(home: Path, stack: ExitStack) -> dict[str, str]:
    holder = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return {"SOLFA_PORT": str(holder.getsockname()[1])}


def no_such_address(home: Path, stack: ExitStack) -> dict[str, str]:
    return {"SOLFA_HOST": "203.0.113.1", "SOLFA_ACCESS": "open"}


def newer_database(home: Path, stack: ExitStack) -> dict[str, str]:
    open_store(f"sqlite:///{home}/solfa.db").close()
    with sqlite3.connect(home / "solfa.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    return {}


def no_database(home: Path, stack: ExitStack) -> dict[str, str]:
    (home / "solfa.db").write_text("Dear diary, " * 1000)
    return {}


def read_only_database(home: Path, stack: ExitStack) -> dict[str, str]:
    connection = sqlite3.connect(home / "solfa.db")
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    content = bytearray((home / "solfa.db").read_bytes())
    content[18] = 3  # of a format that SQLite reads and does not write: as good as a disk that is mounted read-only, also for root
    (home / "solfa.db").write_bytes(content)
    return {}


def locked_database(home: Path, stack: ExitStack) -> dict[str, str]:
    connection = sqlite3.connect(home / "solfa.db", isolation_level=None)
    stack.callback(connection.close)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("CREATE TABLE t (x)")
    return {}


def database_in_a_file(home: Path, stack: ExitStack) -> dict[str, str]:
    (home / "file").touch()
    return {"SOLFA_DATABASE_URL": f"sqlite:///{home}/file/solfa.db"}


def home_in_a_file(home: Path, stack: ExitStack) -> dict[str, str]:
    (home / "file").touch()
    return {"SOLFA_HOME": str(home / "file" / "home")}


def bucket_in_a_file(home: Path, stack: ExitStack) -> dict[str, str]:
    (home / "file").touch()
    return {"SOLFA_BUCKET_URL": f"file://{home}/file/bucket"}


def bucket_without_conditions(home: Path, stack: ExitStack) -> dict[str, str]:
    class Careless(BaseHTTPRequestHandler):
        """An S3 that stores whatever comes and looks at no condition, as some do."""

        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("ETag", '"same"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def do_DELETE(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Careless))
    Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    return {"SOLFA_BUCKET_URL": "s3://careless/", "AWS_ENDPOINT": f"http://127.0.0.1:{server.server_port}", **keys}


FAULTS: dict[str, tuple[Fault, str]] = {
    "port taken": (port_taken, "Choose another with --port, or stop what holds it."),
    "no such address": (no_such_address, "Cannot listen on 203.0.113.1"),
    "database newer than the code": (newer_database, "schema 9999, which this version of Solfa does not know"),
    "a file that is no database": (no_database, "The database is damaged, or is none of ours"),
    "database read-only": (read_only_database, "check that its folder exists and may be written"),
    "database locked": (locked_database, "The database is locked by another process"),
    "no folder for the database": (database_in_a_file, "choose another place for it"),
    "home not writable": (home_in_a_file, "choose another with SOLFA_HOME or --home"),
    "no folder for the bucket": (bucket_in_a_file, "The bucket"),
    "a bucket that ignores conditions": (bucket_without_conditions, "use one that honours conditional writes"),
    "settings that are none": (lambda *_: {"SOLFA_PORT": "many", "SOLFA_SLOTS": "0"}, "SOLFA_SLOTS"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_service_that_cannot_start_says_why_in_one_sentence(tmp_path: Path, fault: str) -> None:
    cause, words = FAULTS[fault]
    with ExitStack() as stack:
        process = start(tmp_path, **cause(tmp_path, stack))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert words in err
    assert err.startswith("solfa: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert out == ""


ADDRESSES = {
    "SOLFA_DATABASE_URL=sqlite://": "one in memory would forget what it recorded",
    "SOLFA_DATABASE_URL=mysql://x": "A store is sqlite:///file or postgresql",
    "SOLFA_DATABASE_URL=nonsense": "A store is sqlite:///file or postgresql",
    "SOLFA_BUCKET_URL=ftp://x": "A bucket is file:///folder, s3://name/prefix or memory://",
    "SOLFA_HOST=": "SOLFA_HOST",
    "SOLFA_RECONCILE=perhaps": "SOLFA_RECONCILE",
}


@pytest.mark.parametrize("setting", ADDRESSES)
def test_a_setting_that_is_none_is_named_in_one_sentence(tmp_path: Path, setting: str) -> None:
    name, _, value = setting.partition("=")
    with pytest.raises(SolfaError) as caught, open_service(Settings.from_environment({"SOLFA_HOME": str(tmp_path), name: value})):
        pass
    assert ADDRESSES[setting] in caught.value.message
    assert "\n" not in caught.value.message


@contextmanager
def serving(home: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service process that listens, and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = start(home, SOLFA_PORT=str(port), **environment)
    url = f"http://127.0.0.1:{port}"
    try:

        def ready() -> bool:
            assert process.poll() is None, process.communicate()
            try:
                return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, 60)
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def test_a_signal_ends_it_at_once_though_somebody_reads_a_stream(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "do re mi"}\n')
    domains = {name: {"source": {"type": "jsonl", "paths": [str(text)]}} for name in ("a", "b")}
    with serving(tmp_path / "home", SOLFA_RECONCILE="false") as (process, url):
        assert httpx.post(f"{url}/v1/experiments", json=spec_mapping("kept", domains=domains), trust_env=False).status_code == 202
        headers = {"Accept": "text/event-stream"}
        with httpx.stream("GET", f"{url}/v1/experiments/kept/events", headers=headers, trust_env=False) as answer:
            assert next(answer.iter_lines())
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    with serving(tmp_path / "home") as (process, url):  # and what was recorded is there again
        assert httpx.get(f"{url}/v1/experiments/kept", trust_env=False).json()["name"] == "kept"


def test_a_start_loads_nothing_that_it_can_do_without() -> None:
    slow = ["httpx", "alembic", "pygments", "kubernetes", "numpy", "torch"]
    code = f"import sys, services.cli.main, services.server; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
