"""Who a request is from, and what they may do: a frozen value that goes with the request."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime

from api.access import ADMIN_NAME, DEFAULT_PROJECT, LOCAL_NAME, PROJECT_HEADER, PROJECT_PATTERN, Scope
from api.errors import BadRequest, Forbidden


@dataclass(frozen=True)
class Principal:
    """The holder of a token, or whoever may do everything where no tokens are asked for."""

    name: str
    """Of the token: who, in the audit record."""
    scope: Scope
    project: str | None
    """None: every project."""
    token_id: str | None = None
    experiment_id: str | None = None
    """The one whose weights it reads, where its scope is `weights`."""
    expires_at: datetime | None = None
    address: str = field(default="", compare=False)
    """Which the request came from, for the audit record."""

    def check(self, needed: Scope) -> None:
        """Raises Forbidden where this needs a scope that they do not have."""
        if not self.scope.covers(needed):
            raise Forbidden(f"The token {self.name} has the scope {self.scope}; this needs {needed}.")

    def within(self, project: str | None) -> "Principal":
        """Narrowed to a project that was named. To who may see one alone, another is as if nobody had named it: empty.

        Raises Forbidden, the same whether there is such a project or not; BadRequest for what is no project's name.
        """
        if project is None or project == self.project:
            return self
        if not re.fullmatch(PROJECT_PATTERN, project):
            raise BadRequest(
                f"{PROJECT_HEADER} names no project: a name is a small letter, then up to 39 small letters, digits or hyphens, "
                "and no hyphen at its end."
            )
        if self.project is not None:
            raise Forbidden(f"The token {self.name} is of the project {self.project}, and of no other.")
        return replace(self, project=project)

    @property
    def own_project(self) -> str:
        """Where what they submit belongs."""
        return self.project or DEFAULT_PROJECT


LOCAL = Principal(LOCAL_NAME, Scope.ADMIN, None)
"""Where no tokens are asked for."""
ADMINISTRATOR = Principal(ADMIN_NAME, Scope.ADMIN, None)
"""Whose token is in the service's settings."""
