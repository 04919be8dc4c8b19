"""What every request is held to before a route sees it: the size of its body, and its pace."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ContentTooLarge, RequestTimeout
from services.access.rights import is_open
from services.problems import answer_to

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
