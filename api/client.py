"""The HTTP client of the service, for the CLI and for downstream jobs.

with Client("http://127.0.0.1:8700") as client:
    client.submit(text)
    weights = client.weights("demo", wait=3600).averaged_weights
"""

import json
import re
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from api.access import PROJECT_HEADER, AuditEntry, AuditPage, IssuedToken, NewToken, RevokedToken, TokenList, TokenView
from api.errors import BadRequest, NotFound, NotReady, ServiceUnreachable, SolfaError
from api.experiment import ExperimentPhase
from api.plan import Plan
from api.views import (
    ComparisonView,
    CurrentWeights,
    DataView,
    EventList,
    EventView,
    ExperimentList,
    ExperimentSummary,
    ExperimentView,
    LogView,
    ProblemDocument,
    StageView,
    Validated,
    Weights,
)
from api.weights import HistoryHeader, WeightCheckpoint

View = TypeVar("View", bound=BaseModel | list[StageView])
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
STREAM_TIMEOUT = httpx.Timeout(60.0, connect=5.0)  # three heartbeats of the service
WAIT_SLICE = 20.0  # seconds one request waits for weights; a longer wait is many of them
TOKENS = "/v1/tokens"
LAST_EVENT = "experiment_finished"
ENDED = (ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED, ExperimentPhase.CANCELLED)
PATIENCE = 3  # times that a request is sent again, having come too soon
PAUSE = 0.5  # seconds before asking again
_LINE_END = re.compile(r"\r\n|\n|\r")


def _tree(root: type[SolfaError]) -> Iterator[type[SolfaError]]:
    yield root
    for below in root.__subclasses__():
        yield from _tree(below)


BY_CODE = {error.code: error for error in _tree(SolfaError)}


class _History(BaseModel):
    """The answer of weights/history."""

    header: HistoryHeader | None
    checkpoints: list[WeightCheckpoint]


