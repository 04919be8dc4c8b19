"""The tables, as SQLAlchemy Core sees them; `migrations/` makes them, and a test holds the two equal.

A record lies whole in a `record` column as JSON; the other columns are what queries filter, order and count by, all computed
in one place (`services.store.rows`) at each write. Times are microseconds since 1970, UTC: they sort, and both databases keep them exactly.
"""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

from api.access import DEFAULT_PROJECT

HEAD = "0004"
"""The newest migration, so that opening an up-to-date database need not load Alembic."""

metadata = MetaData()


def _experiment() -> Column[str]:
    return Column("experiment_id", String(16), ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False)


experiments = Table(
    "experiments",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("cancel_requested_at", BigInteger),
    Column("spec_sha256", String(64), nullable=False),
    Column("spec_text", Text, nullable=False),
    Column("project", String(40), nullable=False, server_default=DEFAULT_PROJECT),
    UniqueConstraint("name", "project", name="experiments_name"),  # one is asked for by its name, in every project or in one
    Index("experiments_newest", "created_at", "id", "project", "name"),  # a listing looks through it alone, and a pass through the next:
    Index("experiments_phase", "phase", "created_at", "id", "version"),  # rows are long, with their specs in them
)

stages = Table(
    "stages",
    metadata,
    _experiment(),
    Column("position", Integer, nullable=False),
    Column("name", String(64), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("digest", String(64)),
    Column("result_key", Text),
    Column("record", Text, nullable=False),
    UniqueConstraint("experiment_id", "position", name="stages_position"),
    Index("stages_phase", "phase"),
    Index("stages_digest", "digest", "phase"),
    Index("stages_result", "result_key"),
)

attempts = Table(
    "attempts",
    metadata,
    _experiment(),
    Column("stage", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("reason", String(32)),
    Column("record", Text, nullable=False),
    UniqueConstraint("experiment_id", "stage", "number", name="attempts_number"),
    Index("attempts_reason", "reason"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _experiment(),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("stage", String(64)),
    Column("data", Text, nullable=False),
    Index("events_experiment", "experiment_id", "id"),
    sqlite_autoincrement=True,  # an id is never used twice, also after a delete
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    _experiment(),
    Column("created_at", BigInteger, nullable=False),
    Column("record", Text, nullable=False),  # as the first request made it: what a repetition is answered with
    Index("idempotency_keys_experiment", "experiment_id"),
)

tokens = Table(  # of callers, by hash; a service for one person on one machine issues none
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("scope", String(16), nullable=False),
    Column("project", String(40)),  # null: every project
    Column("experiment_id", String(16), ForeignKey("experiments.id", ondelete="CASCADE")),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("issued_with", String(16)),  # another token's id; null: an administrator of the settings, or nobody who had one
    Index("tokens_newest", "created_at", "id"),
)

lease = Table(
    "lease",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("holder", String(255), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

audit = Table(
    "audit",  # of experiments and tokens that may be gone by now, so without keys to them
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("by", String(64), nullable=False),
    Column("token_id", String(16)),
    Column("address", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("project", String(40)),
    Column("experiment_id", String(16)),
    Column("experiment", String(64)),
    Column("spec_sha256", String(64)),
    Column("details", Text, nullable=False),
    Index("audit_of_project", "project", "id"),
    sqlite_autoincrement=True,
)
