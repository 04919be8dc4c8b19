"""Which service a command talks to: --url, SOLFA_URL, or the one that `solfa up` wrote down in its home."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from api.client import Client
from services.settings import Settings

Url = Annotated[
    str | None, typer.Option("--url", envvar="SOLFA_URL", help="Address of the service; default: the one that `solfa up` started.")
]
Home = Annotated[Path | None, typer.Option("--home", envvar="SOLFA_HOME", help="Folder of the embedded service (default: ./.solfa).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


class Running(BaseModel):
    """What `solfa up` writes to its home while it runs."""

    url: str
    pid: int


def running(home: Path) -> Running | None:
    """The service that runs in `home`; None when there is none, or it has died."""
    try:
        found = Running.model_validate(json.loads((home / "service.json").read_text()))
        os.kill(found.pid, 0)
    except (OSError, ValueError):
        return None
    return found


def connect(url: str | None, home: Path | None) -> Client:
    if url is None:
        settings = Settings.from_environment(home=home)
        found = running(settings.home)
        url = found.url if found else f"http://{settings.host}:{settings.port}"
    return Client(url)
