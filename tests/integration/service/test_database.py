"""The schema is that of the tables, however often it is made; sessions of three kinds keep out of each other's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel, select

from service import database
from service.database import Database, migrate, open_database, open_engine
from service.errors import ConfigError
from service.ledger import queries
from service.ledger.tables import JobRow, PoolRow


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'haptic.db'}")
    yield opened
    opened.engine.dispose()


def test_the_migrations_make_exactly_the_tables(db: Database) -> None:
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_migrating_again_changes_nothing(db: Database) -> None:
    def schema() -> list[tuple[str, ...]]:
        with db.read() as session:
            return [
                tuple(map(str, r))
                for r in session.connection().exec_driver_sql("SELECT * FROM sqlite_master")
            ]

    before = schema()
    migrate(db.engine)
    assert schema() == before


def test_the_first_migration_can_be_taken_back(db: Database) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with db.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(db.engine).get_table_names() == ["alembic_version"]


def test_a_reader_neither_waits_for_a_writer_nor_sees_what_it_has_not_committed(db: Database) -> None:
    with db.write() as writer, db.read() as reader:
        queries.add(writer, JobRow(name="one", arguments=[]))
        assert queries.jobs(reader) == []


def test_of_two_writers_the_second_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    engine = open_engine(f"sqlite:///{tmp_path / 'haptic.db'}")
    migrate(engine)
    db = Database(engine)
    with db.write() as first, db.write() as second:
        queries.jobs(first)
        with pytest.raises(OperationalError, match="locked"):
            queries.jobs(second)
        first.commit()
        assert queries.jobs(second) == []
    engine.dispose()


def test_a_stepwise_session_holds_no_lock_between_its_statements(db: Database) -> None:
    with db.stepwise() as step, db.write() as writer:
        queries.add(step, JobRow(name="one", arguments=[]))
        assert [j.name for j in queries.jobs(writer)] == ["one"]
        queries.add(writer, JobRow(name="two", arguments=[]))
        writer.commit()
        assert len(queries.jobs(step)) == 2


def test_what_a_writer_does_not_commit_is_gone(db: Database) -> None:
    with db.write() as writer:
        queries.add(writer, JobRow(name="one", arguments=[]))
    with db.read() as reader:
        assert queries.jobs(reader) == []


def test_a_run_of_any_uint64_can_be_kept(db: Database) -> None:
    with db.write() as writer:
        queries.add(writer, PoolRow(epoch=0, run=2**64 - 1, funded="1", carried_in="0", carried_out="1"))
        writer.commit()
        assert writer.exec(select(PoolRow.run)).one() == 2**64 - 1


@pytest.mark.parametrize("url", ["nonsense", "oracle+none://x", "sqlite:////no/such/folder/haptic.db"])
def test_a_database_that_cannot_be_opened_is_a_setting_to_mend(url: str) -> None:
    with pytest.raises(ConfigError, match="HAPTIC_DATABASE_URL"):
        open_database(url)


def test_the_message_about_a_database_never_shows_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        open_database("postgresql+nodriver://user:hunter2@localhost/haptic")
    assert "hunter2" not in str(caught.value)
