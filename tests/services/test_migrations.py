"""Migrations: they make exactly the tables that the code uses, on both databases, once, and refuse what is newer."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from api.access import NewToken, Scope
from api.errors import NotFound, StoreTooNew
from services.access.principal import LOCAL
from services.access.tokens import Tokens
from services.store import Idempotent, database, migrate, open_store
from services.store.schema import HEAD, metadata
from tests.builders import START, make_experiment
from tests.postgres import postgres_url


def migrate_step_by_step(url: str) -> None:
    """By every migration from the first, as a database that grew old has come to its tables."""
    engine = database.open_engine(url)
    with database.writing(engine) as connection:
        database.upgrade(connection, None)
    engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_uses(database_url: str) -> None:
    migrate_step_by_step(database_url)
    engine = database.open_engine(database_url)
    with database.reading(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert database.revision(engine) == HEAD
    engine.dispose()
    open_store(database_url).close()  # finds nothing to do


def shape(url: str) -> dict[str, Any]:
    """Of each table: columns, keys, indexes and constraints."""
    engine = database.open_engine(url)
    inspector = inspect(engine)
    found = {
        table: [
            [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)],
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((index["name"], index["column_names"], bool(index["unique"])) for index in inspector.get_indexes(table)),
            sorted((one["name"] or "", one["column_names"]) for one in inspector.get_unique_constraints(table)),
            [(key["constrained_columns"], key["referred_table"], key["options"]) for key in inspector.get_foreign_keys(table)],
        ]
        for table in inspector.get_table_names()
    }
    engine.dispose()
    return found


def test_an_empty_database_is_made_as_the_migrations_would_have_made_it(database_url: str, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path}/other.db" if database_url.startswith("sqlite") else next(postgres_url())
    migrate(database_url)
    migrate_step_by_step(other)
    assert shape(database_url) == shape(other)
    assert "experiments" in shape(database_url)


def test_many_that_migrate_at_once_do_it_once(database_url: str) -> None:
    failures: list[BaseException] = []

    def open_and_close() -> None:
        try:
            open_store(database_url).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_and_close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_newer_database_is_refused_in_one_sentence(database_url: str) -> None:
    migrate(database_url)
    engine = database.open_engine(database_url)
    with database.writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreTooNew, match=r"schema 9999.*run the newer version"):
        open_store(database_url)


def downgrade(url: str, revision: str) -> None:
    """As a person would who goes back to an older version."""
    engine = database.open_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with database.rebuilding(engine) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    engine.dispose()


def test_what_an_older_version_stored_is_there_after_an_upgrade_and_in_the_default_project(database_url: str) -> None:
    store = open_store(database_url)
    made = store.create(make_experiment(name="old"), Idempotent("key", "0" * 64), START)
    store.close()
    downgrade(database_url, "0001")
    migrate(database_url)
    store = open_store(database_url)
    assert store.within("default").get("old") == made
    assert [event.kind for event in store.events(made.id, 0, 10)] == ["experiment_created"]
    assert store.repeated(Idempotent("key", "0" * 64)) == made
    with pytest.raises(NotFound):
        store.within("other").get("old")
    store.delete(made.id)  # foreign keys count again
    assert store.events(made.id, 0, 10) == []
    store.close()


def test_what_was_issued_with_a_token_before_they_knew_is_found_in_the_audit_record(database_url: str) -> None:
    store = open_store(database_url)
    tokens = Tokens(store, "", lambda: START)
    chief = tokens.issue(NewToken(name="chief", scope=Scope.ADMIN), LOCAL)
    member = tokens.issue(NewToken(name="member", scope=Scope.READ), tokens.principal(chief.secret))
    store.close()
    downgrade(database_url, "0003")
    migrate(database_url)
    store = open_store(database_url)
    assert {view.name: view.issued_with for view in store.tokens.all(None)} == {"chief": None, "member": chief.id}
    assert [view.id for view in Tokens(store, "", lambda: START).revoke(chief.id, LOCAL).with_it] == [member.id]
    store.close()


class Failed(Exception):
    pass


def failing(work: Callable[..., None]) -> Callable[..., None]:
    def work_and_fail(*arguments: Any) -> None:
        work(*arguments)
        raise Failed

    return work_and_fail


def test_a_migration_that_fails_leaves_nothing_behind(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "create_all", failing(metadata.create_all))
    with pytest.raises(Failed):
        migrate(database_url)
    monkeypatch.setattr(command, "upgrade", failing(command.upgrade))
    with pytest.raises(Failed):
        migrate_step_by_step(database_url)
    monkeypatch.undo()
    engine = database.open_engine(database_url)
    assert database.revision(engine) is None
    engine.dispose()
    migrate(database_url)


def test_the_newest_migration_is_the_one_the_code_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]
