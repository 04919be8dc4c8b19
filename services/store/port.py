"""The ExperimentStore port: records with compare-and-swap, events, a lease with fencing, idempotency keys."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from api.access import AuditEntry, TokenView
from api.experiment import Experiment, ExperimentPhase
from api.stages import StagePhase


@dataclass(frozen=True)
class Event:
    """Something that happened to an experiment; `id` rises strictly over all experiments and is the SSE id."""

    id: int
    experiment_id: str
    at: datetime
    kind: str
    """`experiment_created`, `stage_changed`, `attempt_launched`, `cancel_requested`, `retry_requested`, `resize_requested`,
    `experiment_finished`."""
    stage: str | None
    data: dict[str, Any]


@dataclass(frozen=True)
class NewEvent:
    """An event to be stored in the same transaction as the record it tells of."""

    kind: str
    stage: str | None = None
    data: dict[str, Any] | None = None


@dataclass(frozen=True)
class Listed:
    """What a listing tells of an experiment: what its index columns hold, so that no record need be read for it."""

    id: str
    name: str
    project: str
    phase: ExperimentPhase
    created_at: datetime
    stages: dict[StagePhase, int]
    """Number of stages in each phase, in the order in which the plan comes upon them."""


@dataclass(frozen=True)
class Page:
    """Experiments, newest first; `next_cursor` is None on the last page."""

    experiments: list[Listed]
    next_cursor: str | None


@dataclass(frozen=True)
class Idempotent:
    """An Idempotency-Key and the sha256 of the request that used it."""

    key: str
    request_sha256: str


@dataclass(frozen=True)
class Lease:
    """The right to reconcile; `token` rises each time the holder changes, and guards every write of the reconciler."""

    holder: str
    token: int
    expires_at: datetime


@dataclass(frozen=True)
class TokenRow:
    """A token as it is kept: the hash of its secret, and what it is good for."""

    sha256: str
    view: TokenView


@dataclass(frozen=True)
class Change:
    """A change that somebody asked for: what is written of it into the audit record, in its own transaction, and what it is held to."""

    action: str
    by: str
    token_id: str | None
    address: str
    at: datetime
    details: Mapping[str, str | int] = field(default_factory=dict)
    guard: Callable[[Sequence[Experiment]], None] | None = None
    """Called with the project's live experiments as they are just before, and until the change is stored; what it raises undoes all."""


class AuditStore(Protocol):
    """Raises StoreUnavailable."""

    def page(self, project: str | None, limit: int, before: int | None) -> list[AuditEntry]:
        """Of a project, or of every one, newest first: those whose id is below `before`."""


class TokenStore(Protocol):
    """Raises StoreUnavailable."""

    def add(self, row: TokenRow, change: Change) -> None:
        """Raises Unauthorized where the token that it is issued with has been revoked by now."""

    def find(self, sha256: str) -> TokenRow | None:
        """By the hash of its secret, whatever has become of it."""

    def all(self, project: str | None) -> list[TokenView]:
        """Of a project, or of every one, newest first."""

    def revoke(self, token_id: str, project: str | None, change: Change, alone: bool = False) -> list[TokenView]:
        """It, and then what ended with it: unless `alone`, all that were issued with it, directly or not. A second time is harmless.
        Raises NotFound."""

    def used(self, token_id: str, at: datetime) -> None: ...


class ExperimentStore(Protocol):
    """Raises StoreUnavailable (locked, restarting), StoreTooNew; NotFound where a record is named that is not there."""

    @property
    def tokens(self) -> TokenStore: ...

    @property
    def audit(self) -> AuditStore: ...

    def within(self, project: str | None) -> "ExperimentStore":
        """The same store, to which experiments of other projects are as if they did not exist; None: every project's are there."""

    def create(self, experiment: Experiment, idempotent: Idempotent | None, at: datetime, change: Change | None = None) -> Experiment:
        """Store a new record with its `experiment_created` event and idempotency key, in one transaction.

        A key used before with the same request returns the record as that request made it; with another, raises
        IdempotencyMismatch. Raises NameTaken.
        """

    def repeated(self, idempotent: Idempotent) -> Experiment | None:
        """The record as the first request with this key made it; None: this is the first. Raises IdempotencyMismatch."""

    def get(self, name_or_id: str) -> Experiment:
        """Raises BadRequest for a name that several projects have, where this store sees them all."""

    def has_project(self, project: str) -> bool:
        """Whether an experiment or a token is of it, whatever this store is narrowed to."""

    def page(self, limit: int, cursor: str | None = None, phase: ExperimentPhase | None = None, name_prefix: str | None = None) -> Page: ...

    def live(self, known: Iterable[Experiment] = ()) -> list[Experiment]:
        """Every experiment whose phase is not terminal, oldest first. What of `known` is at the stored version is given back unread."""

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        """The version of each of these experiments; without those that are not there."""

    def replace(
        self, experiment: Experiment, events: list[NewEvent], at: datetime, fence: int | None = None, change: Change | None = None
    ) -> Experiment:
        """Compare-and-swap: store `experiment` (whose `version` is the one that was read) with version + 1, and its events.

        Raises StaleVersion when the stored version differs, StaleFence when `fence` is not the current lease's token.
        """

    def delete(self, experiment_id: str, version: int | None = None, change: Change | None = None) -> None:
        """Remove the record, its events and its idempotency keys. Raises StaleVersion when it is not at `version`."""

    def find_result(self, digest: str) -> tuple[str, str] | None:
        """(experiment id, result key) of a stage that succeeded with this digest, of any experiment; None: there is none."""

    def adopters(self, experiment_id: str) -> dict[str, list[str]]:
        """Result keys of this experiment that stages of others adopted, with the others' names."""

    def events(self, experiment_id: str | None, after: int, limit: int) -> list[Event]: ...

    def acquire_lease(self, holder: str, seconds: float, now: datetime) -> Lease | None:
        """Take or renew the lease; None while another holder's has not expired."""

    def release_lease(self, lease: Lease) -> None: ...

    def counts(self) -> dict[str, dict[str, int]]:
        """For metrics: {"experiments": {phase: n}, "stages": {phase: n}, "attempts": {reason or "live": n}}."""

    def ping(self) -> None:
        """Raises StoreUnavailable when the database does not answer."""

    def close(self) -> None: ...
