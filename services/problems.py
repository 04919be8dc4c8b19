"""Every failure as an RFC 9457 problem document, or as a page to a person: the one place where an error becomes an answer."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.errors import SolfaError
from api.views import ProblemDocument

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
KEPT = ("Retry-After", "Allow")  # of a problem document's headers, on the page in its place


class Problem(JSONResponse):
    """A problem document as a response."""

    media_type = MEDIA_TYPE


def problem(status: int, code: str, detail: str, instance: str | None = None, **extra: Any) -> Problem:
    """A response that says what went wrong."""
    document = ProblemDocument(
        type=f"https://solfa.invalid/problems/{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        instance=instance,
        problems=extra.pop("problems", []),
    )
    return Problem(document.model_dump(mode="json") | extra, status_code=status)


def answer_to(error: SolfaError, path: str, headers: Mapping[str, str]) -> Problem:
    """The response to a request for `path` that failed with `error`."""
    answer = problem(error.status, error.code, error.message, path, **error.extra)
    answer.headers.update(headers)
    return answer


def install(app: FastAPI, page: Callable[[int, str], Response] | None = None) -> None:
    """Answer every exception of `app` with a problem document; with `page` of a status and a sentence, to whom a browser asks for."""

    def _answer(request: Request, document: Problem, sentence: str) -> Response:
        if page is None or not _in_a_browser(request):
            return document
        shown = page(document.status_code, sentence)
        shown.headers.update({name: document.headers[name] for name in KEPT if name in document.headers})
        return shown

    @app.exception_handler(SolfaError)
    def _ours(request: Request, error: SolfaError) -> Response:
        if error.status >= 500:
            log.warning("%s %s: %s", request.method, request.url.path, error.message)
        return _answer(request, answer_to(error, request.url.path, {"Retry-After": "1"} if error.retryable else {}), error.message)

    @app.exception_handler(RequestValidationError)
    def _bad_parameter(request: Request, error: RequestValidationError) -> Response:
        found = found_in(error.errors())
        detail = "; ".join(f"{one['pointer']}: {one['message']}" for one in found)
        return _answer(request, problem(422, "invalid_request", detail, request.url.path, problems=found), detail)

    @app.exception_handler(HTTPException)
    def _of_the_router(request: Request, error: HTTPException) -> Response:
        answer = problem(error.status_code, _code(error.status_code), str(error.detail), request.url.path)
        answer.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = ", ".join(sorted(_allowed(request))) or answer.headers.get("Allow", "")
        return _answer(
            request, answer, f"There is nothing at {request.url.path}." if error.status_code == HTTPStatus.NOT_FOUND else error.detail
        )

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> Problem:
        log.exception("%s %s", request.method, request.url.path, exc_info=error)
        return problem(500, "internal", "Something failed that should not; the service's log has the rest.", request.url.path)


def _in_a_browser(request: Request) -> bool:
    """Whether a person opens an address of the page; the API answers a browser as it does everybody."""
    asked = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    return asked and not request.url.path.startswith("/v1/")


def found_in(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What pydantic found wrong, each with the JSON pointer to it."""
    return [{"pointer": "".join(f"/{part}" for part in one["loc"]), "message": one["msg"]} for one in errors]


EXAMPLES: dict[int, tuple[str, str]] = {  # what each status stands for: a code, and a sentence as a person reads it
    400: ("bad_request", "The cursor is not one that a listing returned; start again without it."),
    401: ("unauthorized", "This service asks for a token: send `Authorization: Bearer TOKEN`, or set SOLFA_TOKEN for `solfa`."),
    403: ("forbidden", "The token nightly has the scope read; this needs submit."),
    404: ("not_found", "There is no experiment demo."),
    409: ("conflict", "demo has succeeded; there is nothing to cancel."),
    408: ("request_timeout", "The body did not come within 30 s; send it faster."),
    412: ("stale_version", 'demo is at version "x2ab3cd4ef5.7", not "x2ab3cd4ef5.6"; read it again and decide anew.'),
    413: ("content_too_large", "The body is over 1,000,000 bytes."),
    415: ("unsupported_media_type", "The spec is not read as image/png; send one of application/yaml, application/json."),
    422: ("invalid_request", "/query/limit: Input should be greater than or equal to 1"),
    429: ("too_many_requests", "More than 1200 requests in a minute came from you; ask again in 1 second."),
    500: ("internal", "Something failed that should not; the service's log has the rest."),
    502: ("bucket_error", "The bucket refuses access to experiments/; check its permissions."),
    503: ("store_unavailable", "The database is locked by another process; try again in a moment."),
    507: ("out_of_space", "The disk is full: the spec was not written. Free some space and retry."),
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a route's failures; `describe` has the rest."""
    return {status: {"description": EXAMPLES[status][1]} for status in (*statuses, 401, 403, 408, 413, 429, 500, 503)}


def describe(document: dict[str, Any]) -> None:
    """Complete an OpenAPI document: each failure is described once, and routes refer to it."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["ProblemDocument"] = ProblemDocument.model_json_schema()
    components["responses"] = {f"Problem{status}": _response(status) for status in EXAMPLES}
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _without_null(parameter["schema"])
        for status in (status for status in operation["responses"] if int(status) in EXAMPLES):
            operation["responses"][status] = {"$ref": f"#/components/responses/Problem{status}"}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or not; null, as Python has it, cannot be sent."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    return {**kinds[0], **{name: value for name, value in schema.items() if name != "anyOf"}} if len(kinds) == 1 else schema


def _response(status: int) -> dict[str, Any]:
    code, detail = EXAMPLES[status]
    example = json.loads(bytes(problem(status, code, detail, "/v1/experiments/demo").body))
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "example": example}}
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase, "content": content}
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        response["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return response


def _allowed(request: Request) -> set[str]:
    """Every documented method of a path: the router itself names only those of the first of its routes."""
    path = getattr(request.scope.get("route"), "path", "")
    return {method.upper() for method in request.app.openapi()["paths"].get(path, ())}


def _code(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
