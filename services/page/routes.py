"""/, /experiments/{experiment}, /static: the page; and streams that say when it has changed."""

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.errors import NotFound, SolfaError
from api.experiment import ExperimentPhase
from api.views import ExperimentList
from services.page import policy, render
from services.page.assets import asset
from services.page.snapshot import snapshot
from services.routes.context import Context, ExperimentRef, Service

router = APIRouter(include_in_schema=False)
POLL_SECONDS = 1.0
ROWS = 50  # of a page of the list
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
Phase = Annotated[str | None, Query()]
Prefix = Annotated[str | None, Query(max_length=40)]
Cursor = Annotated[str | None, Query(max_length=200)]


@router.get("/")
def listing(service: Service, phase: Phase = None, name_prefix: Prefix = None, cursor: Cursor = None) -> Response:
    query = {"phase": phase or None, "name_prefix": name_prefix or None, "cursor": cursor or None}
    return _html(lambda: render.listing(_listed(service, query), query, service.principal))


@router.get("/live")
async def listing_stream(service: Service, phase: Phase = None, name_prefix: Prefix = None, cursor: Cursor = None) -> Response:
    query = {"phase": phase or None, "name_prefix": name_prefix or None, "cursor": cursor or None}
    return _stream(service, lambda: _listed(service, query).model_dump_json())


@router.get("/experiments/{experiment}")
def experiment(service: Service, experiment: ExperimentRef) -> Response:
    return _html(lambda: render.experiment(snapshot(service, service.experiments.get(experiment), with_logs=False), service.principal))


@router.get("/experiments/{experiment}/live")
async def experiment_stream(service: Service, experiment: ExperimentRef) -> Response:
    await run_in_threadpool(service.experiments.get, experiment)
    return _stream(service, lambda: _state(service, experiment))


@router.get("/static/{name}")
def static(name: str, request: Request) -> Response:
    found = asset(name)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return Response(
            found.zipped, media_type=found.media_type, headers=FOR_EVER | {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        )
    return Response(found.text, media_type=found.media_type, headers=FOR_EVER | {"Vary": "Accept-Encoding"})


def _listed(service: Context, query: dict[str, str | None]) -> ExperimentList:
    phase = query["phase"]
    if phase and phase not in render.PHASES:
        raise NotFound(f"There is no phase {phase}; there are {', '.join(render.PHASES)}.")
    return service.experiments.page(ROWS, query["cursor"], ExperimentPhase(phase) if phase else None, query["name_prefix"])


def _state(service: Context, name: str) -> str:
    """Changes whenever something that the page shows does."""
    record = service.experiments.get(name)
    reports = [service.experiments.report(record, stage) for stage in record.stages]
    return f"{record.version} {[(one.updated_at, one.step) for one in reports if one]}"


def _html(make: Callable[[], str]) -> Response:
    """A page, or a page that says in a sentence why there is none."""
    try:
        return HTMLResponse(make(), headers=policy.HEADERS)
    except SolfaError as error:
        return HTMLResponse(render.failure(error.status, error.message), error.status, headers=policy.HEADERS)


def _stream(service: Context, look: Callable[[], str]) -> Response:
    return EventSourceResponse(_changes(look), ping=service.settings.heartbeat_seconds)


async def _changes(look: Callable[[], str]) -> AsyncIterator[ServerSentEvent]:
    """An event `changed` at first and at each change, its id a digest of the state; a database that is away is waited for."""
    last = None
    while True:
        try:
            state = await run_in_threadpool(look)
        except NotFound:
            yield ServerSentEvent(event="gone", data="")
            return
        except SolfaError:
            state = ""
        digest = hashlib.sha256(state.encode()).hexdigest()[:16]
        if state and digest != last:
            last = digest
            yield ServerSentEvent(id=digest, event="changed", data=digest)
        await anyio.sleep(POLL_SECONDS)
