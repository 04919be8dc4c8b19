"""What every route is given: the use cases and ports of the running service."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Request

from api.bucket import Bucket
from api.errors import BadRequest
from services.experiments import Experiments
from services.launch.cluster import Cluster
from services.metrics import Metrics
from services.settings import Settings
from services.store import ExperimentStore


@dataclass(frozen=True)
class Context:
    settings: Settings
    store: ExperimentStore
    bucket: Bucket
    cluster: Cluster
    experiments: Experiments
    metrics: Metrics


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Service = Annotated[Context, Depends(_context)]
ExperimentRef = Annotated[str, Path(alias="experiment", description="An experiment's name or id.", max_length=100, examples=["demo"])]
StageRef = Annotated[str, Path(alias="stage", description="A stage's name.", max_length=100, examples=["proxy"])]
IfNoneMatch = Annotated[str | None, Header(description="ETags already held; 304 when one is current.")]


def _if_match(
    if_match: Annotated[str | None, Header(description="The ETag that the change is based on; 412 when it is stale.")] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    tag = if_match.strip().strip('"')
    if not (tag.isascii() and tag.isdigit() and len(tag) < 19):
        raise BadRequest('If-Match takes one ETag of this experiment, such as "3".')
    return int(tag)


IfMatch = Annotated[int | None, Depends(_if_match)]


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether a conditional read is answered with 304. Compares weakly, as RFC 9110 says: a proxy that compresses weakens a tag."""
    if if_none_match is None:
        return False
    held = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return held == ["*"] or etag in held
