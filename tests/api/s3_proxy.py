"""A proxy before a real S3 server, that does to requests what networks and busy servers do: refuses, delays, and loses the answer."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")
CONDITIONS = ("If-Match", "If-None-Match")
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Faults:
    """What is done to requests from now on; change it at any moment."""

    refuse_every: int = 0
    """Every so many requests one is answered 503; 0: none."""
    delay: float = 0.0
    """Seconds before each request is passed on."""
    lose_answers: int = 0
    """So many of the next conditional writes are carried out, and answered 503."""
    refused: int = 0
    delayed: int = 0
    lost: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: int = 0

    def refuses(self) -> bool:
        with self._lock:
            self._seen += 1
            refused = bool(self.refuse_every) and self._seen % self.refuse_every == 0
            self.refused += refused
        return refused

    def waits(self) -> None:
        if self.delay:
            with self._lock:
                self.delayed += 1
            time.sleep(self.delay)

    def loses(self, conditional: bool) -> bool:
        with self._lock:
            lost = conditional and self.lose_answers > 0
            self.lose_answers -= lost
            self.lost += lost
        return lost


class _Forwarding(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: tuple[str, int]
    faults: Faults

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.faults.refuses():
            self._answer(503, [("Content-Type", "application/xml")], BUSY)
            return
        self.faults.waits()
        connection = http.client.HTTPConnection(*self.upstream, timeout=120)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)  # the signature covers Host
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        conditional = self.command == "PUT" and any(name in self.headers for name in CONDITIONS)
        if answer.status < 300 and self.faults.loses(conditional):
            self._answer(503, [("Content-Type", "application/xml")], BUSY)
            return
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(answer.status, answer.getheaders(), data, length)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _forward

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, length: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):  # a client that has given up
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def proxied(upstream: tuple[str, int], host: str = "127.0.0.1") -> Iterator[tuple[int, Faults]]:
    """The proxy's port on `host`, and what it does to requests: nothing, at first."""
    faults = Faults()
    handler = type("Forwarding", (_Forwarding,), {"upstream": upstream, "faults": faults})
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port, faults
    finally:
        server.shutdown()
        server.server_close()
