"""Which service a command talks to: --url, SOLFA_URL, or the one that `solfa up` wrote down in its home."""

import fcntl
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel

from api.errors import ServiceUnreachable
from services.settings import Settings

if TYPE_CHECKING:
    from api.client import Client

Url = Annotated[str | None, typer.Option("--url", help="Address of the service, also SOLFA_URL (default: the one in the home).")]
Home = Annotated[Path | None, typer.Option("--home", help="Folder of the embedded service, also SOLFA_HOME (default: ./.solfa).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
DEFAULT_HOME = Settings().home


class Running(BaseModel):
    """What `solfa up` writes to its home while it runs."""

    url: str
    pid: int


def running(home: Path) -> Running | None:
    """The service that runs in `home`; None when there is none, or it has died.

    What it wrote counts only while its lock is held: the kernel lets go of that however it dies, where a pid may be another's by now.
    """
    try:
        found = Running.model_validate_json((home / "service.json").read_text())
        with (home / "service.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return found
    except (OSError, ValueError):
        pass
    return None


def connect(url: str | None, home: Path | None) -> "Client":
    """Raises ServiceUnreachable where a home was named and no service runs in it: whatever listens elsewhere was not meant."""
    from api.client import Client  # noqa: PLC0415  # a tenth of a second that `up` need not wait

    settings = Settings.from_environment(home=home, url=url)
    address, advice = settings.url, ""
    if not address:
        found = running(settings.home)
        if found is None and settings.home != DEFAULT_HOME:
            raise ServiceUnreachable(f"No service runs in {settings.home}; start one with `solfa up{options(None, settings.home)}`.")
        address, advice = found.url if found else f"http://{settings.host}:{settings.port}", "; start one with `solfa up`"
    return Client(address, token=settings.token.get_secret_value(), project=settings.project, advice=advice)


def options(url: str | None, home: Path | None) -> str:
    """What a command needs to reach the same service, as it is typed: "" or " --home FOLDER"."""
    given = [("--url", url), ("--home", home and str(home))]
    return "".join(f" {option} {shlex.quote(value)}" for option, value in given if value)
