"""The lock's audit finds what an index tells of: withdrawn, vulnerable, missing; and says what it is not told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.audit import LOCK, PIN, ask

HOLE = {"id": "CVE-1", "fixed_in": ["2.0"], "withdrawn": None}
FILE: dict[str, Any] = {"yanked": False}
PAGES: dict[str, Any] = {
    "/pypi/old/1.0/json": {"urls": [FILE], "vulnerabilities": [HOLE, {**HOLE, "withdrawn": "2020"}]},
    "/pypi/gone/1.0/json": {"urls": [{"yanked": True, "yanked_reason": "broken"}], "vulnerabilities": []},
    "/pypi/newest/json": {"info": {"version": "1.0"}, "releases": {"1.0": [FILE]}, "vulnerabilities": [HOLE]},
    "/pypi/older/json": {"info": {"version": "2.0"}, "releases": {"1": [FILE], "2.0": [FILE]}, "vulnerabilities": [HOLE]},
}


class Index(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = PAGES.get(self.path)
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/pypi"
    server.shutdown()
    server.server_close()


def test_what_an_index_tells_is_told_on(base: str) -> None:
    assert ask(base, "old", "1.0").vulnerabilities == ["CVE-1 (mended in 2.0)"]
    assert ask(base, "gone", "1.0").withdrawn == "broken"
    assert ask(base, "newest", "1.0").vulnerabilities == ["CVE-1 (mended in 2.0)"]
    older = ask(base, "older", "1.0")
    assert (older.told, older.vulnerabilities, older.is_bad) == (False, [], False)
    assert ask(base, "older", "3.0").missing
    assert ask(base, "nobody", "1.0").is_bad


def test_every_pin_of_the_lock_is_asked_about() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith((" ", "#"))]
    assert len(PIN.findall(LOCK.read_text())) == len(lines) > 100
