"""What a browser may do with our HTML: run and style by named files alone, ask this service alone, be framed by nobody."""

from collections.abc import Iterable

from services.page.assets import asset

PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": PAGE,
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def of_file(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """For the report, whose scripts and styles stand in it: those with these contents and no others, and no address at all."""
    named = {"script-src": scripts, "style-src": styles}
    parts = [f"{kind} " + " ".join(f"'sha256-{asset(name).digest}'" for name in names) for kind, names in named.items()]
    return "; ".join(["default-src 'none'", *parts, "img-src data:", "base-uri 'none'", "form-action 'none'"])