class Client:
    """A context manager. Every method raises the SolfaError that the service answered with, or ServiceUnreachable."""

    def __init__(
        self, url: str, transport: httpx.BaseTransport | None = None, token: str = "", project: str = "", advice: str = ""
    ) -> None:
        """`token`: where the service asks for one. `project`: for who may see every one, the one that is meant. `advice`: the end of the
        sentence where no service answers."""
        self.url, self.project, self._advice = url, project, advice
        if not url.startswith(("http://", "https://")):
            raise BadRequest(f"{url!r} is no address of a service; write {_written_out(url)}.")
        said = {"Authorization": f"Bearer {token}" if token else "", PROJECT_HEADER: project}
        headers = {name: value for name, value in said.items() if value}
        try:
            self._http = httpx.Client(base_url=url, timeout=TIMEOUT, transport=transport, trust_env=False, headers=headers)
        except httpx.InvalidURL as error:
            raise BadRequest(f"{url} is no address of a service ({error}); give one such as http://127.0.0.1:8700.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, text: str, idempotency_key: str | None = None) -> ExperimentView:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return _understood(ExperimentView, self._send("POST", "", content=text, headers=headers | _yaml()).content)

    def validate(self, text: str) -> Validated:
        """What a submission would make; nothing is recorded."""
        answer = self._send("POST", "", content=text, params={"validate_only": True}, headers=_yaml())
        return _understood(Validated, answer.content)

    def experiments(self, phase: str | None = None, name_prefix: str | None = None) -> Iterator[ExperimentSummary]:
        """All experiments, newest first, page by page."""
        cursor = None
        while True:
            chosen = {"limit": 100, "cursor": cursor, "phase": phase, "name_prefix": name_prefix}
            page = self._read(ExperimentList, "", {name: value for name, value in chosen.items() if value is not None})
            yield from page.experiments
            cursor = page.next_cursor
            if cursor is None:
                return

    def get(self, experiment: str) -> ExperimentView:
        return self._read(ExperimentView, _path(experiment))

    def spec(self, experiment: str) -> str:
        return self._send("GET", _path(experiment, "spec")).text

    def plan(self, experiment: str) -> Plan:
        return self._read(Plan, _path(experiment, "plan"))

    def stages(self, experiment: str) -> list[StageView]:
        """With the reports of live ones."""
        return _understood(list[StageView], self._send("GET", _path(experiment, "stages")).content)

    def cancel(self, experiment: str) -> ExperimentView:
        return _understood(ExperimentView, self._send("POST", _path(experiment, "cancel")).content)

    def retry(self, experiment: str) -> ExperimentView:
        return _understood(ExperimentView, self._send("POST", _path(experiment, "retry")).content)

    def resize(self, experiment: str, stage: str, replicas: int) -> StageView:
        """Let a live stage go on with so many machines. Raises InvalidRequest for more or fewer than its spec allows."""
        return _understood(StageView, self._send("PATCH", _path(experiment, "stages", stage), json={"replicas": replicas}).content)

    def delete(self, experiment: str) -> None:
        self._send("DELETE", _path(experiment))

    def logs(self, experiment: str, stage: str, attempt: int | None = None, tail: int | None = None) -> LogView:
        chosen = {name: value for name, value in {"attempt": attempt, "tail": tail}.items() if value}
        return self._read(LogView, _path(experiment, "stages", stage, "logs"), chosen)

    def follow_logs(self, experiment: str, stage: str) -> Iterator[str]:
        """Lines of the newest attempt as they come, until it ends."""
        for event, data, _ in self._events(_path(experiment, "stages", stage, "logs"), {"follow": True}, {}):
            if event == "end":
                return
            yield data
        raise ServiceUnreachable(f"The log of {stage} broke off, so there may be more of it; ask again.")

    def events(self, experiment: str, after: int = 0) -> Iterator[EventView]:
        """Events as they come, until the experiment has finished; a stream that breaks, or ends too soon, is taken up where it did."""
        while True:
            last, broken = None, False
            try:
                for _, data, _ in self._events(_path(experiment, "events"), {}, {"Last-Event-ID": str(after)}):
                    last = _understood(EventView, data)
                    after = last.id
                    yield last
            except SolfaError as error:
                if not error.retryable:
                    raise
                broken = True
            if last is not None and last.kind == LAST_EVENT:
                return
            phase = self.get(experiment).phase  # is the service still there? if not, this says so
            if last is None and not broken and phase in ENDED:
                return
            time.sleep(PAUSE)

    def past_events(self, experiment: str, after: int = 0) -> Iterator[EventView]:
        """Events up to now."""
        while page := self._read(EventList, _path(experiment, "events"), {"after": after, "limit": 1000}).events:
            yield from page
            after = page[-1].id

    def weights(self, experiment: str, wait: float = 0) -> Weights:
        """The averaged weights. Raises NotReady when they are not there after `wait` seconds, or can no longer come."""
        return _understood(Weights, self._weights(experiment, None, wait))

    def export(self, experiment: str, format: str, wait: float = 0) -> str:  # noqa: A002  # as in the route
        """The averaged weights as a downstream trainer reads them."""
        return self._weights(experiment, format, wait).decode()

    def history(self, experiment: str, every: int = 1, stage: str | None = None) -> tuple[HistoryHeader, list[WeightCheckpoint]]:
        """alpha_t step by step, and the constants of its update."""
        chosen = {"every": every, **({"stage": stage} if stage else {})}
        found = self._read(_History, _path(experiment, "weights", "history"), chosen)
        if found.header is None:
            raise NotReady(f"The proxy of {experiment} has recorded no step yet.")
        return found.header, found.checkpoints

    def current_weights(self, experiment: str) -> CurrentWeights:
        return self._read(CurrentWeights, _path(experiment, "weights", "current"))

    def comparison(self, experiment: str) -> ComparisonView:
        return self._read(ComparisonView, _path(experiment, "comparison"))

    def report(self, experiment: str) -> str:
        """The experiment's page as one HTML file that opens anywhere."""
        return self._send("GET", _path(experiment, "report")).text

    def create_token(self, asked: NewToken) -> IssuedToken:
        """With its secret, which is never told again."""
        content = asked.model_dump_json()
        return _understood(
            IssuedToken, self._request("POST", TOKENS, content=content, headers={"Content-Type": "application/json"}).content
        )

    def tokens(self) -> list[TokenView]:
        """Newest first, those that have ended too."""
        return _understood(TokenList, self._request("GET", TOKENS).content).tokens

    def audit(self) -> Iterator[AuditEntry]:
        """Changes that somebody made, newest first, page by page."""
        cursor: dict[str, int] = {}
        while True:
            page = _understood(AuditPage, self._request("GET", "/v1/audit", params={"limit": 200, **cursor}).content)
            yield from page.entries
            if page.next_cursor is None:
                return
            cursor = {"cursor": page.next_cursor}

    def revoke_token(self, token_id: str, alone: bool = False) -> RevokedToken:
        """And, unless `alone`, those that were issued with it."""
        return _understood(RevokedToken, self._request("DELETE", f"{TOKENS}{_path(token_id)}", params={"alone": alone}).content)

    def data(self, experiment: str) -> DataView:
        """The prepared domains. Raises NotReady while they are not there."""
        return self._read(DataView, _path(experiment, "data"))

    def ready(self) -> bool:
        """Whether the service, its database and its bucket answer."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def _weights(self, experiment: str, export: str | None, wait: float) -> bytes:
        deadline = time.monotonic() + wait
        answered = False
        while True:
            left = max(0.0, deadline - time.monotonic())
            chosen = {"wait": min(left, WAIT_SLICE), **({"format": export} if export else {})}
            try:
                return self._send("GET", _path(experiment, "weights"), params=chosen, timeout=WAIT_SLICE + 30).content
            except NotReady as error:
                answered = True
                if error.extra.get("final", True) or time.monotonic() >= deadline:
                    raise
            except SolfaError as error:
                if not (error.retryable and answered) or time.monotonic() >= deadline:  # a service that restarts is waited for
                    raise
            time.sleep(min(PAUSE, max(0.0, deadline - time.monotonic())))

    def _read(self, view: type[View], path: str, params: dict[str, Any] | None = None) -> View:
        return _understood(view, self._send("GET", path, params=params or {}).content)

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self._request(method, f"/v1/experiments{path}", **request)

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One that came too soon is asked again after the time that the service says."""
        for patience in range(PATIENCE, -1, -1):
            try:
                response = self._http.request(method, path, **request)
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
            soon = response.headers.get("retry-after", "") if response.status_code == 429 and patience else ""
            if not soon.isdecimal():
                break
            time.sleep(min(int(soon), 60))  # a minute is what rates count in: whoever is told of more is told so by the next answer
        _check(response)
        return response

    def _events(self, path: str, params: dict[str, Any], headers: dict[str, str]) -> Iterator[tuple[str, str, str]]:
        """(event, data, id) of a stream of server-sent events."""
        accept = {"Accept": "text/event-stream"}
        try:
            with self._http.stream(
                "GET", f"/v1/experiments{path}", params=params, headers=headers | accept, timeout=STREAM_TIMEOUT
            ) as response:
                if response.is_error:
                    response.read()
                _check(response)
                yield from _parsed(_lines(response.iter_text()))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> ServiceUnreachable:
        return ServiceUnreachable(f"No service answers at {self.url} ({error or type(error).__name__}){self._advice}.")


def _written_out(url: str) -> str:
    """An address without its scheme, with it; an example for what is none."""
    return f"http://{url}" if re.fullmatch(r"[\w.-]+(:\d+)?(/.*)?", url) else "one such as http://127.0.0.1:8700"


def _lines(chunks: Iterator[str]) -> Iterator[str]:
    """Lines as server-sent events have them, ended by CR, LF or both: a form feed or U+2028 in a log line is part of it."""
    rest = ""
    for chunk in chunks:
        text = rest + chunk
        keep = 1 if text.endswith("\r") else 0  # its LF may be in the next chunk
        *whole, rest = _LINE_END.split(text[: len(text) - keep])
        rest += text[len(text) - keep :]
        yield from whole
    yield from _LINE_END.split(rest)[:-1]


def _parsed(lines: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield fields.get("event", "message"), fields["data"], fields.get("id", "")
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value


def _path(*parts: str) -> str:
    """Below /v1/experiments; a name that somebody typed stays one part, whatever is in it. Raises NotFound for what can be no part."""
    for part in parts:
        if "/" in part or part in ("", ".", ".."):
            raise NotFound(f"There is no {part!r}: a name has no slash in it and is no dot.")
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _understood(view: type[View], answer: bytes | str) -> View:
    try:
        return TypeAdapter(view).validate_json(answer)
    except ValidationError as error:
        raise SolfaError("What answered is no Solfa service that this version understands; is the address right?") from error


def _check(response: httpx.Response) -> None:
    """Raise what a problem document stands for."""
    if not response.is_error:
        return
    try:
        raw = response.json()
        document = ProblemDocument.model_validate(raw)
    except (json.JSONDecodeError, ValueError):
        raise SolfaError(f"The service answered {response.status_code}: {response.text[:200]}") from None
    kind = BY_CODE.get(document.code)
    if kind is None:
        kind = BadRequest if response.status_code < 500 else SolfaError
    extra = {name: value for name, value in raw.items() if name not in ("type", "title", "status", "detail", "code", "instance")}
    raise kind(document.detail, **extra)


def _yaml() -> dict[str, str]:
    return {"Content-Type": "application/yaml"}
