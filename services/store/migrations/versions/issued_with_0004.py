"""A token knows which one it was issued with, so that both can be revoked together."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("tokens") as table:
        table.add_column(sa.Column("issued_with", sa.String(16)))
    tokens = sa.table("tokens", sa.column("id"), sa.column("issued_with"))
    audit = sa.table("audit", sa.column("token_id"), sa.column("action"), sa.column("details"))
    of_tokens = sa.select(audit.c.token_id, audit.c.details).where(audit.c.action == "create_token", audit.c.token_id.is_not(None))
    for row in op.get_bind().execute(of_tokens).all():
        issued = json.loads(row.details).get("token")
        op.execute(sa.update(tokens).where(tokens.c.id == issued).values(issued_with=row.token_id))


def downgrade() -> None:
    with op.batch_alter_table("tokens") as table:
        table.drop_column("issued_with")
