"""/v1/experiments/{experiment}/events: what happened, as a list or as a stream that can be resumed."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.views import EventList, EventView
from services.problems import documented
from services.routes.context import Context, ExperimentRef, Service
from services.store import Event

router = APIRouter(prefix="/v1/experiments/{experiment}", tags=["events"])
POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15
PAGE = 500
LAST = "experiment_finished"


@router.get(
    "/events",
    operation_id="get_events",
    summary="Events, oldest first; as server-sent events when text/event-stream is accepted",
    response_model=EventList,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events after `after` or Last-Event-ID."},
        **documented(400, 404, 422),
    },
)
async def events(
    service: Service,
    experiment: ExperimentRef,
    after: Annotated[int, Query(ge=0, le=2**62, description="Only events with a greater id.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    accept: Annotated[str, Header()] = "application/json",
    last_event_id: Annotated[str | None, Header(max_length=30, description="Where a broken stream goes on.")] = None,
) -> Any:
    record = await run_in_threadpool(service.experiments.get, experiment)
    if last_event_id and last_event_id.isascii() and last_event_id.isdigit():
        after = min(int(last_event_id), 2**62)
    if "text/event-stream" in accept:
        return EventSourceResponse(_stream(service, record.id, after), ping=HEARTBEAT_SECONDS)
    found = await run_in_threadpool(service.store.events, record.id, after, limit)
    return EventList(events=[_view(event) for event in found])


async def _stream(service: Context, experiment_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    while True:
        found = await run_in_threadpool(service.store.events, experiment_id, after, PAGE)
        for event in found:
            after = event.id
            yield ServerSentEvent(id=str(event.id), event=event.kind, data=_view(event).model_dump_json())
        if found and found[-1].kind == LAST:
            return
        if not found and await run_in_threadpool(_is_over, service, experiment_id):
            return
        await anyio.sleep(POLL_SECONDS)


def _is_over(service: Context, experiment_id: str) -> bool:
    """Whether no event will follow: a client that resumes after the last one must not wait for ever."""
    return service.experiments.get(experiment_id).phase in ("succeeded", "failed", "cancelled")


def _view(event: Event) -> EventView:
    return EventView(id=event.id, experiment_id=event.experiment_id, at=event.at, kind=event.kind, stage=event.stage, data=event.data)
