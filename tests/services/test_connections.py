"""Connections without end: who asks for nothing gives way, who is at work does not, and a process keeps files for everything else."""

import asyncio
import errno
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from services import connections, server
from services.connections import CONNECTIONS, SPARE, TOLD_SECONDS, Complaints, room
from tests.services.running import Running, running, until_closed
from tests.services.waiting import wait_for

NO_BODY_YET = b"POST /v1/experiments HTTP/1.1\r\nHost: solfa\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A service that holds three connections."""
    monkeypatch.setattr(server, "room", lambda: 3)
    with running(tmp_path, reconcile=False) as service:
        yield service


def connect(stack: ExitStack, service: Running, said: bytes = b"") -> socket.socket:
    url = service.http.base_url
    made = stack.enter_context(socket.create_connection((url.host, url.port or 80), timeout=30))
    made.sendall(said)
    return made


def test_who_asks_for_nothing_gives_way_to_who_comes(small: Running) -> None:
    with ExitStack() as stack:
        idle = [connect(stack, small, said) for said in (b"", b"GET / HTTP/1.1\r\n", b"")]
        assert small.http.get("/healthz").status_code == 200
        assert until_closed(idle[0]) == b""
        idle[1].sendall(b"Host: solfa\r\nConnection: close\r\n\r\n")
        assert until_closed(idle[1]).startswith(b"HTTP/1.1 200 ")


def test_where_all_are_at_work_a_new_one_is_told_at_once_and_nobody_is_cut_off(small: Running) -> None:
    with ExitStack() as stack:
        busy = [connect(stack, small, NO_BODY_YET) for _ in range(3)]
        assert [connection.recv(4096)[:13] for connection in busy] == [b"HTTP/1.1 100 "] * 3
        assert until_closed(connect(stack, small)).startswith(b"HTTP/1.1 503 ")
        for connection in busy:
            connection.sendall(b"#" * 10)
            assert connection.recv(4096).startswith(b"HTTP/1.1 4")
        assert small.http.get("/healthz").status_code == 200  # answered, they are idle


def test_more_connections_than_a_process_may_have_files(tmp_path: Path) -> None:
    """As started by a shell with so low a limit: the service goes on answering, and writes no traceback for each of them."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOLFA_")}
    process = subprocess.Popen(
        ["bash", "-c", f"ulimit -n 256; exec {sys.executable} -m services serve --port {port}"],
        env={**environment, "SOLFA_HOME": str(tmp_path), "SOLFA_RECONCILE": "false"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: healthy(port))
        with ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            assert [healthy(port) for _ in range(3)] == [True] * 3
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert "accept" not in said


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("soft", "hard", "held", "raised"),
    [
        (1024, 1_048_576, CONNECTIONS, CONNECTIONS + SPARE),
        (1024, resource.RLIM_INFINITY, CONNECTIONS, CONNECTIONS + SPARE),
        (1024, 1024, 824, None),
        (256, 256, 128, None),
        (1_048_576, 1_048_576, CONNECTIONS, None),
    ],
)
def test_the_limit_of_files_is_raised_as_far_as_it_is_needed_and_may_be(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, held: int, raised: int | None
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(connections.resource, "setrlimit", lambda _, limits: set_to.append(limits))
    assert room() == held
    assert set_to == ([(raised, hard)] if raised else [])


def test_a_failure_to_accept_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    complain, loop = Complaints(lambda: now), asyncio.new_event_loop()
    failure = {"message": "socket.accept() out of system resource", "exception": OSError(errno.EMFILE, "Too many open files")}
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            complain(loop, failure)
        assert [record.getMessage() for record in caplog.records] == ["Connections cannot be accepted: [Errno 24] Too many open files"]
        now = TOLD_SECONDS
        complain(loop, failure)
        complain(loop, {"message": "something else"})
    loop.close()
    assert [record.getMessage() for record in caplog.records][1:] == [caplog.records[0].getMessage(), "something else"]
