"""Experiments belong to projects; tokens have a scope, a project, an end."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("experiments") as table:
        table.add_column(sa.Column("project", sa.String(40), nullable=False, server_default="default"))
        table.drop_constraint("experiments_name", type_="unique")
        table.create_unique_constraint("experiments_name", ["name", "project"])
        table.drop_index("experiments_newest")
        table.create_index("experiments_newest", ["created_at", "id", "project", "name"])
        table.drop_index("experiments_phase")
        table.create_index("experiments_phase", ["phase", "created_at", "id", "version"])
    op.drop_table("tokens")  # none were ever issued
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("project", sa.String(40)),
        sa.Column("experiment_id", sa.String(16), sa.ForeignKey("experiments.id", ondelete="CASCADE")),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
    )
    op.create_index("tokens_newest", "tokens", ["created_at", "id"])


def downgrade() -> None:
    """Fails, and changes nothing, where two projects have experiments of one name."""
    with op.batch_alter_table("experiments") as table:
        table.drop_constraint("experiments_name", type_="unique")
        table.create_unique_constraint("experiments_name", ["name"])
        table.drop_index("experiments_newest")
        table.create_index("experiments_newest", ["created_at", "id"])
        table.drop_index("experiments_phase")
        table.create_index("experiments_phase", ["phase", "created_at", "id"])
        table.drop_column("project")
    op.drop_table("tokens")
    op.create_table(
        "tokens",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
