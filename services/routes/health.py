"""/healthz, /readyz, /metrics: for what watches the service."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.errors import Forbidden
from services.problems import documented, problem
from services.routes.context import Service, Unbound

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    operation_id="healthz",
    summary="Whether the process answers",
    response_description="It does.",
    response_class=PlainTextResponse,
)
def healthz() -> str:
    return "ok"


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Whether database and bucket answer",
    response_description="They do.",
    response_class=PlainTextResponse,
    responses=documented(502),
)
async def readyz(request: Request, service: Unbound) -> Response:
    failure = await service.readiness.failure()
    if failure is None:
        return PlainTextResponse("ready")
    answer = problem(failure.status, failure.code, "Not ready; the service's log says why.", request.url.path)
    answer.headers.update({"Retry-After": "1"} if failure.retryable else {})
    return answer


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Prometheus metrics",
    response_description="The text format.",
    response_class=PlainTextResponse,
    responses=documented(),
)
def metrics(service: Service) -> Response:
    if service.principal.project is not None:
        raise Forbidden("Metrics are of every project; a token of one project does not read them.")
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
