"""/v1/tokens: issue, list and revoke tokens, within what one's own allows."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.access import IssuedToken, NewToken, RevokedToken, TokenList
from services.problems import documented
from services.routes.body import read_model
from services.routes.context import Service

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])
TokenRef = Annotated[str, Path(max_length=100, description="A token's id.", examples=["t0123456789"])]
BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewToken"}}}}
}


@router.post(
    "",
    operation_id="create_token",
    summary="Issue a token; its secret is shown this once",
    status_code=201,
    response_description="The secret, and what is kept.",
    responses=documented(400, 404, 413, 415, 422),
    openapi_extra=BODY,
)
async def create(request: Request, response: Response, service: Service) -> IssuedToken:
    response.headers["Cache-Control"] = "no-store"
    asked = await read_model(request, ("application/json",), "The token", NewToken)
    return await run_in_threadpool(service.tokens.issue, asked, service.principal)


@router.get(
    "",
    operation_id="list_tokens",
    summary="Tokens, newest first",
    response_description="Without their secrets; those that have ended too.",
    responses=documented(),
)
def tokens(service: Service) -> TokenList:
    return TokenList(tokens=service.tokens.all(service.principal))


@router.delete(
    "/{token}",
    operation_id="revoke_token",
    summary="Revoke a token, and those that were issued with it; a second time is harmless",
    response_description="As it is now, and what ended with it.",
    responses=documented(404, 422),
)
def revoke(
    service: Service,
    token: TokenRef,
    alone: Annotated[bool, Query(description="Leave those that were issued with it until they expire.")] = False,
) -> RevokedToken:
    return service.tokens.revoke(token, service.principal, alone)
