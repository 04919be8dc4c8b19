"""Who may do what, over HTTP: no route without a token, no scope beyond its own, and another project's experiments are not there."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Send

from api.access import NewToken, Scope
from api.client import Client
from api.errors import Forbidden, NotFound, StoreUnavailable, Unauthorized
from services.access.gate import CHECK, Gate
from services.access.principal import Principal
from services.access.rights import is_open, needed
from services.app import ROUTERS
from tests.builders import START
from tests.services.running import Running, problem, running
from tests.services.waiting import wait_for

ADMIN = "an administrator's token of the settings"
ROUTES = [
    (method, route.path, route.operation_id or route.name)
    for module in ROUTERS
    for route in module.router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods)
]
GUARDED = [one for one in ROUTES if not is_open(one[1].replace("{name}", ""))]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that asks for tokens; `http` has none."""
    with running(tmp_path_factory.mktemp("guarded"), access="required", admin_token=ADMIN) as service:
        yield service


def as_(service: Running, token: str, project: str = "") -> Client:
    return Client(str(service.http.base_url), token=token, project=project)


def issue(service: Running, name: str, scope: Scope = Scope.SUBMIT, project: str | None = "default", **more: Any) -> str:
    with as_(service, ADMIN) as client:
        return client.create_token(NewToken(name=name, scope=scope, project=project, **more)).secret


def ask(service: Running, method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    filled = path.format(experiment="nothing", stage="proxy", token="t0", name="page.css")
    with service.http.stream(method, filled, headers=headers, follow_redirects=False, **more) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):  # such an answer has no end
            answer.read()
    return answer


@pytest.mark.parametrize(("method", "path", "operation"), GUARDED)
def test_no_route_answers_without_a_token_or_with_a_wrong_one(guarded: Running, method: str, path: str, operation: str) -> None:
    for token in (None, "solfa_wrong", ADMIN[:-1]):
        answer = ask(guarded, method, path, token)
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_only_what_watches_the_process_and_the_way_in_answer_without_one(guarded: Running) -> None:
    opened = {path for _, path, _ in ROUTES} - {path for _, path, _ in GUARDED}
    assert opened == {"/healthz", "/readyz", "/sign-in", "/sign-out", "/static/{name}"}
    assert {path: ask(guarded, "GET", path).status_code for path in ("/healthz", "/readyz", "/sign-in", "/static/{name}")} == dict.fromkeys(
        ("/healthz", "/readyz", "/sign-in", "/static/{name}"), 200
    )


@pytest.mark.parametrize(("method", "path", "operation"), GUARDED)
def test_each_scope_reaches_what_it_covers_and_is_told_what_else_it_would_need(
    guarded: Running, method: str, path: str, operation: str
) -> None:
    for scope, token in tokens_of(guarded).items():
        answer = ask(guarded, method, path, token)
        if scope.covers(needed(method, operation)):
            assert answer.status_code not in (401, 403) or operation == "metrics", answer.text
        else:
            assert f"this needs {needed(method, operation)}" in problem(answer, 403, "forbidden")["detail"]


def tokens_of(service: Running) -> dict[Scope, str]:
    """One of each scope; the weights token's experiment is there."""
    key = str(service.root)
    if key not in _MADE:
        with as_(service, ADMIN) as client:
            client.submit(service.spec("weighed", {"hang": {"prepare": [1]}}))
        _MADE[key] = {scope: issue(service, f"the-{scope}", scope) for scope in (Scope.READ, Scope.SUBMIT, Scope.ADMIN)} | {
            Scope.WEIGHTS: issue(service, "the-weights", Scope.WEIGHTS, experiment="weighed")
        }
    return _MADE[key]


_MADE: dict[str, dict[Scope, str]] = {}


def test_a_reader_changes_nothing_and_the_database_holds_no_secret(guarded: Running) -> None:
    secret = issue(guarded, "reader", Scope.READ)
    with as_(guarded, secret) as client:
        with pytest.raises(Forbidden, match="The token reader has the scope read; this needs submit"):
            client.submit(guarded.spec("never"))
        assert "never" not in [one.name for one in client.experiments()]
    files = [path.read_bytes() for path in guarded.root.glob("solfa.db*")]
    assert files
    assert not any(secret.encode() in data or ADMIN.encode() in data for data in files)


