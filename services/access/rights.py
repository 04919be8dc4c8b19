"""Which scope each operation needs: one pure rule, of which the README's table is made."""

from api.access import Scope
from services.access.origin import SAFE

WEIGHTS = frozenset({"get_weights"})
ADMIN = frozenset({"create_token", "list_tokens", "revoke_token", "list_audit"})
OPEN_PATHS = ("/healthz", "/readyz", "/sign-in", "/sign-out")
"""What answers without a token: what watches the process, and the way in; beside them the page's scripts and styles."""

WATCHING = frozenset({"/metrics"})
"""What has to answer while the database is away, since it tells so; it changes nothing."""


def is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith("/static/")


def needed(method: str, operation: str) -> Scope:
    """`operation`: an operation id, or the name of a page's function."""
    if operation in ADMIN:
        return Scope.ADMIN
    if operation in WEIGHTS:
        return Scope.WEIGHTS
    return Scope.READ if method in SAFE else Scope.SUBMIT
