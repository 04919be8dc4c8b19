"""What every request is held to before a route sees it: its body's size and pace, and how often its sender asks."""

import asyncio
import hashlib
from collections import OrderedDict

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ContentTooLarge, RequestTimeout, TooManyRequests
from services.access.gate import secret_of
from services.access.origin import client_address, sender
from services.access.principal import Principal
from services.access.rights import is_open
from services.problems import answer_to
from services.rates import MOST_CALLERS, Rates, Verdict

PROBES = ("/healthz", "/readyz")  # asked by a kubelet, however busy the rest is
MOST_OPEN = 8_192  # bytes of a body that is taken without a token: a form with a token and an address of 2,000 letters
CLOSE = {"Connection": "close"}  # what is left of a refused body is not to be waited for


class Bodies:
    """Takes in each request's body, whole, before the request goes on: at most `most` bytes, fewer where no token is asked for, within
    `seconds`."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = min(self._most, MOST_OPEN) if is_open(scope["path"]) else self._most
        try:
            async with asyncio.timeout(self._seconds):
                body = await _read(scope, receive, most)
        except ClientDisconnect:
            return  # there is nobody to answer
        except TimeoutError:
            slow = RequestTimeout(f"The body did not come within {self._seconds:g} s; send it faster.")
            await answer_to(slow, scope["path"], CLOSE)(scope, receive, send)
            return
        if body is None:
            large = ContentTooLarge(f"The body is over {most:,} bytes.")
            await answer_to(large, scope["path"], CLOSE)(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)


async def _read(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """None for one that is too long, by what it says of itself or by what has come."""
    said = dict(scope["headers"]).get(b"content-length", b"0")
    body, more = bytearray(), int(said) <= most
    if not more:
        return None
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect  # half a body is none
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
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
    """Refuses with 429 who asks more often than `rates` allows: by token once one has been good, by address before and without.

    `guarded`: whether tokens are asked for; where they are not, none is ever good.
    """

    def __init__(self, app: ASGIApp, rates: Rates, guarded: bool) -> None:
        self._app, self._rates, self._guarded = app, rates, guarded
        self._good: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        credential = _credential(scope) if self._guarded and not is_open(scope["path"]) else None  # elsewhere nobody finds out whose it is
        known = credential is not None and credential in self._good
        verdict = self._rates.ask(credential if known and credential else sender(client_address(scope)))
        told = self._rates.headers(verdict)
        if not verdict.allowed:
            await answer_to(self._refusal(verdict), scope["path"], told)(scope, receive, send)
            return

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *((name.encode(), value.encode()) for name, value in told.items())]
                if credential:
                    self._note(credential, scope.get("state", {}).get("principal"), message["status"])
            await send(message)

        await self._app(scope, receive, send_told)

    def _refusal(self, verdict: Verdict) -> TooManyRequests:
        seconds = f"{verdict.wait} second{'s' if verdict.wait > 1 else ''}"
        return TooManyRequests(f"More than {self._rates.quota} requests in a minute came from you; ask again in {seconds}.")

    def _note(self, credential: str, principal: Principal | None, status: int) -> None:
        """Good is what the gate has found a token's; one that was refused is its sender's address again: many tries gain nothing."""
        if status == 401:
            self._good.pop(credential, None)
        elif principal:
            self._good[credential] = None
            self._good.move_to_end(credential)
            if len(self._good) > MOST_CALLERS:
                self._good.popitem(last=False)


def _credential(scope: Scope) -> str | None:
    """A digest of the secret as the gate reads it, however it is spelled: nothing that could be used is kept."""
    secret, _ = secret_of(Headers(scope=scope))
    return hashlib.sha256(secret.encode()).hexdigest() if secret else None
