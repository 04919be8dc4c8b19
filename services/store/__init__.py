"""The store: the only module that speaks SQL."""

from services.store.database import migrate_engine, open_engine
from services.store.port import (
    AuditStore,
    Change,
    Event,
    ExperimentStore,
    Idempotent,
    Lease,
    Listed,
    NewEvent,
    Page,
    TokenRow,
    TokenStore,
)
from services.store.sql import SqlStore

__all__ = [
    "AuditStore",
    "Change",
    "Event",
    "ExperimentStore",
    "Idempotent",
    "Lease",
    "Listed",
    "NewEvent",
    "Page",
    "TokenRow",
    "TokenStore",
    "migrate",
    "open_store",
]


def open_store(url: str) -> ExperimentStore:
    """The store at `sqlite:///path` or `postgresql+psycopg://...`, its schema brought up to date.

    Raises StoreTooNew when the database was made by a newer version, StoreUnavailable when it cannot be reached.
    """
    engine = open_engine(url)
    migrate_engine(engine)
    return SqlStore(engine)


def migrate(url: str) -> None:
    """Bring the schema at `url` up to date, and let go of it."""
    engine = open_engine(url)
    try:
        migrate_engine(engine)
    finally:
        engine.dispose()
