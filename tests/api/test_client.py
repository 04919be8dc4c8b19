"""The client against a real server: every error comes back as it was raised; streams go on where they broke; waits are many short ones."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from api import client as client_module
from api.client import BY_CODE, Client
from api.domains import DomainWeights
from api.errors import BadRequest, NotFound, NotReady, ServiceUnreachable, SolfaError, SpecError, StoreUnavailable
from api.views import EventView
from services import problems
from tests.api.http_server import served
from tests.api.s3_servers import free_ports, silent_server
from tests.api.test_exports import weights_of
from tests.builders import START

CALLS: dict[str, Callable[[Client, str], object]] = {
    "get": lambda client, name: client.get(name),
    "spec": lambda client, name: client.spec(name),
    "plan": lambda client, name: client.plan(name),
    "stages": lambda client, name: client.stages(name),
    "cancel": lambda client, name: client.cancel(name),
    "retry": lambda client, name: client.retry(name),
    "delete": lambda client, name: client.delete(name),
    "logs": lambda client, name: client.logs(name, "proxy"),
    "follow_logs": lambda client, name: list(client.follow_logs(name, "proxy")),
    "events": lambda client, name: list(client.events(name)),
    "past_events": lambda client, name: list(client.past_events(name)),
    "weights": lambda client, name: client.weights(name),
    "export": lambda client, name: client.export(name, "csv"),
    "history": lambda client, name: client.history(name),
    "current_weights": lambda client, name: client.current_weights(name),
    "comparison": lambda client, name: client.comparison(name),
}
ROOT_CALLS: dict[str, Callable[[Client], object]] = {
    "submit": lambda client: client.submit("name: x", "key"),
    "validate": lambda client: client.validate("name: x"),
    "experiments": lambda client: list(client.experiments(phase="running", name_prefix="x")),
}


@pytest.fixture(scope="module")
def failing() -> Iterator[Client]:
    """A service that answers each request with the error whose code is the experiment's name, by the service's own handler."""
    app = FastAPI()
    problems.install(app)

    @app.api_route("/v1/experiments/{code}", methods=["GET", "POST", "DELETE"])
    @app.api_route("/v1/experiments/{code}/{rest:path}", methods=["GET", "POST"])
    def fail(code: str) -> None:
        raise BY_CODE[code](f"It is {code}.", problems=[{"pointer": "/x", "message": code}], final=True)

    @app.api_route("/v1/experiments", methods=["GET", "POST"])
    def fail_to_take() -> None:
        raise SpecError("The spec is none.", problems=[{"pointer": "/name", "message": "no", "line": 3}])

    with served(app) as url, Client(url) as client:
        yield client


@pytest.mark.parametrize("code", [code for code, kind in BY_CODE.items() if kind.__module__ == "api.errors"])
def test_every_error_comes_back_as_it_was_raised(failing: Client, code: str) -> None:
    with pytest.raises(SolfaError) as caught:
        failing.get(code)
    assert type(caught.value) is BY_CODE[code]
    assert caught.value.message == ("It is internal." if code == "internal" else f"It is {code}.")
    assert caught.value.extra == {"problems": [{"pointer": "/x", "message": code}], "final": True}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_raises_what_the_service_raised(failing: Client, call: str) -> None:
    with pytest.raises(NotFound, match="It is not_found"):
        CALLS[call](failing, "not_found")


@pytest.mark.parametrize("call", ROOT_CALLS)
def test_a_spec_that_is_refused_comes_back_with_its_problems(failing: Client, call: str) -> None:
    with pytest.raises(SpecError, match="The spec is none") as caught:
        ROOT_CALLS[call](failing)
    assert caught.value.extra["problems"] == [{"pointer": "/name", "message": "no", "line": 3}]


@pytest.mark.parametrize("name", ["a/b", "..", ".", ""])
def test_a_name_cannot_reach_beyond_its_place(failing: Client, name: str) -> None:
    for call in CALLS.values():
        with pytest.raises(NotFound, match="There is no"):
            call(failing, name)


def everything(client: Client) -> Iterator[Callable[[], object]]:
    for call in CALLS.values():
        yield lambda call=call: call(client, "x")  # type: ignore[misc]  # bound now
    for root_call in ROOT_CALLS.values():
        yield lambda call=root_call: call(client)  # type: ignore[misc]  # bound now


def test_nobody_there_is_said_by_every_call() -> None:
    [port] = free_ports(1)
    with Client(f"http://127.0.0.1:{port}", advice="; start one") as client:
        assert not client.ready()
        for call in everything(client):
            with pytest.raises(ServiceUnreachable, match=rf"No service answers at http://127.0.0.1:{port}.*; start one\.$") as caught:
                call()
            assert caught.value.retryable


def test_a_service_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    short = httpx.Timeout(0.1)
    for name in ("TIMEOUT", "STREAM_TIMEOUT"):
        monkeypatch.setattr(client_module, name, short)
    with silent_server() as port, Client(f"http://127.0.0.1:{port}") as client:
        assert not client.ready()
        for call in (lambda: client.get("x"), lambda: list(client.events("x")), lambda: client.submit("name: x")):
            with pytest.raises(ServiceUnreachable, match="timed out"):
                call()


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://[::1", "http://no such host"])
def test_an_address_that_is_none_is_an_error_of_ours(url: str) -> None:
    with pytest.raises((BadRequest, ServiceUnreachable)), Client(url) as client:
        client.get("x")


@pytest.mark.parametrize("url", ["localhost:8799", "solfa.example.com/there"])
def test_an_address_without_its_scheme_is_told_with_it(url: str) -> None:
    with pytest.raises(BadRequest, match=f"write http://{url}\\.$"):
        Client(url)


FOREIGN = {
    "a page": lambda: PlainTextResponse("<html>hello</html>", media_type="text/html"),
    "a list": lambda: JSONResponse([1, 2]),
    "another object": lambda: JSONResponse({"hello": "world"}),
    "nothing": lambda: PlainTextResponse(""),
    "no UTF-8": lambda: PlainTextResponse(b"\xff\xfe{"),
    "a redirect": lambda: PlainTextResponse("", status_code=302, headers={"Location": "/login"}),
    "an error page": lambda: PlainTextResponse("<html>502 Bad Gateway</html>", status_code=502),
    "an error object": lambda: JSONResponse({"error": "denied"}, status_code=403),
    "an error list": lambda: JSONResponse([{"error": "denied"}], status_code=500),
    "an empty error": lambda: PlainTextResponse("", status_code=504),
}


@pytest.mark.parametrize("answer", FOREIGN)
def test_what_is_no_service_of_ours_is_said_to_be_none(answer: str) -> None:
    app = FastAPI()

    @app.api_route("/{rest:path}", methods=["GET", "POST", "DELETE"])
    def anything() -> Any:
        return FOREIGN[answer]()

    text = {"spec", "export", "delete", "follow_logs", "events"}  # these take any text, or a stream of nothing
    with served(app) as url, Client(url) as client:
        for name, call in CALLS.items():
            if name in text and "error" not in answer:
                continue
            with pytest.raises(SolfaError) as caught:
                call(client, "x")
            assert caught.value.message
        for root_call in ROOT_CALLS.values():
            with pytest.raises(SolfaError):
                root_call(client)


def event(number: int, kind: str = "stage_changed", text: str = "") -> EventView:
    return EventView(id=number, experiment_id="x", at=START, kind=kind, stage="proxy", data={"text": text})


class Scripted:
    """A service whose event stream breaks, or ends, where the script says."""

    def __init__(self, cuts: list[tuple[int, str]], last: int) -> None:
        self.cuts, self.last, self.asked = list(cuts), last, []
        self.app = FastAPI()
        self.app.add_api_route("/v1/experiments/x", self.experiment)
        self.app.add_api_route("/v1/experiments/x/events", self.events)

    def experiment(self) -> Any:
        over = not self.cuts
        phase = "succeeded" if over else "running"
        times = {"created_at": START.isoformat(), "cancel_requested_at": None}
        return {"id": "x", "name": "x", "phase": phase, "spec_sha256": "0", "version": 1, "stages": [], **times}

    def events(self, last_event_id: str = Header()) -> StreamingResponse:
        self.asked.append(int(last_event_id))
        stop, how = self.cuts.pop(0) if self.cuts else (self.last, "ends")
        return StreamingResponse(self._lines(int(last_event_id), stop, how), media_type="text/event-stream")

    def _lines(self, after: int, stop: int, how: str) -> Iterator[str]:
        for number in range(after + 1, stop + 1):
            kind = "experiment_finished" if number == self.last else "stage_changed"
            yield f": a heartbeat\n\nid: {number}\nevent: {kind}\ndata: {event(number, kind).model_dump_json()}\n\n"
        if how == "breaks":
            yield f'id: {stop + 1}\nevent: stage_changed\ndata: {{"id": {stop + 1}, "exp'
            raise ConnectionAbortedError


@pytest.mark.parametrize(
    "cuts",
    [
        [],
        [(3, "breaks")],
        [(3, "ends")],  # as a service does that is told to stop
        [(0, "breaks"), (0, "ends"), (1, "breaks"), (1, "ends"), (6, "breaks")],
        [(7, "breaks")],
        [(6, "ends")],
    ],
)
def test_a_broken_stream_of_events_goes_on_without_loss_or_repetition(cuts: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSE", 0.01)
    script = Scripted(cuts, last=7)
    with served(script.app) as url, Client(url) as client:
        assert [one.id for one in client.events("x")] == [1, 2, 3, 4, 5, 6, 7]
    assert script.asked == [0, *[stop for stop, _ in cuts if stop < 7]]


def test_events_after_one_that_is_known_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted([], last=5)
    with served(script.app) as url, Client(url) as client:
        assert [one.id for one in client.events("x", after=3)] == [4, 5]
        assert list(client.events("x", after=5)) == []  # finished, and nothing new: no waiting for ever


@contextmanager
def talking(text: bytes) -> Iterator[str]:
    """A server that answers one request with a stream of `text`, byte by byte."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for byte in head + text:
                    connection.sendall(bytes([byte]))

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_log_lines_come_as_they_were_written() -> None:
    odd = "form\ffeed, next\x85line, U+2028 \u2028, tab\t and an emoji \U0001f600"
    text = f"event: line\r\ndata: {odd}\r\n\r\n: ping\r\n\r\nevent: line\ndata: one\ndata:two\n\n"
    text += "event: line\rdata:   indented\r\rdata:\n\nevent: end\ndata:\n\n"
    with talking(text.encode()) as url, Client(url) as client:
        assert list(client.follow_logs("x", "proxy")) == [odd, "one\ntwo", "  indented", ""]


