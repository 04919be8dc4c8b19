"""TokenStore over SQLAlchemy Core: tokens by the hash of their secret."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, insert, select, true, update

from api.access import Scope, TokenView
from api.errors import NotFound, Unauthorized
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
            if row.view.issued_with:  # held, so that who revokes it comes before, or finds this one
                issuer = select(tokens.c.revoked_at).where(tokens.c.id == row.view.issued_with).with_for_update(read=True)
                if (held := connection.execute(issuer).first()) is None or held.revoked_at is not None:
                    raise Unauthorized("The token that this was asked for with has been revoked.")
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

    def revoke(self, token_id: str, project: str | None, change: Change, alone: bool = False) -> list[TokenView]:
        mine = (tokens.c.id == token_id) & _of(project)
        with writing(self._engine) as connection:
            if connection.execute(select(tokens.c.id).where(mine)).first() is None:
                raise NotFound(f"There is no token {token_id}.")
            ended: list[str] = []
            while found := _live(connection, mine if alone else tokens.c.id.in_(_family(token_id))):
                connection.execute(update(tokens).where(tokens.c.id.in_([row.id for row in found])), {"revoked_at": to_micros(change.at)})
                for row in found:
                    with_it = {} if row.id == token_id else {"token": row.id, "with": token_id}
                    note(connection, replace(change, details={**change.details, **with_it}), row.project)
                ended += [row.id for row in found if row.id != token_id]
            rows = {row.id: _view(row) for row in connection.execute(select(tokens).where(tokens.c.id.in_([token_id, *ended])))}
        return [rows[one] for one in (token_id, *ended)]

    def used(self, token_id: str, at: datetime) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(tokens).where(tokens.c.id == token_id), {"last_used_at": to_micros(at)})


def _family(token_id: str) -> Select[Any]:
    """Its id, and those of all that were issued with it or with one of them."""
    family = select(tokens.c.id).where(tokens.c.id == token_id).cte("family", recursive=True)
    return select(family.union(select(tokens.c.id).where(tokens.c.issued_with == family.c.id)).c.id)


def _live(connection: Connection, those: ColumnElement[bool]) -> Sequence[Row[Any]]:
    """Looked for again after each was revoked: what one of them issued meanwhile was not to be seen before, and nothing more can be."""
    found = select(tokens.c.id, tokens.c.project).where(those, tokens.c.revoked_at.is_(None))
    return connection.execute(found.order_by(tokens.c.created_at, tokens.c.id)).all()


def _of(project: str | None) -> ColumnElement[bool]:
    return true() if project is None else tokens.c.project == project


def _view(row: Row[Any]) -> TokenView:
    times = {name: None if value is None else from_micros(value) for name in TIMES for value in [getattr(row, name)]}
    named = {name: getattr(row, name) for name in ("id", "name", "project", "experiment_id", "created_by", "issued_with")}
    return TokenView.model_validate({**named, "scope": Scope(row.scope), **times})