def test_another_projects_experiments_are_as_if_they_did_not_exist(guarded: Running) -> None:
    red, blue = (issue(guarded, name, Scope.ADMIN, name) for name in ("red", "blue"))
    with as_(guarded, red) as one, as_(guarded, blue) as other:
        made = one.submit(guarded.spec("shared-name", {"steps": 4}))
        mine = other.submit(guarded.spec("shared-name", {"hang": {"prepare": [1]}}))  # a name that is taken there is free here
        one.submit(guarded.spec("only-red", {"hang": {"prepare": [1]}}))
        assert (made.project, mine.project) == ("red", "blue")
        assert [found.id for found in other.experiments()] == [mine.id]
        assert other.get("shared-name").id == mine.id
        for method, path, operation in GUARDED:
            if "{experiment}" not in path or operation == "experiment":
                continue
            told = [
                ask(guarded, method, path.replace("{experiment}", name), blue, json={"replicas": 1})
                for name in (made.id, "only-red", "x0000000000")
            ]
            texts = {
                (answer.status_code, answer.text.replace(made.id, "?").replace("only-red", "?").replace("x0000000000", "?"))
                for answer in told
            }
            assert len(texts) == 1, (path, texts)
            assert texts.pop()[0] in (404, 422), path
        for page in (f"/experiments/{made.id}", "/experiments/only-red"):
            assert ask(guarded, "GET", page, blue).status_code == 404
        assert "only-red" not in ask(guarded, "GET", "/", blue).text
        problem(ask(guarded, "GET", "/metrics", blue), 403, "forbidden")
        with pytest.raises(Forbidden, match="of the project blue, and of no other"), as_(guarded, blue, project="red") as nosy:
            nosy.get("only-red")
        key = "the-same-key"
        first = one.submit(guarded.spec("keyed", {"hang": {"prepare": [1]}}), key)
        assert other.submit(guarded.spec("keyed-otherwise", {"hang": {"prepare": [1]}}), key).id != first.id


def test_the_administrator_sees_every_project_and_names_the_one_it_means(guarded: Running) -> None:
    with as_(guarded, ADMIN, project="green") as green, as_(guarded, ADMIN, project="grey") as grey, as_(guarded, ADMIN) as every:
        made = [client.submit(guarded.spec("of-many", {"hang": {"prepare": [1]}})) for client in (green, grey)]
        assert [one.project for one in made] == ["green", "grey"]
        assert {made[0].id, made[1].id} <= {one.id for one in every.experiments()}
        assert green.get("of-many").id == made[0].id
        answer = ask(guarded, "GET", "/v1/experiments/of-many", ADMIN)
        detail = problem(answer, 400, "bad_request")["detail"]
        assert "in each of the projects green, grey; set SOLFA_PROJECT to one, or use the id that `solfa list` shows" in detail
        assert every.get(made[1].id).project == "grey"
        assert ask(guarded, "GET", "/metrics", ADMIN).status_code == 200


def test_results_are_adopted_within_a_project_alone(guarded: Running) -> None:
    def stages(client: Client, name: str) -> dict[str, str]:
        client.submit(guarded.spec(name, {"steps": 4}, adopt="same_digest"))
        wait_for(lambda: client.get(name).phase == "succeeded")
        return {stage.name: str(stage.reason) for stage in client.get(name).stages}

    left, right = (issue(guarded, name, Scope.SUBMIT, name) for name in ("left", "right"))
    with as_(guarded, left) as one, as_(guarded, right) as other:
        assert "adopted" not in stages(one, "first").values()
        assert "adopted" not in stages(other, "second").values()
        assert stages(one, "third")["prepare"] == "adopted"


def test_a_weights_token_reads_the_weights_of_its_experiment(guarded: Running) -> None:
    with as_(guarded, ADMIN, project="handed") as client:
        for name in ("handed-on", "kept"):
            client.submit(guarded.spec(name, {"steps": 4}))
        wait_for(lambda: {client.get(name).phase for name in ("handed-on", "kept")} == {"succeeded"})
    secret = issue(guarded, "downstream", Scope.WEIGHTS, "handed", experiment="handed-on")
    with as_(guarded, secret) as job:
        assert job.weights("handed-on", wait=30).averaged_weights.root
        assert "books" in job.export("handed-on", "megatron")
        for name in ("kept", "no-such"):
            with pytest.raises(NotFound, match=f"There is no experiment {name}"):
                job.weights(name)
        with pytest.raises(Forbidden, match="has the scope weights; this needs read"):
            job.get("handed-on")


def test_a_project_administrator_issues_within_its_project_and_no_more(guarded: Running) -> None:
    chief = issue(guarded, "chief", Scope.ADMIN, "team")
    with as_(guarded, chief) as client, as_(guarded, ADMIN) as every:
        issued = client.create_token(NewToken(name="member", scope=Scope.READ))
        assert (issued.project, issued.created_by) == ("team", "chief")
        assert {view.project for view in client.tokens()} == {"team"}
        other = every.create_token(NewToken(name="stranger", scope=Scope.READ, project="elsewhere"))
        with pytest.raises(Forbidden, match="of the project team, and of no other"):
            client.create_token(NewToken(name="spy", scope=Scope.READ, project="elsewhere"))
        with pytest.raises(NotFound, match=f"There is no token {other.id}"):
            client.revoke_token(other.id)
        assert client.revoke_token(issued.id).revoked_at is not None
        with as_(guarded, issued.secret) as member, pytest.raises(Unauthorized, match="has expired or was revoked"):
            member.tokens()


