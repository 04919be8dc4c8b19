"""What a real server is asked over real connections, too much of it or too slowly; what is proper goes on meanwhile."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.services.running import Running, running, until_closed

SECONDS = 1.0
HEAD = b"POST /v1/experiments HTTP/1.1\r\nHost: solfa\r\nContent-Type: application/yaml\r\n"


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service of little patience, which takes small bodies."""
    with running(tmp_path_factory.mktemp("brisk"), request_seconds=SECONDS, max_body_bytes=5000, reconcile=False) as service:
        yield service


@contextmanager
def connected(service: Running) -> Iterator[socket.socket]:
    url = service.http.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        yield connection


def names(service: Running) -> list[str]:
    return [one["name"] for one in service.get("?limit=200").json()["experiments"]]


def test_a_body_that_does_not_come_is_not_waited_for(brisk: Running) -> None:
    spec = brisk.spec("slow").encode()
    with connected(brisk) as connection:
        connection.sendall(HEAD + f"Content-Length: {len(spec)}\r\n\r\n".encode() + spec[:20])
        said = until_closed(connection)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in said
    assert "slow" not in names(brisk)


def test_a_body_that_drips_is_not_waited_for_either(brisk: Running) -> None:
    with connected(brisk) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.settimeout(SECONDS / 10)
        said, began = b"", time.monotonic()
        while not said and time.monotonic() < began + 20 * SECONDS:
            try:
                connection.sendall(b"1\r\n#\r\n")
                said = connection.recv(4096)
            except TimeoutError:
                continue
    assert said.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\n", HEAD], ids=["nothing", "a line", "headers without an end"])
def test_a_head_that_does_not_come_is_not_waited_for(brisk: Running, head: bytes) -> None:
    with connected(brisk) as connection:
        connection.sendall(head)
        assert until_closed(connection).startswith(b"HTTP/1.1 408 ")


def test_nor_is_the_second_head_of_a_connection(brisk: Running) -> None:
    with connected(brisk) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: solfa\r\n\r\n")
        first = connection.recv(4096)
        assert first.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        rest = until_closed(connection)
    assert b"408 " in first + rest


def test_half_a_body_of_a_client_that_goes_is_no_submission(brisk: Running) -> None:
    spec = brisk.spec("half").encode()
    with connected(brisk) as connection:
        connection.sendall(HEAD + f"Content-Length: {len(spec) + 10}\r\n\r\n".encode() + spec)
    assert brisk.post(brisk.spec("whole")).status_code == 202
    assert "half" not in names(brisk)


@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/experiments/x/cancel", "/v1/experiments/x/stages/proxy", "/nowhere", "/"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "GET", "DELETE"])
@pytest.mark.parametrize("chunked", [True, False])
def test_no_route_takes_a_larger_body(brisk: Running, path: str, method: str, chunked: bool) -> None:
    with connected(brisk) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: solfa\r\n".encode())
        if chunked:  # and no end of it
            connection.sendall(
                b"Transfer-Encoding: chunked\r\n\r\n" + b"bb8\r\n" + b"#" * 3000 + b"\r\n" + b"bb8\r\n" + b"#" * 3000 + b"\r\n"
            )
        else:  # nothing of it
            connection.sendall(b"Content-Length: 5001\r\n\r\n")
        said = b""
        while b"bytes" not in said and (part := connection.recv(4096)):
            said += part
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"5,000 bytes" in said


def test_nobody_is_counted_on_a_laptop(brisk: Running) -> None:
    assert not [name for name in brisk.get("").headers if name.lower().startswith("ratelimit")]
