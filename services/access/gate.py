"""The gate: every request goes through it and comes out with a Principal, or not at all; so no route can be forgotten."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import PROJECT_HEADER
from api.errors import Forbidden, SolfaError, StoreError, Unauthorized
from services.access.caches import unshared
from services.access.origin import SAFE, client_address, foreign_host, from_elsewhere, host_name
from services.access.principal import LOCAL, Principal
from services.access.rights import WATCHING, is_open
from services.access.tokens import Tokens
from services.problems import problem

COOKIE = "solfa_token"
CHECK = timedelta(seconds=5)  # between two looks at whether the token of an answer that is not whole yet is still valid
ENDED = "This token has expired or was revoked while you waited for the answer; ask whoever runs the service for another."


class Gate:
    """`tokens`: None where none are asked for. `on_loopback`: whether only this machine reaches the service."""

    def __init__(self, app: ASGIApp, tokens: Tokens | None, on_loopback: bool, clock: Callable[[], datetime]) -> None:
        self._app, self._tokens, self._on_loopback, self._clock = app, tokens, on_loopback, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith("/v1/"):
            send = unshared(send)
        headers = Headers(scope=scope)
        secret, by_cookie = secret_of(headers)
        try:
            self._check_origin(scope["method"], headers, by_token=bool(secret) and not by_cookie, by_cookie=by_cookie)
            principal = None if is_open(scope["path"]) else await self._principal(secret, headers, scope["path"])
        except SolfaError as error:
            await _refusal(error, scope, headers)(scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal and replace(principal, address=client_address(scope))
        if principal is None or principal.token_id is None:
            await self._app(scope, receive, send)
            return
        answer = _WhileValid(self._tokens, secret, send, self._clock, is_read=scope["method"] in SAFE)
        try:
            await self._app(scope, receive, answer)
        except* _Ended:
            if answer.has_begun:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await _refusal(Unauthorized(ENDED), scope, headers)(scope, receive, send)

    def _check_origin(self, method: str, headers: Headers, *, by_token: bool, by_cookie: bool) -> None:
        host = host_name(headers.get("host", ""))  # of every request: whatever reads its URL later must find one
        if self._on_loopback and self._tokens is None and foreign_host(host):
            raise Forbidden(f"This service is for this machine alone, and was asked for as {headers.get('host')}; ask for 127.0.0.1.")
        if not by_token and from_elsewhere(method, headers, by_cookie=by_cookie):
            raise Forbidden("A change that another site's page asks for is refused; do it on Solfa's own page, or with a token.")

    async def _principal(self, secret: str, headers: Headers, path: str) -> Principal:
        if self._tokens is None:
            found = LOCAL
        elif not secret:
            raise Unauthorized("This service asks for a token: send `Authorization: Bearer TOKEN`, or set SOLFA_TOKEN for `solfa`.")
        else:
            found = await run_in_threadpool(self._tokens.principal, secret, while_away=path in WATCHING)
        return found.within(headers.get(PROJECT_HEADER))


class _WhileValid:
    """What an answer is sent by: one that took its time, or goes on, ends with the token it was asked for with."""

    def __init__(self, tokens: Tokens | None, secret: str, send: Send, clock: Callable[[], datetime], *, is_read: bool) -> None:
        self._tokens, self._secret, self._send, self._clock, self._is_read = tokens, secret, send, clock, is_read
        self._checked = clock()
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        """Raises _Ended."""
        begins = message["type"] == "http.response.start"
        tells = self._is_read if begins else message.get("more_body")  # a change was made by now, and is told as made
        if tells and self._tokens and self._clock() - self._checked >= CHECK:
            await self._check(self._tokens)
        self.has_begun = self.has_begun or begins
        await self._send(message)

    async def _check(self, tokens: Tokens) -> None:
        try:
            await run_in_threadpool(tokens.principal, self._secret)
        except Unauthorized as error:
            raise _Ended from error
        except StoreError:  # a database that is away is waited for by streams, and tells them nothing meanwhile
            pass
        else:
            self._checked = self._clock()


class _Ended(Exception):
    """The token of an answer is valid no longer."""


def secret_of(headers: Headers) -> tuple[str, bool]:
    """(the secret that came with a request, or "", whether a browser's cookie brought it)."""
    kind, _, secret = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return secret.strip(), False
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        cookie = None
    return (cookie.value, True) if cookie else ("", False)


def _refusal(error: SolfaError, scope: Scope, headers: Headers) -> Response:
    """A problem document; to a person who opens a page, the way to sign in."""
    if isinstance(error, Unauthorized) and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
        asked = quote(scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""))
        return RedirectResponse(f"/sign-in?next={asked}", 303, headers={"Cache-Control": "no-store"})
    answer = problem(error.status, error.code, error.message, scope["path"])
    if isinstance(error, Unauthorized):
        answer.headers["WWW-Authenticate"] = 'Bearer realm="solfa"'
    return answer