def test_an_open_stream_ends_when_its_token_is_revoked(guarded: Running) -> None:
    with as_(guarded, ADMIN) as every:
        every.submit(guarded.spec("watched", {"hang": {"prepare": [1]}}))
        headers = {"Accept": "text/event-stream"}
        ended = threading.Event()

        def read(path: str) -> None:
            with (
                httpx.Client(base_url=guarded.http.base_url, timeout=60, trust_env=False) as http,
                http.stream("GET", path, headers=headers) as answer,
            ):
                assert answer.status_code == 200
                for line in answer.iter_lines():
                    if line:
                        opened.release()
            ended.set()

        for path in ("/v1/experiments/watched/events", "/experiments/watched/live"):
            opened = threading.Semaphore(0)
            ended.clear()
            issued = every.create_token(NewToken(name="watcher", scope=Scope.READ, project="default"))
            headers["Authorization"] = f"Bearer {issued.secret}"
            reader = threading.Thread(target=read, args=(path,))
            reader.start()
            assert opened.acquire(timeout=30)
            every.revoke_token(issued.id)
            assert ended.wait(60)
            reader.join()


def test_an_open_stream_outlives_a_database_that_does_not_tell_whose_its_token_is() -> None:
    """Over the gate itself: what a token's look-up says at each sign of life of a stream, and which of them arrive."""
    token = Principal("watcher", Scope.READ, "default", "t1")
    answers = iter([token, StoreUnavailable("It is away."), StoreUnavailable("It is away."), token, Unauthorized("It was revoked."), token])
    now = START
    sent: list[Message] = []

    class Answers:
        def principal(self, secret: str) -> Principal:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    async def stream(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal now
        for number in range(6):
            now += CHECK
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})

    async def keep(message: Message) -> None:
        sent.append(message)

    async def silent() -> Message:
        return {"type": "http.disconnect"}

    gate = Gate(stream, Answers(), True, lambda: now)  # type: ignore[arg-type]  # all that a gate asks of tokens
    scope = {"type": "http", "method": "GET", "path": "/v1/events", "query_string": b"", "headers": [(b"authorization", b"Bearer x")]}
    asyncio.run(gate(scope, silent, keep))
    assert [message["body"] for message in sent] == [b"0", b"1", b"2", b""]
    assert sent[-1]["more_body"] is False


def test_a_cookie_changes_nothing_from_another_site(guarded: Running) -> None:
    secret = issue(guarded, "person")
    form = {"token": secret, "next": "/experiments/weighed"}
    origin = str(guarded.http.base_url).rstrip("/")
    with httpx.Client(base_url=guarded.http.base_url, timeout=30, trust_env=False) as browser:
        refused = browser.post("/sign-in", data={"token": "solfa_wrong"}, headers={"Origin": origin})
        assert (refused.status_code, "This token is not valid" in refused.text, browser.cookies) == (401, True, httpx.Cookies())
        there = browser.get("/experiments/weighed?x=1", headers={"Accept": "text/html"})
        assert (there.status_code, there.headers["location"]) == (303, "/sign-in?next=/experiments/weighed%3Fx%3D1")
        answer = browser.post("/sign-in", data=form, headers={"Origin": origin})
        assert (answer.status_code, answer.headers["location"]) == (303, "/experiments/weighed")
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
        tokens_of(guarded)
        assert browser.get("/experiments/weighed").status_code == 200
        path = "/v1/experiments/weighed/cancel"
        for headers in (
            {"Origin": "https://elsewhere.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Origin": "null"},
            {},
            {"Origin": "null", "Authorization": "Basic eDp5"},
        ):
            problem(browser.post(path, headers=headers), 403, "forbidden")
        for away in ("//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example"):
            answer = browser.post("/sign-in", data={**form, "next": away}, headers={"Origin": origin})
            assert answer.headers["location"] == "/"
        assert browser.post(path, headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"}).status_code in (202, 409)
        assert browser.post("/sign-out", headers={"Origin": origin}).status_code == 303
        assert browser.get("/v1/experiments").status_code == 401


def test_a_service_on_loopback_is_not_reached_by_another_sites_name(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        for host in ("127.0.0.1:1", "localhost", "[::1]:80", "solfa"):
            assert service.http.get("/v1/experiments", headers={"Host": host}).status_code == 200, host
        problem(service.http.get("/v1/experiments", headers={"Host": "rebound.example:8700"}), 403, "forbidden")
        problem(service.http.post("/v1/experiments", headers={"Origin": "https://elsewhere.example"}), 403, "forbidden")
