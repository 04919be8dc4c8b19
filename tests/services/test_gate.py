"""The gate by itself: what becomes of an answer whose token, or database, goes while it is made."""

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from starlette.types import Message, Receive, Scope, Send

from api import access
from api.errors import SolfaError, StoreUnavailable, Unauthorized
from services.access.gate import CHECK, Gate
from services.access.principal import Principal
from tests.builders import START

TOKEN = Principal("waiter", access.Scope.READ, "default", "t1")
REVOKED, AWAY = Unauthorized("It was revoked."), StoreUnavailable("It is away.")


class Answers:
    """What each look-up of a token says."""

    def __init__(self, *answers: Principal | SolfaError) -> None:
        self._answers: Iterator[Principal | SolfaError] = iter(answers)

    def principal(self, secret: str, **_: object) -> Principal:
        answer = next(self._answers)
        if isinstance(answer, SolfaError):
            raise answer
        return answer


def sent(tokens: Answers, took: timedelta, method: str = "GET") -> list[Message]:
    """What a client gets of an answer that was ready after some time."""
    now: datetime = START
    messages: list[Message] = []

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal now
        now += took
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"weights"})

    async def keep(message: Message) -> None:
        messages.append(message)

    async def silent() -> Message:
        return {"type": "http.disconnect"}

    gate = Gate(route, tokens, False, lambda: now)  # type: ignore[arg-type]  # all that a gate asks of tokens
    scope = {"type": "http", "method": method, "path": "/v1/x", "query_string": b"", "headers": [(b"authorization", b"Bearer x")]}
    asyncio.run(gate(scope, silent, keep))
    return messages


def test_who_waited_for_an_answer_gets_none_once_the_token_is_valid_no_longer() -> None:
    start, body = sent(Answers(TOKEN, REVOKED), CHECK)
    assert start["status"] == 401
    assert (b"www-authenticate", b'Bearer realm="solfa"') in start["headers"]
    assert json.loads(body["body"])["code"] == "unauthorized"


@pytest.mark.parametrize(
    ("tokens", "took", "method"),
    [
        (Answers(TOKEN, TOKEN), CHECK, "GET"),
        (Answers(TOKEN), CHECK / 2, "GET"),  # it is not looked up again so soon
        (Answers(TOKEN, AWAY), CHECK, "GET"),
        (Answers(TOKEN), CHECK, "POST"),  # what was changed is told, or its sender would do it again
    ],
)
def test_every_other_answer_arrives_whole(tokens: Answers, took: timedelta, method: str) -> None:
    start, body = sent(tokens, took, method)
    assert (start["status"], body["body"]) == (200, b"weights")
