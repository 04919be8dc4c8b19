"""What every route is given: the use cases and ports of the running service."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request

from api.bucket import Bucket
from services.access.principal import LOCAL, Principal
from services.access.rights import needed
from services.access.tokens import Tokens
from services.experiments import Experiments
from services.following import Following
from services.histories import Histories
from services.launch.cluster import Cluster
from services.logs import LogKeeper
from services.metrics import Metrics
from services.readiness import Readiness
from services.settings import Settings
from services.store import ExperimentStore


@dataclass(frozen=True)
class Context:
    settings: Settings
    store: ExperimentStore
    bucket: Bucket
    cluster: Cluster
    logs: LogKeeper
    experiments: Experiments
    metrics: Metrics
    histories: Histories
    following: Following
    tokens: Tokens
    readiness: Readiness
    principal: Principal = LOCAL
    """Who asks; ports and use cases are within what they may see."""

    def of(self, principal: Principal) -> "Context":
        """The same for one request."""
        return replace(self, principal=principal, store=self.store.within(principal.project), experiments=self.experiments.of(principal))


def _unbound(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _context(request: Request) -> Context:
    """Raises Forbidden where the token's scope does not cover the operation."""
    principal: Principal = request.state.principal
    route = request.scope["route"]
    principal.check(needed(request.method, route.operation_id or route.name))
    return _unbound(request).of(principal)


Service = Annotated[Context, Depends(_context)]
Unbound = Annotated[Context, Depends(_unbound)]
"""For what answers without a token."""
ExperimentRef = Annotated[str, Path(alias="experiment", description="An experiment's name or id.", max_length=100, examples=["demo"])]
StageRef = Annotated[str, Path(alias="stage", description="A stage's name.", max_length=100, examples=["proxy"])]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="ETags already held; 304 when one is current.")]
TAGGED: dict[str, Any] = {"headers": {"ETag": {"description": "Of this very content.", "schema": {"type": "string"}}}}
UNCHANGED: dict[str, Any] = {"description": "Unchanged since If-None-Match.", **TAGGED}
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description="The ETag the change is based on; 412 when it is stale.", examples=['"x2ab3cd4ef5.7"']),
]
SSE: dict[str, Any] = {  # what one event of a stream holds
    "text/event-stream": {
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
            "description": "One event; lines that begin with a colon are heartbeats.",
        }
    }
}


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether a conditional read is answered with 304. Compares weakly, as RFC 9110 says: a proxy that compresses weakens a tag."""
    if if_none_match is None:
        return False
    held = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return held == ["*"] or etag in held
