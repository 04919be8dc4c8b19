"""Connections: how many there may be, which of them gives way, and how long one may take over a request's head.

uvicorn bounds the headers' size and how long a connection may be idle after an answer; what it has no option for is here.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class _Prompt(H11Protocol):
    """Closes a connection whose request line and headers have not come whole in time: uvicorn waits for ever."""

    head_seconds: float
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(self.head_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        if self._late is None and (self.cycle is None or self.cycle.response_complete):  # the next request's first bytes
            self._late = self.loop.call_later(self.head_seconds, self._give_up)
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._in_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def prompt(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, for clients who send a request's head within `seconds`."""
    return type("Prompt", (_Prompt,), {"head_seconds": seconds})
