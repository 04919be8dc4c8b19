"""Experiments, stages, attempts, events, idempotency keys, tokens and the reconciler's lease."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _experiment() -> sa.Column[str]:
    return sa.Column("experiment_id", sa.String(16), sa.ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("cancel_requested_at", sa.BigInteger),
        sa.Column("spec_sha256", sa.String(64), nullable=False),
        sa.Column("spec_text", sa.Text, nullable=False),
        sa.UniqueConstraint("name", name="experiments_name"),
    )
    op.create_index("experiments_newest", "experiments", ["created_at", "id"])
    op.create_index("experiments_phase", "experiments", ["phase", "created_at", "id"])
    op.create_table(
        "stages",
        _experiment(),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64)),
        sa.Column("result_key", sa.Text),
        sa.Column("record", sa.Text, nullable=False),
        sa.UniqueConstraint("experiment_id", "position", name="stages_position"),
    )
    op.create_index("stages_phase", "stages", ["phase"])
    op.create_index("stages_digest", "stages", ["digest", "phase"])
    op.create_index("stages_result", "stages", ["result_key"])
    op.create_table(
        "attempts",
        _experiment(),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(32)),
        sa.Column("record", sa.Text, nullable=False),
        sa.UniqueConstraint("experiment_id", "stage", "number", name="attempts_number"),
    )
    op.create_index("attempts_reason", "attempts", ["reason"])
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        _experiment(),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("stage", sa.String(64)),
        sa.Column("data", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_experiment", "events", ["experiment_id", "id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        _experiment(),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("idempotency_keys_experiment", "idempotency_keys", ["experiment_id"])
    op.create_table(
        "tokens",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "lease",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("lease", "tokens", "idempotency_keys", "events", "attempts", "stages", "experiments"):
        op.drop_table(table)
