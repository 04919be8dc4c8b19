"""TokenStore over SQLAlchemy Core: tokens by the hash of their secret."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, insert, select, true, update

from api.access import Scope, TokenView
from api.errors import NotFound
from services.store.audit import note
from services.store.database import reading, writing
from services.store.port import Change, TokenRow
from services.store.rows import from_micros, to_micros
from services.store.schema import tokens

TIMES = ("created_at", "expires_at", "revoked_at", "last_used_at")


class SqlTokens:
    """See TokenStore for what each method promises. Safe to use from many threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, row: TokenRow, change: Change) -> None:
        values = row.view.model_dump(exclude=set(TIMES)) | {"sha256": row.sha256}
        times = {name: at and to_micros(at) for name in TIMES for at in [getattr(row.view, name)]}
        with writing(self._engine) as connection:
            connection.execute(insert(tokens), {**values, **times})
            note(connection, change, row.view.project)

    def find(self, sha256: str) -> TokenRow | None:
        with reading(self._engine) as connection:
            row = connection.execute(select(tokens).where(tokens.c.sha256 == sha256)).first()
        return TokenRow(row.sha256, _view(row)) if row else None

    def all(self, project: str | None) -> list[TokenView]:
        query = select(tokens).where(_of(project)).order_by(tokens.c.created_at.desc(), tokens.c.id.desc())
        with reading(self._engine) as connection:
            return [_view(row) for row in connection.execute(query)]

    def revoke(self, token_id: str, project: str | None, change: Change) -> TokenView:
        mine = (tokens.c.id == token_id) & _of(project)
        with writing(self._engine) as connection:
            revoked = connection.execute(update(tokens).where(mine, tokens.c.revoked_at.is_(None)), {"revoked_at": to_micros(change.at)})
            row = connection.execute(select(tokens).where(mine)).first()
            if row is not None and revoked.rowcount:
                note(connection, change, row.project)
        if row is None:
            raise NotFound(f"There is no token {token_id}.")
        return _view(row)

    def used(self, token_id: str, at: datetime) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(tokens).where(tokens.c.id == token_id), {"last_used_at": to_micros(at)})


def _of(project: str | None) -> ColumnElement[bool]:
    return true() if project is None else tokens.c.project == project


def _view(row: Row[Any]) -> TokenView:
    times = {name: None if value is None else from_micros(value) for name in TIMES for value in [getattr(row, name)]}
    named = {name: getattr(row, name) for name in ("id", "name", "project", "experiment_id", "created_by")}
    return TokenView.model_validate({**named, "scope": Scope(row.scope), **times})
