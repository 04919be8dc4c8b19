"""Connections: how many there may be, which of them gives way, and how long one may take over a request's head.

uvicorn bounds the headers' size and how long a connection may be idle after an answer; what it has no option for is here.
"""

import asyncio
import logging
import math
import resource
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)
CONNECTIONS = 4000  # at once, where the machine lets a process have as many: each costs memory
SPARE = 200  # open files for all else: database, bucket, logs, cluster
ACCEPTED_AT_ONCE = 16  # in one turn of the event loop; each is counted some turns later, and closed some more: few beside what is spare
QUEUED = 2048  # by the kernel, until the next turns
TOLD_SECONDS = 30.0  # between two lines on connections that cannot be accepted
FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


def room() -> int:
    """How many connections this process may hold. Raises its own limit of open files to what they need, as far as it may."""
    soft, hard = (_at_most(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft < hard:
        with suppress(OSError, ValueError):  # a sandbox that lets nobody
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            soft = hard
    return max(soft // 2, soft - SPARE)


def _at_most(limit: int) -> int:
    wanted = CONNECTIONS + SPARE
    return wanted if limit == resource.RLIM_INFINITY else min(limit, wanted)


class Complaints:
    """An event loop's exception handler that tells once in a while what asyncio tells of each turn: that it cannot accept a connection."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._told = clock, -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not str(context.get("message")).startswith("socket.accept()"):
            loop.default_exception_handler(context)
        elif self._clock() - self._told >= TOLD_SECONDS:
            self._told = self._clock()
            log.error("Connections cannot be accepted: %s", context.get("exception"))


class _Prompt(H11Protocol):
    """Closes a connection whose request line and headers have not come whole in time: uvicorn waits for ever.

    Where there are as many connections as there may be, the one that has asked for nothing the longest gives way to a new one; where all
    are at work, the new one is answered 503. So nobody shuts others out by connections that cost them nothing.
    """

    head_seconds: float
    most: int
    idle: "OrderedDict[_Prompt, None]"  # of the whole server: at work on no request, the longest first
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most:
            if not self.idle:
                transport.write(FULL)
                self.leave()
                return
            next(iter(self.idle)).leave()
        self.idle[self] = None
        self._late = self.loop.call_later(self.head_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        if self._late is None and (self.cycle is None or self.cycle.response_complete):  # the next request's first bytes
            self._late = self.loop.call_later(self.head_seconds, self._give_up)
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._in_time()
            if not self.cycle.response_complete:
                self.idle.pop(self, None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # no other request came along with this one
            self.idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        self.idle.pop(self, None)
        super().connection_lost(exc)

    def leave(self) -> None:
        """Close, and count no longer."""
        self.idle.pop(self, None)
        self.connections.discard(self)
        self.transport.close()

    def _give_up(self) -> None:
        self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def prompt(seconds: float, most: int) -> type[H11Protocol]:
    """uvicorn's protocol, for clients who send a request's head within `seconds`, `most` of them at once."""
    return type("Prompt", (_Prompt,), {"head_seconds": seconds, "most": most, "idle": OrderedDict()})
