"""/, /experiments/{experiment}, /static: the page; and streams that say when it has changed."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.errors import NotFound, SolfaError
from api.experiment import ExperimentPhase
from api.views import ExperimentList
from services.following import Listing
from services.page import policy, render
from services.page.assets import asset
from services.page.snapshot import snapshot
from services.routes.context import Context, ExperimentRef, Service

router = APIRouter(include_in_schema=False)
ROWS = 50  # of a page of the list
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
Phase = Annotated[str | None, Query()]
Prefix = Annotated[str | None, Query(max_length=40)]
Cursor = Annotated[str | None, Query(max_length=200)]


@router.get("/")
def listing(service: Service, phase: Phase = None, name_prefix: Prefix = None, cursor: Cursor = None) -> Response:
    query = {"phase": phase or None, "name_prefix": name_prefix or None, "cursor": cursor or None}
    return _html(lambda: render.listing(_listed(service, query), query, service.principal))


@router.get("/live")
async def listing_stream(service: Service, phase: Phase = None, name_prefix: Prefix = None, cursor: Cursor = None) -> Response:
    asked = Listing(service.principal.project, ROWS, cursor or None, _phase(phase), name_prefix or None)
    return _stream(service, service.following.lists.follow(asked))


@router.get("/experiments/{experiment}")
def experiment(service: Service, experiment: ExperimentRef) -> Response:
    return _html(lambda: render.experiment(snapshot(service, service.experiments.get(experiment), with_logs=False), service.principal))


@router.get("/experiments/{experiment}/live")
async def experiment_stream(service: Service, experiment: ExperimentRef) -> Response:
    record = await run_in_threadpool(service.experiments.get, experiment)
    return _stream(service, service.following.pages.follow(record.id))


@router.get("/static/{name}")
def static(name: str, request: Request) -> Response:
    found = asset(name)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return Response(
            found.zipped, media_type=found.media_type, headers=FOR_EVER | {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        )
    return Response(found.text, media_type=found.media_type, headers=FOR_EVER | {"Vary": "Accept-Encoding"})


def _listed(service: Context, query: dict[str, str | None]) -> ExperimentList:
    return service.experiments.page(ROWS, query["cursor"], _phase(query["phase"]), query["name_prefix"])


def _phase(name: str | None) -> ExperimentPhase | None:
    if name and name not in render.PHASES:
        raise NotFound(f"There is no phase {name}; there are {', '.join(render.PHASES)}.")
    return ExperimentPhase(name) if name else None


def _html(make: Callable[[], str]) -> Response:
    """A page, or a page that says in a sentence why there is none."""
    try:
        return HTMLResponse(make(), headers=policy.HEADERS)
    except SolfaError as error:
        return failure(error.status, error.message)


def failure(status: int, sentence: str) -> Response:
    """A page in the place of what a person's browser asked for and does not get."""
    return HTMLResponse(render.failure(status, sentence), status, headers=policy.HEADERS)


def _stream(service: Context, digests: AsyncGenerator[str]) -> Response:
    return EventSourceResponse(_changes(digests), ping=service.settings.heartbeat_seconds)


async def _changes(digests: AsyncGenerator[str]) -> AsyncIterator[ServerSentEvent]:
    """An event `changed` at first and at each change, its id a digest of what is shown."""
    async with aclosing(digests):
        async for digest in digests:
            yield ServerSentEvent(id=digest, event="changed", data=digest)
    yield ServerSentEvent(event="gone", data="")
