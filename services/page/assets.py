"""The scripts and styles that the page names: our own, and plotly.js as its Python package holds it; nothing from another host."""

import gzip
import hashlib
import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from api.errors import NotFound

OWN = {"page.css": "text/css", "page.js": "text/javascript", "charts.js": "text/javascript", "logs.js": "text/javascript"}
PLOTLY = "plotly.min.js"


@dataclass(frozen=True)
class Asset:
    """One file, with all that an answer or a policy needs to know of it."""

    text: str
    media_type: str
    zipped: bytes
    digest: str
    """sha256 of the text in base64, as a Content-Security-Policy names it; its beginning is the version in addresses."""

    @property
    def version(self) -> str:
        return hashlib.sha256(self.digest.encode()).hexdigest()[:12]


@cache
def asset(name: str) -> Asset:
    """By its name; read once. Raises NotFound."""
    if name in OWN:
        text, media_type = (files("services.page") / "static" / name).read_text(), OWN[name]
    elif name == PLOTLY:
        text, media_type = _plotly(), "text/javascript"
    else:
        raise NotFound(f"The page has no file {name}.")
    data = text.encode()
    return Asset(text, media_type, gzip.compress(data, 6, mtime=0), b64encode(hashlib.sha256(data).digest()).decode())


def address(name: str) -> str:
    """Where a page finds it; another content has another address, so a browser may keep what it has for ever."""
    return f"/static/{name}?v={asset(name).version}"


@cache
def map_style_id() -> str | None:
    """plotly.js writes the style of its maps into a page, which none of ours may have, unless an element with this id is there already."""
    found = re.search(r'getElementById\("([0-9a-f]{64})"\)', asset(PLOTLY).text)
    return found[1] if found else None


def _plotly() -> str:
    """Read where it is installed, without an import of the Python package, which the page has no use for."""
    try:
        return Path(str(distribution("plotly").locate_file(f"plotly/package_data/{PLOTLY}"))).read_text(encoding="utf-8")
    except (PackageNotFoundError, OSError):
        raise NotFound("The charts need plotly.js, which comes with the Python package plotly; install the extra `services`.") from None
