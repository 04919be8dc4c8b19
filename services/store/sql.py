"""ExperimentStore over SQLAlchemy Core: SQLite on one machine, PostgreSQL in a cluster, the same statements for both."""

import base64
import binascii
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    String,
    Table,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from api import keys
from api.errors import BadRequest, IdempotencyMismatch, NameTaken, NotFound, StaleFence, StaleVersion
from api.experiment import Experiment, ExperimentPhase
from api.stages import StagePhase
from services.store.audit import SqlAudit, note
from services.store.database import LOCK_EVENTS, LOCK_QUOTA, advisory_lock, reading, writing
from services.store.port import AuditStore, Change, Event, Idempotent, Lease, Listed, NewEvent, Page, TokenStore
from services.store.rows import attempt_rows, changing_columns, experiment_row, from_micros, stage_rows, to_experiment, to_micros
from services.store.schema import attempts, events, experiments, idempotency_keys, lease, stages, tokens
from services.store.tokens import SqlTokens

NAME = re.compile(r"[a-z0-9-]{1,64}")  # of names and ids alike: whatever else is asked for is not there
LARGEST = 2**63 - 1
LIVE = [phase.value for phase in (ExperimentPhase.PENDING, ExperimentPhase.RUNNING, ExperimentPhase.CANCELLING)]


