"""Alembic's migrations of the store; run from code, see services.store.database."""
