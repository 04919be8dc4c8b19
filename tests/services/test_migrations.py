"""Migrations: they make exactly the tables that the code uses, on both databases, once, and refuse what is newer."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from api.errors import StoreTooNew
from services.store import database, migrate, open_store
from services.store.schema import HEAD, metadata
from tests.services.postgres import postgres_url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/below/solfa.db"
    else:
        yield from postgres_url()


def test_the_migrations_make_the_tables_that_the_code_uses(url: str) -> None:
    migrate(url)
    engine = database.open_engine(url)
    with database.reading(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert database.revision(engine) == HEAD
    engine.dispose()


def test_many_that_migrate_at_once_do_it_once(url: str) -> None:
    failures: list[BaseException] = []

    def open_and_close() -> None:
        try:
            open_store(url).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_and_close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_newer_database_is_refused_in_one_sentence(url: str) -> None:
    migrate(url)
    engine = database.open_engine(url)
    with database.writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreTooNew, match=r"schema 9999.*run the newer version"):
        open_store(url)


def test_a_migration_that_fails_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed(Exception):
        pass

    def upgrade_and_fail(config: Config, revision: str) -> None:
        upgrade(config, revision)
        raise Failed

    upgrade = database.command.upgrade
    monkeypatch.setattr(database.command, "upgrade", upgrade_and_fail)
    with pytest.raises(Failed):
        migrate(url)
    monkeypatch.undo()
    engine = database.open_engine(url)
    assert database.revision(engine) is None
    engine.dispose()
    migrate(url)


def test_the_newest_migration_is_the_one_the_code_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]
