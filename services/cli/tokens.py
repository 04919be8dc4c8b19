"""`solfa token`: issue, list and revoke tokens."""

import os
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.table import Table

from api.access import IssuedToken, NewToken, Scope
from api.errors import BadRequest
from services.cli.connection import AsJson, Home, Url, connect
from services.cli.screen import err, out
from services.cli.up import PRIVATE
from services.settings import Settings

_RULES = {
    "name": "NAME starts with a letter or a digit and holds those, spaces, `.`, `_`, `@` and `-`, at most 64",
    "project": "--project starts with a lower-case letter, ends in one or in a digit, and holds those and dashes, at most 40",
    "experiment": "--weights is the name or the id of an experiment, at most 64 letters",
}
tokens_app = typer.Typer(help="Tokens: who may do what, where the service asks for one.", no_args_is_help=True)


@tokens_app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who or what it is for.")],
    scope: Annotated[Scope, typer.Option(help="What it may do; each may do what those before it may.")] = Scope.SUBMIT,
    project: Annotated[str | None, typer.Option(help="Its project (default: one's own; an administrator's: every one).")] = None,
    weights: Annotated[str | None, typer.Option("--weights", metavar="EXPERIMENT", help="Only read this experiment's weights.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Until it expires (default: with your own, or never).")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Write to the database itself: the first one, or a lost one.")] = False,
    url: Url = None,
    home: Home = None,
) -> None:
    """Issue a token. Its secret goes to standard output, alone and this once: it is kept nowhere.

    Example: export SOLFA_TOKEN=$(solfa token create alice --project speech)
    """
    chosen = Scope.WEIGHTS if weights else scope
    try:
        asked = NewToken(name=name, scope=chosen, project=project, experiment=weights, days=days)
    except ValidationError as error:
        raise BadRequest("; ".join(_sentence(one) for one in error.errors()) + ".") from error
    if offline:
        issued = _offline(asked, Settings.from_environment(home=home))
    else:
        with connect(url, home) as client:
            issued = client.create_token(asked)
    until = f", until {_day(issued.expires_at)}" if issued.expires_at else ""
    of = f"project {issued.project}" if issued.project else "every project"
    of = f"experiment {issued.experiment_id}" if issued.experiment_id else of
    err.print(f"Token {issued.id} of {issued.name}: scope {issued.scope}, {of}{until}. It is shown this once:", soft_wrap=True)
    print(issued.secret)


def _sentence(wrong: ErrorDetails) -> str:
    """What is wrong with what was typed, by the word or option that it was typed as."""
    field = str(wrong["loc"][0]) if wrong["loc"] else ""
    return _RULES.get(field, wrong["msg"].removeprefix("Value error, "))


def _day(at: datetime) -> str:
    """In the reader's own time, as all tables have it."""
    return f"{at.astimezone():%Y-%m-%d}"


def _offline(asked: NewToken, settings: Settings) -> IssuedToken:
    from services.access.principal import LOCAL  # noqa: PLC0415  # see open_store below
    from services.access.tokens import Tokens  # noqa: PLC0415  # as above
    from services.store import open_store  # noqa: PLC0415  # SQLAlchemy takes half a second, which no other command needs

    os.umask(PRIVATE)
    settings.make_home()
    store = open_store(settings.database)
    try:
        return Tokens(store, "", lambda: datetime.now(UTC)).issue(asked, LOCAL)
    finally:
        store.close()


@tokens_app.command("list")
def list_tokens(url: Url = None, home: Home = None, as_json: AsJson = False) -> None:
    """Show tokens, newest first; their secrets are known to their holders alone."""
    with connect(url, home) as client:
        found = client.tokens()
    if as_json:
        for view in found:
            print(view.model_dump_json())
        return
    table = Table("Id", "Name", "Scope", "Project", "Created", "Expires", "Last used", "State", box=None, pad_edge=False)
    now = datetime.now(UTC)
    for view in found:
        times = (_day(at) if at else "-" for at in (view.created_at, view.expires_at, view.last_used_at))
        what = f"{view.scope} {view.experiment_id}" if view.experiment_id else str(view.scope)
        table.add_row(view.id, view.name, what, view.project or "every one", *times, view.state(now))
    out.print(table)


@tokens_app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(help="Its id, as `solfa token list` shows it.")],
    alone: Annotated[bool, typer.Option("--alone", help="Leave those that were issued with it until they expire.")] = False,
    url: Url = None,
    home: Home = None,
) -> None:
    """Revoke a token and those that were issued with it: of use nowhere from now on; open streams end within seconds."""
    with connect(url, home) as client:
        view = client.revoke_token(token, alone)
    others = ", ".join(f"{one.id} of {one.name}" for one in view.with_it)
    out.print(f"Token {view.id} of {view.name} is revoked{f', and what was issued with it: {others}' if others else ''}.", soft_wrap=True)
