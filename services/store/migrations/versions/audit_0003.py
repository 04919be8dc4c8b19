"""An audit record of every change that somebody asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("token_id", sa.String(16)),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("project", sa.String(40)),
        sa.Column("experiment_id", sa.String(16)),
        sa.Column("experiment", sa.String(64)),
        sa.Column("spec_sha256", sa.String(64)),
        sa.Column("details", sa.Text, nullable=False),
        sqlite_autoincrement=True,  # an id is never given again
    )
    op.create_index("audit_of_project", "audit", ["project", "id"])


def downgrade() -> None:
    op.drop_table("audit")
