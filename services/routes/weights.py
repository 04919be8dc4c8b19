"""/v1/experiments/{experiment}/weights, /comparison and /data: what the search found, and on what."""

import hashlib
from itertools import chain, islice
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from api.errors import BadRequest, NotReady
from api.exports import FORMATS
from api.views import ComparisonView, CurrentWeights, DataView, WeightHistory, Weights
from services import weights as reading
from services.data import data as read_data
from services.problems import documented
from services.routes.context import TAGGED, UNCHANGED, Context, ExperimentRef, IfNoneMatch, Service, matches

router = APIRouter(prefix="/v1/experiments/{experiment}", tags=["weights"])
POLL_SECONDS = 0.5
ExportFormat = Annotated[
    str,
    Field(
        json_schema_extra={"enum": list(FORMATS)},
        description="For a downstream trainer; each but megatron's one line says what its fractions are of.",
    ),
]
EXPORTED: dict[str, Any] = {export.media_type: {} for export in FORMATS.values() if export.media_type != "application/json"}


@router.get(
    "/weights",
    operation_id="get_weights",
    summary="The averaged domain weights, fractions of tokens",
    response_model=Weights,
    responses={
        200: {"content": EXPORTED, "description": "As JSON, or in the format that was asked for.", **TAGGED},
        304: UNCHANGED,
        **documented(400, 404, 409, 422, 502),
    },
)
async def weights(
    service: Service,
    experiment: ExperimentRef,
    wait: Annotated[float, Query(ge=0, le=3600, description="Seconds to wait for them, if they are not there yet.")] = 0,
    format: Annotated[ExportFormat | None, Query()] = None,  # noqa: A002  # ?format=
    if_none_match: IfNoneMatch = None,
) -> Any:
    if format is not None and format not in FORMATS:
        raise BadRequest(f"There is no export format {format}; there are {', '.join(FORMATS)}.")
    found = await _when_there(service, experiment, min(wait, service.settings.max_wait_seconds))
    body = FORMATS[format].render(found) if format else found.model_dump_json()
    etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
    if matches(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    media_type = FORMATS[format].media_type if format else "application/json"
    return Response(body, media_type=media_type, headers={"ETag": etag})


async def _when_there(service: Context, name: str, seconds: float) -> Weights:
    """The weights, as soon as they are there within `seconds`. Raises NotReady, at once where they can no longer come."""
    deadline = anyio.current_time() + seconds
    while True:
        try:
            return await run_in_threadpool(lambda: reading.averaged(service.experiments.get(name), service.bucket))
        except NotReady as error:
            if error.extra.get("final", True) or anyio.current_time() >= deadline:
                raise
        await anyio.sleep(min(POLL_SECONDS, max(0.0, deadline - anyio.current_time())))


@router.get(
    "/weights/history",
    operation_id="get_weight_history",
    summary="alpha_t and what it followed from, step by step",
    response_model=WeightHistory,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "As JSON, or one line a step and domain as CSV."},
        **documented(400, 404, 409, 422, 502),
    },
)
def history(
    service: Service,
    experiment: ExperimentRef,
    format: Annotated[Literal["json", "csv"], Query()] = "json",  # noqa: A002  # ?format=
    every: Annotated[int, Query(ge=1, le=10_000_000, description="Only every n-th step, and the last.")] = 1,
    stage: Annotated[str | None, Query(max_length=100, description="A proxy stage; the one that runs or ran last by default.")] = None,
) -> Response:
    record = service.experiments.get(experiment)
    chosen = service.experiments.stage(experiment, stage)[1] if stage else reading.newest_proxy(record)
    records = reading.history(record, chosen, service.bucket, every)
    render, media_type = (reading.history_json, "application/json") if format == "json" else (reading.history_csv, "text/csv")
    first = list(islice(records, 1))  # what cannot be read is said now, not in the middle of a stream
    return StreamingResponse(render(chain(first, records)), media_type=media_type)


@router.get(
    "/weights/current",
    operation_id="get_current_weights",
    summary="alpha_t while the proxy runs",
    response_description="Of the newest report.",
    responses=documented(404, 409, 422, 502),
)
def current(service: Service, experiment: ExperimentRef) -> CurrentWeights:
    record = service.experiments.get(experiment)
    stage = reading.newest_proxy(record)
    return reading.current(record, stage, service.experiments.report(record, stage))


@router.get(
    "/comparison",
    operation_id="get_comparison",
    summary="The mixtures, domain by domain",
    response_description="One row a mixture.",
    responses=documented(404, 409, 422, 502),
)
def comparison(service: Service, experiment: ExperimentRef) -> ComparisonView:
    record = service.experiments.get(experiment)
    return ComparisonView(experiment=record.name, compared=reading.comparison(record, service.bucket))


@router.get(
    "/data",
    operation_id="get_data",
    summary="The prepared domains: documents, tokens, shares, epochs",
    response_description="As the prepare stage counted them.",
    responses=documented(404, 409, 422, 502),
)
def data(service: Service, experiment: ExperimentRef) -> DataView:
    return read_data(service.experiments.get(experiment), service.bucket)
