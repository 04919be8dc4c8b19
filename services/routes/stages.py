"""/v1/experiments/{experiment}/stages: stages with their reports, their resize, attempts, logs."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from api import keys
from api.errors import NotFound
from api.experiment import Attempt, Experiment, Stage
from api.views import LogView, StageChange, StageView
from services.experiments import etag
from services.observation import ALIVE
from services.problems import documented
from services.routes.body import read_model
from services.routes.context import SSE, Context, ExperimentRef, IfMatch, Service, StageRef

router = APIRouter(prefix="/v1/experiments/{experiment}/stages", tags=["stages"])
POLL_SECONDS = 0.2
MEDIA_TYPES = ("application/json", "application/merge-patch+json")
CHANGE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {media_type: {"schema": {"$ref": "#/components/schemas/StageChange"}} for media_type in MEDIA_TYPES},
    }
}


@router.get(
    "",
    operation_id="list_stages",
    summary="Stages, with the reports of live ones",
    response_description="In the plan's order.",
    responses=documented(404, 422, 502),
)
def stages(service: Service, experiment: ExperimentRef) -> list[StageView]:
    record = service.experiments.get(experiment)
    return [service.experiments.stage_view(record, stage) for stage in record.stages]


@router.get(
    "/{stage}",
    operation_id="get_stage",
    summary="One stage",
    response_description="Its record, with its report while it is live.",
    responses=documented(404, 422, 502),
)
def stage(service: Service, experiment: ExperimentRef, stage: StageRef) -> StageView:
    return service.experiments.stage_view(*service.experiments.stage(experiment, stage))


@router.patch(
    "/{stage}",
    operation_id="resize_stage",
    summary="Let a live stage go on with more or fewer machines",
    response_model=StageView,
    responses={
        200: {
            "description": "Recorded; the reconciler asks the cluster for them, now and in later attempts.",
            "headers": {"ETag": {"description": "Of the experiment's record, for If-Match.", "schema": {"type": "string"}}},
        },
        **documented(400, 404, 409, 412, 413, 415, 422, 502),
    },
    openapi_extra=CHANGE,
)
async def resize(  # the body is read here, so that its size and its kind are checked as those of a spec are
    request: Request, response: Response, service: Service, experiment: ExperimentRef, stage: StageRef, if_match: IfMatch = None
) -> StageView:
    change = await read_model(request, MEDIA_TYPES, "The change", StageChange)
    record = await run_in_threadpool(service.experiments.resize, experiment, stage, change.replicas, if_match)
    response.headers["ETag"] = etag(record)
    return await run_in_threadpool(lambda: service.experiments.stage_view(*_found(record, stage)))


def _found(record: Experiment, name: str) -> tuple[Experiment, Stage]:
    found = record.stage(name)
    if found is None:  # as it was a moment ago
        raise NotFound(f"{record.name} has no stage {name}.")
    return record, found


@router.get(
    "/{stage}/attempts",
    operation_id="list_attempts",
    summary="A stage's attempts, oldest first",
    response_description="None before the first launch.",
    responses=documented(404, 422),
)
def attempts(service: Service, experiment: ExperimentRef, stage: StageRef) -> list[Attempt]:
    return list(service.experiments.stage(experiment, stage)[1].attempts)


@router.get(
    "/{stage}/logs",
    operation_id="get_logs",
    summary="An attempt's log lines",
    response_model=LogView,
    responses={
        200: {
            "content": SSE,
            "description": "Lines; with `follow`, events `line`, then `end`.",
        },
        **documented(404, 422, 502),
    },
)
def logs(
    service: Service,
    experiment: ExperimentRef,
    stage: StageRef,
    attempt: Annotated[int | None, Query(ge=1, le=100_000, description="By number; the newest by default.")] = None,
    tail: Annotated[int | None, Query(ge=1, le=100_000, description="Only the last lines.")] = None,
    follow: Annotated[bool, Query(description="Go on with new lines until the attempt ends.")] = False,
) -> Any:
    record, found = service.experiments.stage(experiment, stage)
    chosen = _attempt(record, found, attempt)
    if follow and service.cluster.status(chosen.app).phase in ALIVE:
        return EventSourceResponse(_followed(service, chosen.app), ping=service.settings.heartbeat_seconds)
    lines = service.logs.read(record.id, found.name, chosen.number, chosen.app)
    view = LogView(stage=found.name, attempt=chosen.number, lines=lines[-tail:] if tail else lines)
    if follow:
        return EventSourceResponse(_all_of(view))
    return Response(view.model_dump_json(), media_type="application/json")


def _attempt(experiment: Experiment, stage: Stage, number: int | None) -> Attempt:
    found = stage.attempt if number is None else next((one for one in stage.attempts if one.number == number), None)
    if found is None and stage.adopted and stage.result_key:
        donor, name = keys.owner(stage.result_key)
        taken = f"it was taken over from {name} of {donor}; see `solfa logs {donor} {name}`"
        raise NotFound(f"{stage.name} of {experiment.name} has no log of its own: {taken}.")
    if found is None:
        which = "no attempt yet" if number is None else f"no attempt {number}"
        raise NotFound(f"{stage.name} of {experiment.name} has {which}: it is {stage.phase}. {stage.message}".strip())
    return found


async def _followed(service: Context, app: str) -> AsyncIterator[ServerSentEvent]:
    async for line in iterate_in_threadpool(service.cluster.follow(app)):
        if line is None:  # waited for here: a thread that waited for a silent app could neither be used nor ended
            await anyio.sleep(POLL_SECONDS)
        else:
            yield ServerSentEvent(event="line", data=line)
    yield ServerSentEvent(event="end", data="")


async def _all_of(view: LogView) -> AsyncIterator[ServerSentEvent]:
    for line in view.lines:
        yield ServerSentEvent(event="line", data=line)
    yield ServerSentEvent(event="end", data="")
