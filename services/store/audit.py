"""The audit record over SQLAlchemy Core: entries are written with the change that they tell of, and never changed."""

import json
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, true

from api.access import AuditEntry
from api.experiment import Experiment
from services.store.database import reading
from services.store.port import Change
from services.store.rows import from_micros, to_micros
from services.store.schema import audit


class SqlAudit:
    """See AuditStore for what it promises. Safe to use from many threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(self, project: str | None, limit: int, before: int | None) -> list[AuditEntry]:
        query = select(audit).where(true() if project is None else audit.c.project == project).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.id < before)
        with reading(self._engine) as connection:
            return [_entry(row) for row in connection.execute(query)]


def note(connection: Connection, change: Change | None, project: str | None, experiment: Experiment | None = None) -> None:
    """In the transaction of the change itself; a reconciler's writes are nobody's, and events tell of them."""
    if change is None:
        return
    of = {"experiment_id": experiment.id, "experiment": experiment.name, "spec_sha256": experiment.spec_sha256} if experiment else {}
    who = {"by": change.by, "token_id": change.token_id, "address": change.address, "action": change.action}
    row = {"at": to_micros(change.at), "project": project, "details": json.dumps(dict(change.details)), **who, **of}
    connection.execute(insert(audit), row)


def _entry(row: Row[Any]) -> AuditEntry:
    same = {name: getattr(row, name) for name in AuditEntry.model_fields if name not in ("at", "details")}
    return AuditEntry(at=from_micros(row.at), details=json.loads(row.details), **same)
