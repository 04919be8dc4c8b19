"""Opening a database: connections as each engine wants them, migrations run from code, foreign errors as ours."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.errors import BadRequest, StoreError, StoreTooNew, StoreUnavailable
from services.store.schema import HEAD, metadata

LOCK_MIGRATION, LOCK_EVENTS, LOCK_QUOTA = 7_300_001, 7_300_002, 7_300_003  # PostgreSQL's advisory locks, by number
BUSY_SECONDS = 5.0
_TURNS: WeakKeyDictionary[Engine, AbstractContextManager[object]] = WeakKeyDictionary()


def open_engine(address: str) -> Engine:
    """An engine for `sqlite:///file` or `postgresql+psycopg://...`. Raises BadRequest for another address."""
    url = _url(address)
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise BadRequest("A SQLite store is a file, sqlite:///path; one in memory would forget what it recorded.")
        _make_folder(Path(url.database).parent)
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_size=8, max_overflow=40)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(url, pool_size=8, max_overflow=24, pool_pre_ping=True, connect_args={"connect_timeout": 5})


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"The database's folder {folder} cannot be made: {error.strerror}; choose another place for it.") from error


def _url(address: str) -> URL:
    try:
        url = make_url(address)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except (ArgumentError, ValueError):  # what it says is left out: it may hold a password
        raise BadRequest("A store is sqlite:///file or postgresql+psycopg://host/database, not what was given.") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise BadRequest(f"A store is sqlite:///file or postgresql+psycopg://host/database, not {url.get_backend_name()}.")
    return url


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=FULL")  # what was accepted survives a power cut, not only a crash
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA cache_size=-400")  # KiB, of each of many connections: the system keeps the file's pages anyway
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")  # a writer waits at its start, never in the middle


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read transaction. Raises StoreUnavailable, StoreError."""
    with translated(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A write transaction. Raises StoreUnavailable, StoreError; lets IntegrityError pass to the caller in this package."""
    with translated(), _turn(engine), engine.connect().execution_options(write=True) as connection, connection.begin():
        yield connection


def _turn(engine: Engine) -> AbstractContextManager[object]:
    """SQLite has one writer at a time, and others ask again after ever longer pauses; within this process they stand in a queue instead."""
    return _TURNS.setdefault(engine, threading.RLock()) if engine.dialect.name == "sqlite" else nullcontext()


def advisory_lock(connection: Connection, number: int) -> None:
    """Hold a lock until the transaction ends; SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


@contextmanager
def translated() -> Iterator[None]:
    """SQLAlchemy's errors as ours, in one sentence."""
    try:
        yield
    except IntegrityError:
        raise
    except PoolTimeout as error:
        raise StoreUnavailable("All connections to the database are in use; try again in a moment.") from error
    except DBAPIError as error:
        raise _store_error(error) from error
    except SQLAlchemyError as error:
        raise StoreError(f"The database could not be used: {error}.") from error


def _store_error(error: DBAPIError) -> StoreError:
    first_line = str(error.orig).strip().partition("\n")[0]
    lowered = first_line.lower()
    if "locked" in lowered or "busy" in lowered:
        return StoreUnavailable("The database is locked by another process; try again in a moment.")
    if "full" in lowered or "no space" in lowered:
        return StoreUnavailable("The disk that holds the database is full; free some space and try again.")
    if "unable to open" in lowered or "readonly" in lowered:
        return StoreUnavailable(f"The database cannot be opened ({first_line}); check that its folder exists and may be written.")
    if "not a database" in lowered or "malformed" in lowered:
        return StoreError(f"The database is damaged, or is none of ours ({first_line}); restore it from a copy.")
    if type(error.orig).__name__ in ("OperationalError", "InterfaceError", "AdminShutdown") or error.connection_invalidated:
        return StoreUnavailable(f"The database did not answer: {first_line}.")
    return StoreError(f"The database refused: {first_line}.")


def migrate_engine(engine: Engine) -> None:
    """Bring the schema to HEAD, whole or not at all. Raises StoreTooNew when it was made by a newer version of this program.

    An empty database is made from the tables as they are now, which tests hold equal to what the migrations make: the tools that
    migrate take as long to load as half of the service.
    """
    if revision(engine) == HEAD:
        return
    with rebuilding(engine) as connection:
        advisory_lock(connection, LOCK_MIGRATION)
        current = _revision(connection)
        if current is None:
            metadata.create_all(connection)
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
        elif current != HEAD:
            upgrade(connection, current)


@contextmanager
def rebuilding(engine: Engine) -> Iterator[Connection]:
    """As `writing`, for changes of tables: SQLite makes such a table anew and drops the old one, and what belongs to its rows must stay."""
    if engine.dialect.name != "sqlite":
        with writing(engine) as connection:
            yield connection
        return
    with translated(), engine.connect().execution_options(write=True) as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys=OFF")  # it is heard outside of a transaction only
        try:
            with connection.begin():
                yield connection
                if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall():
                    raise StoreError(f"The migration would have left {len(broken)} rows without what they belong to; it was undone.")
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def upgrade(connection: Connection, current: str | None) -> None:
    """Run the migrations after `current`."""
    from alembic import command  # noqa: PLC0415  # see migrate_engine
    from alembic.config import Config  # noqa: PLC0415  # as above
    from alembic.script import ScriptDirectory  # noqa: PLC0415  # as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise StoreTooNew(
            f"The database has schema {current}, which this version of Solfa does not know (it knows up to {HEAD}); "
            "run the newer version, or restore a copy that was made before the upgrade."
        )
    command.upgrade(config, "head")


def revision(engine: Engine) -> str | None:
    """The schema that the database has; None: an empty database."""
    with reading(engine) as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