class SqlStore:
    """See ExperimentStore for what each method promises. Safe to use from many threads."""

    def __init__(self, engine: Engine, project: str | None = None) -> None:
        self._engine, self._project = engine, project

    @property
    def tokens(self) -> TokenStore:
        return SqlTokens(self._engine)

    def within(self, project: str | None) -> "SqlStore":
        return self if project == self._project else SqlStore(self._engine, project)

    @property
    def _ours(self) -> ColumnElement[bool]:
        """What everything that is asked of `experiments` is narrowed to."""
        return true() if self._project is None else experiments.c.project == self._project

    @property
    def audit(self) -> AuditStore:
        return SqlAudit(self._engine)

    def create(self, experiment: Experiment, idempotent: Idempotent | None, at: datetime, change: Change | None = None) -> Experiment:
        with writing(self._engine) as connection:
            if change and change.guard:
                advisory_lock(connection, LOCK_QUOTA)
            advisory_lock(connection, LOCK_EVENTS)  # one submission at a time, so that what is looked up here stays as it was
            if idempotent and (made := _repeated(connection, idempotent)):
                return made
            taken = (experiments.c.name == experiment.name) & (experiments.c.project == experiment.project)
            if connection.execute(select(experiments.c.id).where(taken)).first():
                raise _name_taken(experiment.name)
            _guard(connection, change, experiment.project)
            connection.execute(insert(experiments), experiment_row(experiment))
            _write_parts(connection, experiment)
            if idempotent:
                first = experiment.model_dump_json(exclude_none=True)
                row = {"key": idempotent.key, "request_sha256": idempotent.request_sha256, "record": first}
                connection.execute(insert(idempotency_keys), {**row, "experiment_id": experiment.id, "created_at": to_micros(at)})
            _write_events(connection, experiment.id, [NewEvent("experiment_created", data={"name": experiment.name})], at)
            note(connection, change, experiment.project, experiment)
        return experiment

    def repeated(self, idempotent: Idempotent) -> Experiment | None:
        with reading(self._engine) as connection:
            return _repeated(connection, idempotent)

    def get(self, name_or_id: str) -> Experiment:
        if not NAME.fullmatch(name_or_id):
            raise _not_found(name_or_id)
        with reading(self._engine) as connection:
            called = or_(experiments.c.id == name_or_id, experiments.c.name == name_or_id)
            return _one(connection, self._ours & called, name_or_id)

    def has_project(self, project: str) -> bool:
        there = or_(exists().where(experiments.c.project == project), exists().where(tokens.c.project == project))
        with reading(self._engine) as connection:
            return bool(connection.execute(select(there)).scalar_one())

    def page(self, limit: int, cursor: str | None = None, phase: ExperimentPhase | None = None, name_prefix: str | None = None) -> Page:
        order = (experiments.c.created_at, experiments.c.id)
        told = (experiments.c.id, experiments.c.name, experiments.c.project, experiments.c.phase, experiments.c.created_at)
        query = select(*told).where(self._ours).order_by(*(column.desc() for column in order)).limit(limit + 1)
        if cursor is not None:
            created_at, last_id = _decode(cursor)
            query = query.where(tuple_(*order) < tuple_(literal(created_at, BigInteger), literal(last_id, String)))
        if phase is not None:
            query = query.where(experiments.c.phase == phase.value)
        if name_prefix:
            if not NAME.fullmatch(name_prefix):
                return Page([], None)
            query = query.where(func.substr(experiments.c.name, 1, len(name_prefix)) == name_prefix)
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
            counts = _stage_counts(connection, [row.id for row in rows])
        shown = [
            Listed(row.id, row.name, row.project, ExperimentPhase(row.phase), from_micros(row.created_at), counts[row.id])
            for row in rows[:limit]
        ]
        return Page(shown, _encode(shown[-1]) if len(rows) > limit and shown else None)

    def live(self, known: Iterable[Experiment] = ()) -> list[Experiment]:
        query = select(experiments.c.id, experiments.c.version).where(self._ours, experiments.c.phase.in_(LIVE))
        held = {(experiment.id, experiment.version): experiment for experiment in known}
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(experiments.c.created_at, experiments.c.id)).all()
            changed = [row.id for row in rows if (row.id, row.version) not in held]
            read = [_load(connection, select(experiments).where(experiments.c.id.in_(some))) for some in _some(changed)]
        found = {one.id: one for some in read for one in some if one.phase in LIVE}
        loaded = (held.get((row.id, row.version)) or found.get(row.id) for row in rows)
        return [experiment for experiment in loaded if experiment]  # without one that ended, or was deleted, between the two queries

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        with reading(self._engine) as connection:
            queries = [select(experiments.c.id, experiments.c.version).where(experiments.c.id.in_(some)) for some in _some(ids)]
            return {row.id: row.version for query in queries for row in connection.execute(query)}

    def replace(
        self, experiment: Experiment, events: list[NewEvent], at: datetime, fence: int | None = None, change: Change | None = None
    ) -> Experiment:
        after = experiment.model_copy(update={"version": experiment.version + 1})
        with writing(self._engine) as connection:
            if change and change.guard:  # before any row is locked: whoever holds one may wait for the lock of events, and for no other
                advisory_lock(connection, LOCK_QUOTA)
                _guard(connection, change, experiment.project)
            if fence is not None:
                current = connection.execute(select(lease.c.token).with_for_update(read=True)).scalar_one_or_none()
                if current != fence:
                    raise StaleFence("Another reconciler holds the lease now; this one's write was refused.")
            matches = self._ours & (experiments.c.id == experiment.id) & (experiments.c.version == experiment.version)
            if connection.execute(update(experiments).where(matches), changing_columns(after)).rowcount == 0:
                if connection.execute(select(experiments.c.id).where(self._ours, experiments.c.id == experiment.id)).first() is None:
                    raise _not_found(experiment.name)
                raise _stale(experiment.name)
            _write_parts(connection, after)
            _write_events(connection, experiment.id, events, at)
            note(connection, change, experiment.project, experiment)
        return after

    def delete(self, experiment_id: str, version: int | None = None, change: Change | None = None) -> None:
        matches = self._ours & (experiments.c.id == experiment_id) & (experiments.c.version == version if version is not None else true())
        with writing(self._engine) as connection:
            known = _load(connection, select(experiments).where(matches)) if change else []
            if connection.execute(delete(experiments).where(matches)).rowcount:
                for experiment in known:
                    note(connection, change, experiment.project, experiment)
                return
            if connection.execute(select(experiments.c.id).where(self._ours, experiments.c.id == experiment_id)).first() is None:
                raise _not_found(experiment_id)
            raise _stale(experiment_id)

    def find_result(self, digest: str) -> tuple[str, str] | None:
        query = (
            select(stages.c.experiment_id, stages.c.result_key)
            .join(experiments, experiments.c.id == stages.c.experiment_id)
            .where(self._ours, stages.c.digest == digest, stages.c.phase == StagePhase.SUCCEEDED.value, stages.c.result_key.is_not(None))
            .order_by(experiments.c.created_at, stages.c.position)
            .limit(1)
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return (row.experiment_id, row.result_key) if row else None

    def adopters(self, experiment_id: str) -> dict[str, list[str]]:
        prefix = keys.experiment_prefix(experiment_id)
        query = (
            select(stages.c.result_key, experiments.c.name)
            .join(experiments, experiments.c.id == stages.c.experiment_id)
            .where(self._ours, stages.c.result_key.startswith(prefix, autoescape=True), stages.c.experiment_id != experiment_id)
            .distinct()
            .order_by(stages.c.result_key, experiments.c.name)
        )
        found: dict[str, list[str]] = defaultdict(list)
        with reading(self._engine) as connection:
            for row in connection.execute(query):
                found[row.result_key].append(row.name)
        return dict(found)

    def events(self, experiment_id: str | None, after: int, limit: int) -> list[Event]:
        query = select(events).where(events.c.id > min(after, LARGEST)).order_by(events.c.id).limit(limit)
        if self._project is not None:
            query = query.join(experiments, experiments.c.id == events.c.experiment_id).where(self._ours)
        if experiment_id is not None:
            query = query.where(events.c.experiment_id == experiment_id)
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return [Event(row.id, row.experiment_id, from_micros(row.at), row.kind, row.stage, json.loads(row.data)) for row in rows]

    def acquire_lease(self, holder: str, seconds: float, now: datetime) -> Lease | None:
        expires_at = now + timedelta(seconds=seconds)
        try:
            with writing(self._engine) as connection:
                row = connection.execute(select(lease).with_for_update()).first()
                if row is not None and row.holder != holder and row.expires_at > to_micros(now):
                    return None
                token = 1 if row is None else row.token + (row.holder != holder)
                values = {"id": 1, "holder": holder, "token": token, "expires_at": to_micros(expires_at)}
                connection.execute(insert(lease) if row is None else update(lease), values)
        except IntegrityError:  # the very first lease went to another
            return None
        return Lease(holder, token, expires_at)

    def release_lease(self, held: Lease) -> None:
        with writing(self._engine) as connection:
            matches = (lease.c.holder == held.holder) & (lease.c.token == held.token)
            connection.execute(update(lease).where(matches), {"expires_at": 0})

    def counts(self) -> dict[str, dict[str, int]]:
        with reading(self._engine) as connection:
            return {
                "experiments": _count(connection, experiments.c.phase),
                "stages": _count(connection, stages.c.phase),
                "attempts": _count(connection, func.coalesce(attempts.c.reason, "live")),
            }

    def ping(self) -> None:
        with reading(self._engine) as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self._engine.dispose()


def _guard(connection: Connection, change: Change | None, project: str) -> None:
    """Hold a change to what its project may have; the lock of quotas is held, so nobody else's change comes in between."""
    if change and change.guard:
        change.guard(_load(connection, select(experiments).where(experiments.c.project == project, experiments.c.phase.in_(LIVE))))


def _repeated(connection: Connection, idempotent: Idempotent) -> Experiment | None:
    used = connection.execute(select(idempotency_keys).where(idempotency_keys.c.key == idempotent.key)).first()
    if used is None:
        return None
    if used.request_sha256 != idempotent.request_sha256:
        raise IdempotencyMismatch("This Idempotency-Key was used with another request; use a new key for a new request.")
    return Experiment.model_validate_json(used.record)


def _load(connection: Connection, query: Select[Any]) -> list[Experiment]:
    """The experiments of `query` with their parts: three statements, however many there are."""
    rows = connection.execute(query).all()
    ids = [row.id for row in rows]
    stage_records: dict[str, list[str]] = defaultdict(list)
    attempt_records: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for some in _some(ids):
        parts = select(stages.c.experiment_id, stages.c.record).where(stages.c.experiment_id.in_(some))
        for part in connection.execute(parts.order_by(stages.c.experiment_id, stages.c.position)):
            stage_records[part.experiment_id].append(part.record)
        tries = select(attempts.c.experiment_id, attempts.c.stage, attempts.c.record).where(attempts.c.experiment_id.in_(some))
        for part in connection.execute(tries.order_by(attempts.c.experiment_id, attempts.c.stage, attempts.c.number)):
            attempt_records[part.experiment_id].append((part.stage, part.record))
    return [to_experiment(row, stage_records[row.id], attempt_records[row.id]) for row in rows]


def _some(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at a time as a statement takes: SQLite bounds its parameters."""
    return (ids[start : start + 500] for start in range(0, len(ids), 500))


def _one(connection: Connection, condition: Any, called: str) -> Experiment:
    found = _load(connection, select(experiments).where(condition))
    if not found:
        raise _not_found(called)
    if named := next((experiment for experiment in found if experiment.id == called), None):  # an id wins over a name
        return named
    if len(found) > 1:
        projects = ", ".join(sorted(experiment.project for experiment in found))
        raise BadRequest(
            f"There is a {called} in each of the projects {projects}; set SOLFA_PROJECT to one, or use the id that `solfa list` shows."
        )
    return found[0]


def _write_parts(connection: Connection, experiment: Experiment) -> None:
    """Make the stored stages and attempts equal to the record's, touching only those that differ."""
    mine = stages.c.experiment_id == experiment.id
    rows = connection.execute(select(stages.c.name, stages.c.record).where(mine))
    _sync(connection, stages, mine, (stages.c.name,), {(row.name,): row.record for row in rows}, stage_rows(experiment))
    mine = attempts.c.experiment_id == experiment.id
    rows = connection.execute(select(attempts.c.stage, attempts.c.number, attempts.c.record).where(mine))
    old = {(row.stage, row.number): row.record for row in rows}
    _sync(connection, attempts, mine, (attempts.c.stage, attempts.c.number), old, attempt_rows(experiment))


def _sync(  # a table, whose rows, their key, what was and what is to be
    connection: Connection,
    table: Table,
    mine: ColumnElement[bool],
    key: tuple[Column[Any], ...],
    old: Mapping[tuple[Any, ...], str],
    new: Mapping[tuple[Any, ...], dict[str, Any]],
) -> None:
    added = [row for identity, row in new.items() if identity not in old]
    if added:
        connection.execute(insert(table), added)
    for identity in (identity for identity, record in old.items() if identity not in new or new[identity]["record"] != record):
        where = (mine, *(column == value for column, value in zip(key, identity, strict=True)))
        if identity not in new:
            connection.execute(delete(table).where(*where))
        else:
            connection.execute(update(table).where(*where), new[identity])


def _write_events(connection: Connection, experiment_id: str, new: Sequence[NewEvent], at: datetime) -> None:
    if not new:
        return
    advisory_lock(connection, LOCK_EVENTS)  # ids become visible in their order, so that a reader that follows misses none
    rows = [{"experiment_id": experiment_id, "at": to_micros(at), "kind": event.kind, "stage": event.stage} for event in new]
    connection.execute(insert(events), [{**row, "data": json.dumps(event.data or {})} for row, event in zip(rows, new, strict=True)])


def _count(connection: Connection, column: Any) -> dict[str, int]:
    rows: Sequence[Row[Any]] = connection.execute(select(column, func.count()).group_by(column)).all()
    return {row[0]: row[1] for row in rows}


def _stage_counts(connection: Connection, ids: Sequence[str]) -> dict[str, dict[StagePhase, int]]:
    """Of each experiment, its stages by phase."""
    found: dict[str, dict[StagePhase, int]] = defaultdict(dict)
    for some in _some(ids):
        mine = stages.c.experiment_id.in_(some)
        query = select(stages.c.experiment_id, stages.c.phase, func.count()).where(mine).group_by(stages.c.experiment_id, stages.c.phase)
        for experiment_id, phase, number in connection.execute(query.order_by(stages.c.experiment_id, func.min(stages.c.position))):
            found[experiment_id][StagePhase(phase)] = number
    return found


def _encode(experiment: Listed) -> str:
    return base64.urlsafe_b64encode(f"{to_micros(experiment.created_at)}.{experiment.id}".encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[int, str]:
    try:
        created, _, experiment_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(".")
        if NAME.fullmatch(experiment_id) and 0 <= int(created) <= LARGEST:
            return int(created), experiment_id
    except (ValueError, binascii.Error):
        pass
    raise BadRequest("The cursor is not one that a listing returned; start again without it.")


def _not_found(name_or_id: str) -> NotFound:
    return NotFound(f"There is no experiment {name_or_id}.")


def _stale(name_or_id: str) -> StaleVersion:
    return StaleVersion(f"{name_or_id} was changed by somebody else since it was read; read it again.")


def _name_taken(name: str) -> NameTaken:
    return NameTaken(f"There is an experiment named {name} already; choose another name, or delete that one first.")
