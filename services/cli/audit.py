"""`solfa audit`: who changed what."""

from itertools import islice
from typing import Annotated

import typer
from rich.table import Table

from services.cli.connection import AsJson, Home, Url, connect
from services.cli.screen import out


def audit(
    last: Annotated[int, typer.Option("--last", min=1, help="So many of the newest changes.")] = 50,
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, when and from where, newest first; for administrators.

    Example: solfa audit --last 20
    """
    with connect(url, home) as client:
        found = list(islice(client.audit(), last))
    if as_json:
        for entry in found:
            print(entry.model_dump_json())
        return
    table = Table("When", "Who", "From", "What", "Project", "Experiment", "Spec", box=None, pad_edge=False)
    for entry in found:
        details = " ".join(f"{name}={value}" for name, value in entry.details.items())
        what = f"{entry.action} {details}".strip()
        spec = (entry.spec_sha256 or "")[:12]
        table.add_row(
            f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}", entry.by, entry.address, what, entry.project or "", entry.experiment or "", spec
        )
    out.print(table)
