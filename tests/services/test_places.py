"""Heads that name no place: a Host, an Origin or a target that is none is refused like anything else that is foreign, on every path."""

import socket
from collections.abc import Iterator

import pytest

from tests.services.running import Running, running

ADMIN = "an administrator's token of the settings"
PATHS = ("/healthz", "/sign-in", "/static/nothing", "/v1/experiments", "/v1/nowhere", "/")


@pytest.fixture(scope="module", params=["auto", "required"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("places"), access=request.param, admin_token=ADMIN, reconcile=False) as made:
        yield made


def status(service: Running, method: str, target: str, *headers: str) -> int:
    """Of the answer to a request with these very headers."""
    url = service.http.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall("\r\n".join((f"{method} {target} HTTP/1.1", *headers, "Connection: close", "Content-Length: 0", "", "")).encode())
        received = b""
        while part := connection.recv(4096):
            received += part
    assert received.startswith(b"HTTP/1.1 "), received
    return int(received[9:12])


@pytest.mark.parametrize("host", ["[", "]", "[::1", "a]b", "[x]:80"])
@pytest.mark.parametrize("path", PATHS)
def test_a_host_that_is_none_is_refused(service: Running, path: str, host: str) -> None:
    assert status(service, "GET", path, f"Host: {host}") == 400


@pytest.mark.parametrize("origin", ["http://[", "null", "]", ""])
@pytest.mark.parametrize("path", PATHS)
def test_an_origin_that_is_none_is_foreign(service: Running, path: str, origin: str) -> None:
    for host in ("solfa", ""):
        assert status(service, "POST", path, f"Host: {host}", f"Origin: {origin}") == 403


@pytest.mark.parametrize("target", ["x[", "[", "*", "http://[/v1/experiments", "//[/"])
def test_a_target_that_is_none_is_not_there(service: Running, target: str) -> None:
    assert status(service, "GET", target, "Host: solfa", f"Authorization: Bearer {ADMIN}") == 404