def test_a_log_that_breaks_off_does_not_look_complete() -> None:
    with talking(b"event: line\ndata: one\n\nevent: line\ndata: tw") as url, Client(url) as client:
        lines = client.follow_logs("x", "proxy")
        assert next(lines) == "one"
        with pytest.raises(ServiceUnreachable, match="broke off"):
            next(lines)


WEIGHTS = weights_of(DomainWeights.uniform(["a", "b"]))


class Waiting:
    """A service whose weights come with the request of the given number; until then it answers as the script says."""

    def __init__(self, *answers: SolfaError) -> None:
        self.answers, self.asked = list(answers), []
        self.app = FastAPI()
        problems.install(self.app)
        self.app.add_api_route("/v1/experiments/x/weights", self.weights)

    def weights(self, request: Request) -> Any:
        self.asked.append(float(request.query_params["wait"]))
        if self.answers:
            raise self.answers.pop(0)
        return json.loads(WEIGHTS.model_dump_json())


def waited(wait: float, *answers: SolfaError) -> tuple[list[float], Any]:
    script = Waiting(*answers)
    with served(script.app) as url, Client(url) as client:
        try:
            return script.asked, client.weights("x", wait=wait)
        except SolfaError as error:
            return script.asked, error


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSE", 0.01)


def test_a_long_wait_is_many_short_ones(hasty: None) -> None:
    asked, answer = waited(3600, *(NotReady("Not yet.", final=False) for _ in range(3)))
    assert answer == WEIGHTS
    assert asked == [client_module.WAIT_SLICE] * 4


