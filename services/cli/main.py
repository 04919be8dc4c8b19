"""The commands of `solfa` by subject, and the one place where an error becomes a sentence and an exit code."""

import sys
from typing import Annotated

import typer

from api.errors import SolfaError
from services.cli.audit import audit
from services.cli.exits import TABLE, Exit, exit_code
from services.cli.experiments import cancel, delete, events, list_experiments, logs, plan, resize, retry, status, submit, validate
from services.cli.results import compare, data, replay, report, weights
from services.cli.screen import print_error
from services.cli.tokens import tokens_app
from services.cli.up import down, up

HELP = """Finds the data mixture a language model should be pretrained on (DoReMi).

Start with: solfa up --detach; solfa submit SPEC --wait; solfa weights NAME
"""
SUBJECTS = {
    "The service": (up, down),
    "Searches": (validate, plan, submit, list_experiments, status, logs, events, cancel, retry, resize, delete),
    "What a search found": (weights, compare, data, replay, report),
}

ENVIRONMENT = (
    "Environment: SOLFA_TOKEN is shown to a service that asks for a token; SOLFA_PROJECT is the project that is meant, for who may see "
    "several; SOLFA_DATA_ROOTS names the folders that specs may read, to `solfa up`: needed where it listens on more than this machine."
)


def _version(asked: bool) -> None:
    if asked:
        from services.metrics import VERSION  # noqa: PLC0415  # a fifth of a second of imports, which no other command needs

        print(f"solfa {VERSION}")
        raise typer.Exit


app = typer.Typer(help=HELP, epilog=f"{ENVIRONMENT}\n\n{TABLE}", no_args_is_help=True)
for _subject, _commands in SUBJECTS.items():
    for _command in _commands:
        app.command(_command.__name__.partition("_")[0], rich_help_panel=_subject)(_command)


@app.callback()
def solfa(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    pass


app.command("audit", rich_help_panel="Who may do what")(audit)
app.add_typer(tokens_app, name="token", rich_help_panel="Who may do what")


def main() -> None:
    """Run a command; every SolfaError is one sentence and an exit code."""
    try:
        app()
    except SolfaError as error:
        print_error(error)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
