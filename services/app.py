"""The FastAPI app: ports in, routes out."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi

from api.bucket import Bucket
from api.views import ProblemDocument
from services import problems
from services.experiments import Experiments
from services.launch.cluster import Cluster
from services.metrics import VERSION, Metrics
from services.routes import events, experiments, health, stages, weights
from services.routes.context import Context
from services.settings import Settings
from services.store import ExperimentStore


def create_app(settings: Settings, store: ExperimentStore, bucket: Bucket, cluster: Cluster) -> FastAPI:
    """The service over the given ports; it starts nothing by itself. `app.state.context` holds what the routes use."""
    app = FastAPI(title="Solfa", version=VERSION, description=__doc__, docs_url=None, redoc_url=None)
    use_cases = Experiments(settings, store, bucket, cluster, lambda: datetime.now(UTC))
    app.state.context = Context(settings, store, bucket, cluster, use_cases, Metrics(store))
    problems.install(app)
    for module in (experiments, stages, weights, events, health):
        app.include_router(module.router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend the document

    @app.middleware("http")
    async def _timed(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        began = time.perf_counter()
        response = await call_next(request)
        route = getattr(request.scope.get("route"), "path", "none")
        app.state.context.metrics.saw_request((request.method, route, response.status_code), time.perf_counter() - began)
        return response

    return app


def _openapi(app: FastAPI) -> dict[str, object]:
    """The document with the problem schema, which routes name only by reference."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description="Finds the data mixture a language model should be pretrained on.",
            routes=app.routes,
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["ProblemDocument"] = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        app.openapi_schema = document
    return app.openapi_schema
