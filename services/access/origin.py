"""Where a request comes from, as a browser tells: another site must not use a person's cookie, nor reach a service on their machine."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from api.errors import BadRequest

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_address(scope: Mapping[str, Any]) -> str:
    """The IP address that a request came from; "" where there is none: a proxy passes on what it is told, which may be any text."""
    host = (scope.get("client") or ("",))[0]
    try:
        return str(ip_address(host.partition("%")[0]))  # what follows names an interface, and again may be any text
    except ValueError:
        return ""


def sender(address: str) -> str:
    """Whom an IP address stands for: itself, or its network of IPv6, where whoever has one address has 2^64 of them."""
    if not address:
        return ""
    found = ip_address(address)
    if isinstance(found, IPv4Address):
        return address
    return str(found.ipv4_mapped or IPv6Network((found, 64), strict=False))


def host_name(header: str) -> str:
    """The name or address in a Host header: without its port, lower case. Raises BadRequest where it is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError as error:
        raise BadRequest("The Host header names neither a host nor an address.") from error


def foreign_host(name: str) -> bool:
    """Whether a service on loopback was asked for by a name that somebody else may have made: DNS rebinding. An address cannot be, nor can
    a name without a dot."""
    try:
        ip_address(name)
    except ValueError:
        return "." in name and not name.endswith(".localhost")
    return False


def from_elsewhere(method: str, headers: Mapping[str, str], *, by_cookie: bool) -> bool:
    """Whether a change comes from another site's page. Programs send neither header; with a cookie, one of them has to speak for it."""
    if method in SAFE:
        return False
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    if origin is not None:
        return _place(origin) != headers.get("host", "").lower()
    return by_cookie


def _place(origin: str) -> str | None:
    """None for what is no URL, such as `null`: no place is that."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
