"""/sign-in, /sign-out: a token is pasted once, and a cookie that scripts cannot read brings it from then on."""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from api.access import Scope
from api.errors import BadRequest, Unauthorized
from services.access.gate import COOKIE
from services.access.principal import Principal
from services.page import policy, render
from services.routes.body import read_body
from services.routes.context import Unbound

router = APIRouter(include_in_schema=False)
FORM = ("application/x-www-form-urlencoded",)
MOST_FIELDS = 8
SECONDS = 30 * 24 * 3600  # that a browser keeps it; the token itself may end before


@router.get("/sign-in")
def form(next_page: Annotated[str, Query(alias="next", max_length=2000)] = "/") -> Response:
    return _form(next_page)


@router.post("/sign-in")
async def sign_in(request: Request, service: Unbound) -> Response:
    text = await read_body(request, FORM, "The form")
    try:
        fields = parse_qs(text, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise BadRequest(f"The form has more than {MOST_FIELDS} fields.") from error
    secret, next_page = (fields.get(name, [default])[0].strip() for name, default in (("token", ""), ("next", "/")))
    try:
        who = await run_in_threadpool(service.tokens.principal, secret)
    except Unauthorized as error:
        return _form(next_page, error.message, 401)
    if not who.scope.covers(Scope.READ):
        return _form(next_page, _for_scripts(who, str(request.base_url)), 403)
    answer = RedirectResponse(_ours(next_page), 303)
    # Lax: a link from a chat opens the page; changes are guarded by where they come from (services/access/origin.py).
    answer.set_cookie(COOKIE, secret, SECONDS, httponly=True, samesite="lax", secure=request.url.scheme == "https")
    return answer


@router.post("/sign-out")
def sign_out() -> Response:
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return answer


def _form(next_page: str, problem: str = "", status: int = 200) -> Response:
    return HTMLResponse(render.sign_in(_ours(next_page), problem), status, headers=policy.HEADERS)


def _for_scripts(who: Principal, service: str) -> str:
    address = f"{service}v1/experiments/{who.experiment_id}/weights"
    return (
        f"The token {who.name} reads the averaged weights of one experiment, and no page. "
        f"It is meant for scripts: curl -H 'Authorization: Bearer TOKEN' {address}"
    )


def _ours(address: str) -> str:
    """A path of this service; whatever else is asked for is the list."""
    return address if address.startswith("/") and not address.startswith(("//", "/\\")) else "/"
