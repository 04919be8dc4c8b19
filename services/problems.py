"""Every failure as an RFC 9457 problem document: the one place where an error becomes an answer."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.errors import SolfaError
from api.views import ProblemDocument

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


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


def install(app: FastAPI) -> None:
    """Answer every exception of `app` with a problem document."""

    @app.exception_handler(SolfaError)
    def _ours(request: Request, error: SolfaError) -> Problem:
        if error.status >= 500:
            log.warning("%s %s: %s", request.method, request.url.path, error.message)
        answer = problem(error.status, error.code, error.message, request.url.path, **error.extra)
        if error.retryable:
            answer.headers["Retry-After"] = "1"
        return answer

    @app.exception_handler(RequestValidationError)
    def _bad_parameter(request: Request, error: RequestValidationError) -> Problem:
        found = [{"pointer": "/" + "/".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()]
        detail = "; ".join(f"{one['pointer']}: {one['message']}" for one in found)
        return problem(422, "invalid_request", detail, request.url.path, problems=found)

    @app.exception_handler(HTTPException)
    def _of_the_router(request: Request, error: HTTPException) -> Problem:
        answer = problem(error.status_code, _code(error.status_code), str(error.detail), request.url.path)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> Problem:
        log.exception("%s %s", request.method, request.url.path, exc_info=error)
        return problem(500, "internal", "Something failed that should not; the service's log has the rest.", request.url.path)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a route's failures."""
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}} for status in (*statuses, 500, 503)
    }


def _code(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
