"""Who a request counts as, how often they may ask, and how many of their requests may be open at once."""

import hashlib
from collections import Counter, OrderedDict

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import TooManyRequests
from services.access.gate import secret_of
from services.access.origin import client_address, sender
from services.access.principal import Principal
from services.access.rights import is_open
from services.problems import answer_to
from services.rates import MOST_CALLERS, Rates, Verdict

PROBES = ("/healthz", "/readyz")  # asked by a kubelet, however busy the rest is


class Known:
    """Tells the middleware within whose a request is: a token's once one has been good, its sender's address before and without.

    `guarded`: whether tokens are asked for; where they are not, none is ever good.
    """

    def __init__(self, app: ASGIApp, guarded: bool) -> None:
        self._app, self._guarded = app, guarded
        self._good: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        credential = _credential(scope) if self._guarded and not is_open(scope["path"]) else None  # elsewhere nobody finds out whose it is
        known = credential is not None and credential in self._good
        state = scope.setdefault("state", {})
        state["caller"] = credential if known and credential else sender(client_address(scope))

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and credential:
                self._note(credential, state.get("principal"), message["status"])
            await send(message)

        await self._app(scope, receive, noted)

    def _note(self, credential: str, principal: Principal | None, status: int) -> None:
        """Good is what the gate has found a token's; one that was refused is its sender's address again: many tries gain nothing."""
        if status == 401:
            self._good.pop(credential, None)
        elif principal:
            self._good[credential] = None
            self._good.move_to_end(credential)
            if len(self._good) > MOST_CALLERS:
                self._good.popitem(last=False)


class Often:
    """Refuses with 429 who asks more often than `rates` allows."""

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self._app, self._rates = app, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = _caller(scope)
        if caller is None:
            await self._app(scope, receive, send)
            return
        verdict = self._rates.ask(caller)
        told = self._rates.headers(verdict)
        if not verdict.allowed:
            await answer_to(self._refusal(verdict), scope["path"], told)(scope, receive, send)
            return

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *((name.encode(), value.encode()) for name, value in told.items())]
            await send(message)

        await self._app(scope, receive, send_told)

    def _refusal(self, verdict: Verdict) -> TooManyRequests:
        seconds = f"{verdict.wait} second{'s' if verdict.wait > 1 else ''}"
        return TooManyRequests(f"More than {self._rates.quota} requests in a minute came from you; ask again in {seconds}.")


class AtOnce:
    """Refuses with 429 who has `most` requests open: streams and waits go on for long, on connections that all callers share."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = _caller(scope)
        if caller is None:
            await self._app(scope, receive, send)
            return
        if self._open[caller] >= self._most:
            many = TooManyRequests(f"{self._most} of your requests are open, streams and waits among them; end one before you ask again.")
            await answer_to(many, scope["path"], {"Retry-After": "1"})(scope, receive, send)
            return
        self._open[caller] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


def _caller(scope: Scope) -> str | None:
    """As Known has said; None for what is not counted."""
    found: str | None = scope.get("state", {}).get("caller")
    return found


def _credential(scope: Scope) -> str | None:
    """A digest of the secret as the gate reads it, however it is spelled: nothing that could be used is kept."""
    secret, _ = secret_of(Headers(scope=scope))
    return hashlib.sha256(secret.encode()).hexdigest() if secret else None