def test_a_wait_ends_with_why_there_are_no_weights(hasty: None) -> None:
    asked, answer = waited(0, NotReady("The proxy is queued.", final=False))
    assert (asked, type(answer), answer.message) == ([0], NotReady, "The proxy is queued.")


def test_answers_that_come_too_soon_do_not_become_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a service whose own longest wait is shorter than the client's."""
    monkeypatch.setattr(client_module, "PAUSE", 3600)  # which the deadline cuts short
    asked, answer = waited(0.2, *(NotReady("The proxy is queued.", final=False) for _ in range(500)))
    assert isinstance(answer, NotReady)
    assert [wait > 0 for wait in asked] == [True, False]


def test_weights_that_can_no_longer_come_are_not_waited_for(hasty: None) -> None:
    asked, answer = waited(3600, NotReady("The proxy failed.", final=True))
    assert (len(asked), type(answer)) == (1, NotReady)


def test_a_service_that_falters_meanwhile_is_waited_for(hasty: None) -> None:
    asked, answer = waited(3600, NotReady("Not yet.", final=False), StoreUnavailable("Locked."), StoreUnavailable("Locked."))
    assert (len(asked), answer) == (4, WEIGHTS)
    asked, answer = waited(3600, StoreUnavailable("Locked."))
    assert (len(asked), type(answer)) == (1, StoreUnavailable)  # one that never answered is not
    asked, answer = waited(3600, NotReady("Not yet.", final=False), NotFound("It was deleted."))
    assert (len(asked), type(answer)) == (2, NotFound)
