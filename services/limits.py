"""What every request is held to before anything of ours looks at it: its size, its pace, and how often its sender asks.

uvicorn bounds the headers' size and idle connections; what it has no option for is here.
"""

import asyncio
import hashlib
from collections import OrderedDict
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.errors import ContentTooLarge, RequestTimeout, TooManyRequests
from services.problems import answer_to
from services.rates import MOST_CALLERS, Rates, Verdict

PROBES = ("/healthz", "/readyz")  # asked by a kubelet, however busy the rest is
CLOSE = {"Connection": "close"}  # what is left of a refused body is not to be waited for


class Bodies:
    """Takes in each request's body, whole, before the request goes on: at most `most` bytes, within `seconds`."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(scope, receive)
        except ClientDisconnect:
            return  # there is nobody to answer
        except TimeoutError:
            slow = RequestTimeout(f"The body did not come within {self._seconds:g} s; send it faster.")
            await answer_to(slow, scope["path"], CLOSE)(scope, receive, send)
            return
        if body is None:
            large = ContentTooLarge(f"The body is over {self._most:,} bytes.")
            await answer_to(large, scope["path"], CLOSE)(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """None for one that is too long, by what it says of itself or by what has come."""
        said = dict(scope["headers"]).get(b"content-length", b"0")
        body, more = bytearray(), int(said) <= self._most
        if not more:
            return None
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect  # half a body is none
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._most:
                return None
        return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body in one message; then what comes, which is that the client has gone."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class Often:
    """Refuses with 429 who asks more often than `rates` allows: by token once one has been good, by address before and without."""

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self._app, self._rates = app, rates
        self._good: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        credential = _credential(scope)
        known = credential is not None and credential in self._good
        verdict = self._rates.ask(credential if known and credential else _address(scope))
        told = self._rates.headers(verdict)
        if not verdict.allowed:
            await answer_to(self._refusal(verdict), scope["path"], told)(scope, receive, send)
            return

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *((name.encode(), value.encode()) for name, value in told.items())]
                if credential:
                    self._note(credential, message["status"])
            await send(message)

        await self._app(scope, receive, send_told)

    def _refusal(self, verdict: Verdict) -> TooManyRequests:
        seconds = f"{verdict.wait} second{'s' if verdict.wait > 1 else ''}"
        return TooManyRequests(f"More than {self._rates.quota} requests in a minute came from you; ask again in {seconds}.")

    def _note(self, credential: str, status: int) -> None:
        """A credential that was refused is its sender's address again: who tries many gains nothing by it."""
        self._good.pop(credential, None)
        if status != 401:
            self._good[credential] = None
            if len(self._good) > MOST_CALLERS:
                self._good.popitem(last=False)


def _credential(scope: Scope) -> str | None:
    """A digest of what the request shows of who sends it: nothing that could be used is kept."""
    headers = dict(scope["headers"])
    shown = headers.get(b"authorization") or headers.get(b"cookie")
    return hashlib.sha256(shown).hexdigest() if shown else None


def _address(scope: Scope) -> str:
    client = Request(scope).client
    return client.host if client else ""


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
