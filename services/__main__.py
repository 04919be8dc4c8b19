"""`python -m services serve | reconcile | migrate | sweep`: wires the real parts together."""

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


@app.command()
def sweep() -> None:
    """End and remove every training job of SOLFA_RELEASE once its service is gone; `helm uninstall` runs it last."""
    from services.launch.api_server import ApiServer, connect  # noqa: PLC0415  # a second of imports, which nothing else here needs
    from services.launch.sweep import sweep as sweep_jobs  # noqa: PLC0415  # as above

    settings = Settings.from_environment()
    release = f"app.kubernetes.io/instance={settings.release}"
    count = sweep_jobs(
        ApiServer(connect(), settings.training_namespace),
        service=f"app.kubernetes.io/name=solfa,{release}",
        apps=f"app.kubernetes.io/managed-by=solfa,{release}",
    )
    logging.getLogger(__name__).info("%d training jobs were ended and removed", count)


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
