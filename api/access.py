"""Who may do what: scopes, projects, and tokens as callers see them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_PROJECT = "default"
"""Of experiments that nobody put into another: all of them, where no tokens are asked for."""
PROJECT_PATTERN = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
PROJECT_HEADER, TOKEN_PREFIX = "Solfa-Project", "solfa_"
ADMIN_NAME, LOCAL_NAME = "administrator", "local"
"""What the audit record calls the token in the service's settings, and whoever comes where no tokens are asked for; no token can be."""


class Scope(StrEnum):
    """What a token may do; each may do what those before it may."""

    WEIGHTS = "weights"
    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def covers(self, needed: "Scope") -> bool:
        """Whether who has this may do what `needed` is asked for."""
        ladder = list(Scope)
        return ladder.index(self) >= ladder.index(needed)


MEANINGS = {
    Scope.WEIGHTS: "read the averaged weights of one experiment, and not even that there are others",
    Scope.READ: "read all experiments of its project; without a project, those of every one, and metrics",
    Scope.SUBMIT: "submit, cancel, retry, resize and delete them",
    Scope.ADMIN: "issue and revoke tokens, and read the audit record, of its project",
}

ProjectName = Annotated[str, Field(pattern=PROJECT_PATTERN, description="Experiments of other projects are as if they did not exist.")]


class NewToken(BaseModel):
    """What a token is to be."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$")
    """Who or what it is for; the audit record names it."""
    scope: Scope
    project: ProjectName | None = None
    """None: that of who asks, or, of who may see every project, every project."""
    experiment: str | None = Field(default=None, max_length=64)
    """By name or id; of scope `weights` alone: the one whose weights it reads."""
    days: int | None = Field(default=None, ge=1, le=3650)
    """Until it expires; None: never. It ends with the token it is issued with, if that ends sooner."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.scope is Scope.WEIGHTS) != (self.experiment is not None):
            raise ValueError("a token of scope weights names its experiment, and no other token does")
        if self.name.strip().lower() in (ADMIN_NAME, LOCAL_NAME):
            raise ValueError(f"{self.name.strip()} is what the audit record calls somebody else; choose another name")
        return self


class TokenView(BaseModel):
    """A token without its secret, which is known to nobody but its holder."""

    id: str
    name: str
    scope: Scope
    project: str | None
    """None: every project."""
    experiment_id: str | None
    created_at: datetime
    created_by: str
    issued_with: str | None = None
    """Id of the token that it was issued with, and is revoked with; None: there was none, but the settings' or the database itself."""
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""

    def state(self, now: datetime) -> str:
        """`live`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "live"


class RevokedToken(TokenView):
    """A token that has been revoked, and what ended with it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    with_it: list[TokenView]
    """Those that were issued with it, or with one of them, and had not been revoked before."""


class IssuedToken(TokenView):
    """A new token, with its secret for the only time."""

    secret: str


class AuditEntry(BaseModel):
    """One change that somebody made; it stays when what was changed is gone."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: int
    """Rises with time."""
    at: datetime
    by: str
    """Name of the token; `local` where none are asked for."""
    token_id: str | None = None
    address: str
    """From which the request came, an IP address; empty for what was written to the database itself, and where a proxy told none."""
    action: str
    """`submit`, `cancel`, `retry`, `resize`, `delete`, `create_token` or `revoke_token`."""
    project: str | None
    experiment_id: str | None = None
    experiment: str | None = None
    """Its name."""
    spec_sha256: str | None = None
    details: dict[str, str | int] = {}
    """Such as the stage and machines of a resize, or the token that was issued."""


class AuditPage(BaseModel):
    """Newest first; `next_cursor` is None on the last page."""

    entries: list[AuditEntry]
    next_cursor: int | None


class TokenList(BaseModel):
    """Newest first."""

    tokens: list[TokenView]
