"""The FastAPI app: ports in, routes out."""

import time
from datetime import UTC, datetime

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import NewToken
from api.bucket import Bucket
from api.spec import ExperimentSpec
from api.views import StageChange
from services import problems
from services.access.gate import Gate
from services.access.tokens import Tokens
from services.callers import AtOnce, Known, Often
from services.experiments import Experiments
from services.following import Following
from services.histories import Histories
from services.launch.cluster import Cluster
from services.limits import Bodies
from services.logs import LogKeeper
from services.metrics import VERSION, Metrics
from services.page import routes as page
from services.page import sign_in
from services.rates import Rates
from services.readiness import Readiness
from services.routes import audit, events, experiments, health, report, stages, tokens, weights
from services.routes.context import Context
from services.settings import Settings
from services.store import ExperimentStore

ROUTERS = (experiments, stages, weights, report, events, tokens, audit, health, sign_in, page)


def create_app(settings: Settings, store: ExperimentStore, bucket: Bucket, cluster: Cluster, metrics: Metrics | None = None) -> FastAPI:
    """The service over the given ports; it starts nothing by itself. `app.state.context` holds what the routes use."""
    metrics = metrics or Metrics(store, settings.metrics_experiments)
    app = FastAPI(title="Solfa", version=VERSION, description=__doc__, docs_url=None, redoc_url=None)
    use_cases, logs = Experiments(settings, store, bucket, cluster, utc_now), LogKeeper(cluster, bucket)
    issued = Tokens(store, settings.admin_token.get_secret_value(), utc_now)
    following, readiness = Following(store, bucket), Readiness(store, bucket, time.monotonic)
    app.state.context = Context(settings, store, bucket, cluster, logs, use_cases, metrics, Histories(), following, issued, readiness)
    problems.install(app, page.failure)
    for module in ROUTERS:
        app.include_router(module.router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend the document

    app.add_middleware(Bodies, most=settings.max_body_bytes, seconds=settings.request_seconds)
    app.add_middleware(Gate, tokens=issued if settings.guarded else None, on_loopback=settings.on_loopback, clock=utc_now)
    if settings.most_at_once:
        app.add_middleware(AtOnce, most=settings.most_at_once)
    if settings.quota_of_requests:
        app.add_middleware(Often, rates=Rates(settings.quota_of_requests, time.monotonic))
    app.add_middleware(Known, guarded=settings.guarded)
    app.add_middleware(Timed, metrics=metrics)
    return app


def utc_now() -> datetime:
    return datetime.now(UTC)


class Timed:
    """Times each answer up to its first byte: a stream goes on for as long as its reader likes."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, seconds = time.perf_counter(), 500, None  # what fails without an answer is answered outside of this, with 500

        async def timed(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - began
            await send(message)

        try:
            await self._app(scope, receive, timed)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.saw_request((scope["method"], route, status), seconds or time.perf_counter() - began)


def _schema(model: type[BaseModel]) -> dict[str, object]:
    """Of a model whose definitions other routes have put into the document."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


def _openapi(app: FastAPI) -> dict[str, object]:
    """The document with what routes name only by reference: the problems, and bodies, which no route has parsed for it."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description="Finds the data mixture a language model should be pretrained on.",
            routes=app.routes,
        )
        problems.describe(document)
        spec = ExperimentSpec.model_json_schema(ref_template="#/components/schemas/{model}")
        bodies = {"ExperimentSpec": spec, "StageChange": StageChange.model_json_schema(), "NewToken": _schema(NewToken)}
        document["components"]["schemas"] |= {**spec.pop("$defs"), **bodies}
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]  # {}: where the service asks for none
        app.openapi_schema = document
    return app.openapi_schema
