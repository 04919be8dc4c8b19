"""/v1/audit: who changed what, when, of which spec and from where; for administrators, within their project."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.access import AuditPage
from services.problems import documented
from services.routes.context import Service

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get(
    "",
    operation_id="list_audit",
    summary="Changes that somebody made, newest first",
    response_description="One page.",
    responses=documented(422),
)
def audit(
    service: Service,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="`next_cursor` of the page before.")] = None,
) -> AuditPage:
    found = service.store.audit.page(service.principal.project, limit + 1, cursor)
    return AuditPage(entries=found[:limit], next_cursor=found[limit - 1].id if len(found) > limit else None)
