"""`python -m services serve | reconcile | migrate`: wires the real parts together."""

import logging
import sys
from typing import Annotated

import typer

from api.errors import SolfaError
from services.server import open_service
from services.settings import Settings
from services.store import migrate as migrate_database

app = typer.Typer(
    help="Solfa's control plane. Settings come from SOLFA_* (see services/settings.py) and from these options.", no_args_is_help=True
)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
) -> None:
    """Answer requests, and move experiments on unless SOLFA_RECONCILE is false."""
    settings = Settings.from_environment(host=host, port=port)
    with open_service(settings) as service:
        service.serve()


@app.command()
def reconcile() -> None:
    """Only move experiments on."""
    with open_service(Settings.from_environment(reconcile=True)) as service:
        service.reconcile_until_signalled()


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date, and stop."""
    migrate_database(Settings.from_environment().database)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("torchx").setLevel(logging.WARNING)
    try:
        app()
    except SolfaError as error:
        print(f"solfa: {error.message}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
