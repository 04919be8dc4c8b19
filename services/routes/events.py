"""/v1/experiments/{experiment}/events: what happened, as a list or as a stream that can be resumed."""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.errors import NotFound, SolfaError
from api.views import EventList, EventView
from services.following import EVENT_SECONDS
from services.problems import documented
from services.routes.context import SSE, Context, ExperimentRef, Service
from services.store import Event

router = APIRouter(prefix="/v1/experiments/{experiment}", tags=["events"])
log = logging.getLogger(__name__)


@router.get(
    "/events",
    operation_id="get_events",
    summary="Events, oldest first; as server-sent events when text/event-stream is accepted",
    response_model=EventList,
    responses={
        200: {"content": SSE, "description": "Events after `after` or Last-Event-ID."},
        **documented(400, 404, 422),
    },
)
async def events(
    service: Service,
    experiment: ExperimentRef,
    after: Annotated[int, Query(ge=0, le=2**62, description="Only events with a greater id.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=30, description="Where a broken stream goes on.")] = None,
) -> Any:
    record = await run_in_threadpool(service.experiments.get, experiment)
    if last_event_id and last_event_id.isascii() and last_event_id.isdigit():
        after = min(int(last_event_id), 2**62)
    if "text/event-stream" in accept:
        return EventSourceResponse(_stream(service, record.id, after), ping=service.settings.heartbeat_seconds)
    found = await run_in_threadpool(service.store.events, record.id, after, limit)
    return EventList(events=[_view(event) for event in found])


async def _stream(service: Context, experiment_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    """Events after `after`, until the experiment has ended or is deleted; a database that is away for a while is waited for."""
    async with aclosing(service.following.versions.follow(experiment_id)) as versions:
        async for version in versions:
            while True:
                try:
                    told = await service.following.events(experiment_id, version, after)
                except NotFound:
                    return
                except SolfaError as error:
                    log.warning("the events of %s are waited for: %s", experiment_id, error.message)
                    await anyio.sleep(EVENT_SECONDS)
                    continue
                for event in told.events:
                    after = event.id
                    yield ServerSentEvent(id=str(event.id), event=event.kind, data=_view(event).model_dump_json())
                if not told.events:
                    break
            if told.over:
                return


def _view(event: Event) -> EventView:
    return EventView(id=event.id, experiment_id=event.experiment_id, at=event.at, kind=event.kind, stage=event.stage, data=event.data)
