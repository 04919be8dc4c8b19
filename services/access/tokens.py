"""Use cases on tokens: issue, list, revoke, and find out whose one is. Only hashes are kept; a secret is shown once."""

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from api.access import TOKEN_PREFIX, IssuedToken, NewToken, RevokedToken, Scope, TokenView
from api.errors import StoreError, Unauthorized
from services.access.changes import change_by
from services.access.principal import ADMINISTRATOR, Principal
from services.store import ExperimentStore, TokenRow

SECRET_BYTES = 32
KEPT_SECONDS = 5.0  # that a revocation by another replica may be late
KEPT = 1_000  # tokens that are not looked up again for so long
AWAY_SECONDS = 3600.0  # that a token is taken for what it last was while the database is away, where that is allowed
USED_SECONDS = 60.0  # between two notes of when a token was last used


@dataclass(frozen=True)
class _Seen:
    row: TokenRow | None
    at: datetime


class Tokens:
    """Safe to use from many threads. `admin_token`: the administrator's, of the service's settings; "": there is none."""

    def __init__(self, store: ExperimentStore, admin_token: str, clock: Callable[[], datetime]) -> None:
        self._store, self._clock = store, clock
        self._admin = _sha256(admin_token) if admin_token else None
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._lock = threading.Lock()

    def issue(self, asked: NewToken, by: Principal) -> IssuedToken:
        """A new token, within what `by` has, and for no longer. Raises Forbidden, NotFound for an experiment that is not there."""
        by.check(Scope.ADMIN)
        project = by.within(asked.project).project
        experiment_id = None
        if asked.experiment is not None:
            experiment = self._store.within(project).get(asked.experiment)
            experiment_id, project = experiment.id, experiment.project
        now = self._clock()
        asked_end = now + timedelta(days=asked.days) if asked.days else None
        secret = f"{TOKEN_PREFIX}{secrets.token_urlsafe(SECRET_BYTES)}"
        view = TokenView(
            id=f"t{secrets.token_hex(5)}",
            name=asked.name,
            scope=asked.scope,
            project=project,
            experiment_id=experiment_id,
            created_at=now,
            created_by=by.name,
            issued_with=by.token_id,
            expires_at=min((end for end in (asked_end, by.expires_at) if end), default=None),
            revoked_at=None,
            last_used_at=None,
        )
        told = {"token": view.id, "name": view.name, "scope": view.scope.value}
        self._store.tokens.add(TokenRow(_sha256(secret), view), change_by(by, "create_token", now, told))
        return IssuedToken(secret=secret, **view.model_dump())

    def all(self, by: Principal) -> list[TokenView]:
        by.check(Scope.ADMIN)
        return self._store.tokens.all(by.project)

    def revoke(self, token_id: str, by: Principal, alone: bool = False) -> RevokedToken:
        """Of use nowhere from now on, on other replicas after some seconds; nor, unless `alone`, is what was issued with it.

        Raises NotFound.
        """
        by.check(Scope.ADMIN)
        change = change_by(by, "revoke_token", self._clock(), {"token": token_id})
        view, *others = self._store.tokens.revoke(token_id, by.project, change, alone)
        with self._lock:
            self._seen.clear()
        return RevokedToken(**view.model_dump(), with_it=others)

    def principal(self, secret: str, *, while_away: bool = False) -> Principal:
        """Whose `secret` is. Raises Unauthorized, the same for what is wrong, expired or revoked; StoreError, but `while_away` is for what
        must be answered without a database: it is then whose it was when the database last answered."""
        sha256 = _sha256(secret)
        if self._admin is not None and hmac.compare_digest(sha256, self._admin):
            return ADMINISTRATOR
        now = self._clock()
        try:
            row = self._find(sha256, now)
        except StoreError:
            last = self._last(sha256, now) if while_away else None
            if last is None:
                raise
            row = last
        if row is None or row.view.state(now) != "live":
            raise Unauthorized("This token is not valid: it is wrong, has expired or was revoked; ask whoever runs the service for one.")
        view = row.view
        return Principal(view.name, view.scope, view.project, view.id, view.experiment_id, view.expires_at)

    def is_anybody(self) -> bool:
        """Whether there is a token that somebody could come with."""
        now = self._clock()
        return self._admin is not None or any(view.state(now) == "live" for view in self._store.tokens.all(None))

    def _find(self, sha256: str, now: datetime) -> TokenRow | None:
        with self._lock:
            seen = self._seen.get(sha256)
        if seen and (now - seen.at).total_seconds() < KEPT_SECONDS:
            return seen.row
        row = self._store.tokens.find(sha256)
        if row and row.view.state(now) == "live":
            self._note_use(row.view, now)
        with self._lock:
            self._seen[sha256] = _Seen(row, now)
            self._seen.move_to_end(sha256)
            while len(self._seen) > KEPT:
                self._seen.popitem(last=False)
        return row

    def _last(self, sha256: str, now: datetime) -> TokenRow | None:
        """As it was when it was last looked up, unless that is too long ago."""
        with self._lock:
            seen = self._seen.get(sha256)
        return seen.row if seen and (now - seen.at).total_seconds() < AWAY_SECONDS else None

    def _note_use(self, view: TokenView, now: datetime) -> None:
        if view.last_used_at is None or (now - view.last_used_at).total_seconds() >= USED_SECONDS:
            with suppress(StoreError):  # a database that is busy must not turn a reader away
                self._store.tokens.used(view.id, now)


def _sha256(secret: str) -> str:
    """Fast on purpose: a secret of 256 random bits needs no slow hash, and each request is hashed."""
    return hashlib.sha256(secret.encode()).hexdigest()
