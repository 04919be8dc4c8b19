"""/v1/experiments: submit, list, look, cancel, retry, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from api.experiment import Experiment, ExperimentPhase
from api.plan import Plan, make_plan
from api.views import ExperimentList, ExperimentView, Validated
from services.experiments import etag
from services.inputs import spec_of
from services.problems import documented
from services.routes.body import read_body
from services.routes.context import TAGGED, UNCHANGED, Context, ExperimentRef, IfMatch, IfNoneMatch, Service, matches

router = APIRouter(prefix="/v1/experiments", tags=["experiments"])
MEDIA_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "application/json", "text/plain")
EXAMPLE = {
    "name": "two-domains",
    "domains": {
        "books": {"source": {"type": "jsonl", "paths": ["/data/books/*.jsonl.gz"]}},
        "code": {"source": {"type": "jsonl", "paths": ["/data/code/*.jsonl.gz"]}},
    },
    "models": {"proxy": {"preset": "70m"}},
    "training": {"proxy": {"steps": 1000}},
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"$ref": "#/components/schemas/ExperimentSpec"}, "example": EXAMPLE}
            for media_type in ("application/yaml", "application/json")
        },
    }
}


@router.post(
    "",
    operation_id="submit_experiment",
    summary="Submit a spec",
    status_code=202,
    response_model=ExperimentView,
    responses={
        202: {
            "description": "Recorded; the reconciler takes it from here.",
            "headers": TAGGED["headers"] | {"Location": {"description": "Where it is from now on.", "schema": {"type": "string"}}},
        },
        200: {"model": Validated, "description": "With validate_only: what a submission would make. Nothing was recorded."},
        **documented(400, 409, 413, 415, 422, 502, 507),
    },
    openapi_extra=BODY,
)
async def submit(
    request: Request,
    response: Response,
    service: Service,
    validate_only: Annotated[bool, Query(description="Only say what would be made: the plan and each stage's launch.")] = False,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=200,
            description="A repetition with the same key gets the first answer.",
        ),
    ] = None,
) -> Any:
    text = await read_body(request, MEDIA_TYPES, "The spec")
    if validate_only:
        validated = await run_in_threadpool(service.experiments.validate, text)
        return Response(validated.model_dump_json(), media_type="application/json")
    experiment = await run_in_threadpool(service.experiments.submit, text, idempotency_key)
    response.headers["Location"] = f"/v1/experiments/{experiment.id}"
    return _answer(service, response, experiment)


@router.get(
    "",
    operation_id="list_experiments",
    summary="List experiments, newest first",
    response_description="One page.",
    responses=documented(400, 422),
)
def list_experiments(
    service: Service,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
    phase: Annotated[ExperimentPhase | None, Query(description="Only experiments in this phase.")] = None,
    name_prefix: Annotated[str | None, Query(max_length=40, description="Only names that begin so.")] = None,
) -> ExperimentList:
    return service.experiments.page(limit, cursor, phase, name_prefix)


@router.get(
    "/{experiment}",
    operation_id="get_experiment",
    summary="One experiment",
    response_model=ExperimentView,
    responses={200: {"description": "Its record.", **TAGGED}, 304: UNCHANGED, **documented(404, 422)},
)
def get(service: Service, experiment: ExperimentRef, response: Response, if_none_match: IfNoneMatch = None) -> Any:
    record = service.experiments.get(experiment)
    if matches(if_none_match, etag(record)):
        return Response(status_code=304, headers={"ETag": etag(record)})
    return _answer(service, response, record)


@router.delete(
    "/{experiment}",
    operation_id="delete_experiment",
    summary="Delete a finished experiment and what it made",
    status_code=204,
    response_description="It is gone.",
    responses=documented(404, 409, 412, 422, 502),
)
def delete(service: Service, experiment: ExperimentRef, if_match: IfMatch = None) -> None:
    service.experiments.delete(experiment, if_match)


@router.post(
    "/{experiment}/cancel",
    operation_id="cancel_experiment",
    summary="End a live experiment",
    status_code=202,
    responses={202: {"description": "Asked for; what runs is being ended.", **TAGGED}, **documented(404, 409, 412, 422)},
)
def cancel(service: Service, experiment: ExperimentRef, response: Response, if_match: IfMatch = None) -> ExperimentView:
    return _answer(service, response, service.experiments.cancel(experiment, if_match))


@router.post(
    "/{experiment}/retry",
    operation_id="retry_experiment",
    summary="Give failed and cancelled stages another try",
    status_code=202,
    responses={202: {"description": "Asked for; they go on from what they had saved.", **TAGGED}, **documented(404, 409, 412, 422)},
)
def retry(service: Service, experiment: ExperimentRef, response: Response, if_match: IfMatch = None) -> ExperimentView:
    return _answer(service, response, service.experiments.retry(experiment, if_match))


@router.get(
    "/{experiment}/spec",
    operation_id="get_spec",
    summary="The spec as it was posted",
    response_class=PlainTextResponse,
    responses={200: {"description": "Verbatim.", **TAGGED}, 304: UNCHANGED, **documented(404, 422)},
)
def spec(service: Service, experiment: ExperimentRef, if_none_match: IfNoneMatch = None) -> Response:
    record = service.experiments.get(experiment)
    tag = f'"{record.spec_sha256}"'
    if matches(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return PlainTextResponse(record.spec_text, headers={"ETag": tag})


@router.get(
    "/{experiment}/plan",
    operation_id="get_plan",
    summary="The plan of its spec",
    response_description="Stages in order, and what each needs.",
    responses=documented(404, 422),
)
def plan(service: Service, experiment: ExperimentRef) -> Plan:
    return make_plan(spec_of(service.experiments.get(experiment)))


def _answer(service: Context, response: Response, experiment: Experiment) -> ExperimentView:
    response.headers["ETag"] = etag(experiment)
    return service.experiments.view(experiment)
