"""Alembic's entry: runs on the connection, and inside the transaction, that the caller hands over."""

from alembic import context

from services.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
