"""What answers without a token: it takes little, does little, and tells little."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from api.access import NewToken, Scope
from api.errors import StoreUnavailable
from services.limits import MOST_OPEN
from services.page.sign_in import MOST_FIELDS
from services.readiness import KEPT_SECONDS, Readiness
from tests.services.running import Running, problem, running

ADMIN = "an administrator's token of the settings"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("open"), access="required", admin_token=ADMIN, reconcile=False) as service:
        yield service


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/healthz", "/static/page.css"])
def test_no_more_is_read_than_a_form_needs(guarded: Running, path: str) -> None:
    answer = guarded.http.post(path, content="%=%&" * (MOST_OPEN // 4) + "x", headers=FORM)
    assert f"over {MOST_OPEN:,} bytes" in problem(answer, 413, "content_too_large")["detail"]


def test_no_more_fields_are_taken_than_a_form_has(guarded: Running) -> None:
    answer = guarded.http.post("/sign-in", content="&".join(["%=%"] * (MOST_FIELDS + 1)), headers=FORM)
    assert "more than 8 fields" in problem(answer, 400, "bad_request")["detail"]
    longest = "/" * 2000  # as long as /sign-in?next= may be, and three bytes each in a form
    assert guarded.http.post("/sign-in", data={"token": ADMIN, "next": longest}).status_code == 303
    guarded.http.cookies.clear()


def test_nobody_without_a_token_is_told_where_the_bucket_is(guarded: Running, caplog: pytest.LogCaptureFixture) -> None:
    folder = guarded.root / "bucket"
    folder.rename(guarded.root / "unmounted")
    with caplog.at_level(logging.WARNING):
        answer = guarded.http.get("/readyz")
    (guarded.root / "unmounted").rename(folder)
    assert problem(answer, 503, "bucket_unavailable")["detail"] == "Not ready; the service's log says why."
    assert answer.headers["retry-after"] == "1"
    assert str(folder) in caplog.text


def test_however_many_ask_there_is_one_look_and_it_is_kept_for_a_moment(caplog: pytest.LogCaptureFixture) -> None:
    now, looks, go_on = 0.0, 0, threading.Event()

    def ping() -> None:
        nonlocal looks
        looks += 1
        assert go_on.wait(60)
        if looks > 1:
            raise StoreUnavailable("It is away from /somewhere.")

    async def ask() -> None:
        nonlocal now
        bucket: Any = SimpleNamespace(exists=lambda _: False)
        readiness = Readiness(SimpleNamespace(ping=ping), bucket, lambda: now)
        many = [asyncio.create_task(readiness.failure()) for _ in range(100)]
        await asyncio.sleep(0)  # they have asked
        many.pop().cancel()
        go_on.set()
        assert await asyncio.gather(*many) == [None] * 99
        assert await readiness.failure() is None
        assert looks == 1
        now = KEPT_SECONDS
        assert [type(await readiness.failure()) for _ in range(10)] == [StoreUnavailable] * 10
        assert looks == 2

    with caplog.at_level(logging.WARNING):
        asyncio.run(ask())
    assert [record.getMessage() for record in caplog.records] == ["Not ready: It is away from /somewhere."]


@pytest.mark.parametrize("path", ["/healthz", "/sign-in", "/static/page.css", "/", "/v1/experiments", "/v1/nowhere", "/openapi.json"])
def test_no_answer_is_taken_for_another_kind(guarded: Running, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {ADMIN}"}):
        assert guarded.http.get(path, headers=headers).headers.get_list("x-content-type-options") == ["nosniff"]


def test_a_secret_is_kept_by_nobody_on_its_way(guarded: Running) -> None:
    answer = guarded.http.post("/v1/tokens", json={"name": "a", "scope": "read"}, headers={"Authorization": f"Bearer {ADMIN}"})
    assert answer.json()["secret"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["local", "Local", "local ", "administrator", "ADMINISTRATOR"])
def test_no_token_is_called_what_the_audit_record_calls_somebody_else(name: str) -> None:
    with pytest.raises(ValidationError, match="is what the audit record calls somebody else"):
        NewToken(name=name, scope=Scope.READ)
