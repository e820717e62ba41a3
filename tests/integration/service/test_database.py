"""The schema is that of the tables, however often it is made; sessions of three kinds keep out of each other's way."""

from __future__ import annotations

import sqlite3
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, make_url, text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError, SQLAlchemyError
from sqlmodel import SQLModel, select

from chain.ledger.bulk import insert_rows
from chain.ledger.rows import FundingRow
from service import database
from service.database import Database, migrate, open_database, open_engine
from service.errors import ConfigError
from service.ledger import queries, work
from service.ledger.tables import JobRow, PoolRow, TaskRow
from tests.postgres import Postgres


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.engine.dispose()


def test_the_migrations_make_exactly_the_tables(db: Database) -> None:
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_migrating_again_changes_nothing(db: Database) -> None:
    def schema() -> list[str]:
        found = inspect(db.engine)
        # Which rows an index is of is told as an object; in words it can be compared.
        indexes = {
            t: [
                i | {k: str(v) for k, v in i.pop("dialect_options", {}).items()} for i in found.get_indexes(t)
            ]
            for t in found.get_table_names()
        }
        return [
            f"{t} {found.get_columns(t)} {indexes[t]} {found.get_unique_constraints(t)}"
            for t in sorted(found.get_table_names())
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
        assert work.jobs(reader) == []


def test_of_two_writers_the_second_waits(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    db = open_database(url)
    with db.write() as before:
        queries.add(before, JobRow(name="one", arguments=[]))
        before.commit()
    with db.write() as first, db.write() as second:
        assert work.job_row(first, 1) is not None
        with pytest.raises(OperationalError, match="lock"):
            work.job_row(second, 1)
        second.rollback()
        first.commit()
        assert work.job_row(second, 1) is not None
    db.engine.dispose()


def test_a_new_file_that_another_writes_to_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE started (at INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO started VALUES (1)")
    ends = threading.Timer(0.3, other.commit)
    ends.start()
    with open_engine(f"sqlite:///{path}").connect() as ours:
        assert ours.execute(text("SELECT at FROM started")).scalars().all() == [1]
        assert ours.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    ends.join()
    other.close()


def test_a_reader_sees_one_moment_however_often_it_looks(db: Database) -> None:
    with db.read() as reader, db.write() as writer:
        assert work.jobs(reader) == []
        queries.add(writer, JobRow(name="one", arguments=[]))
        writer.commit()
        assert work.jobs(reader) == []


def test_an_error_quotes_nothing_of_a_row(db: Database) -> None:
    task = TaskRow(
        epoch=0, task="t", prompt=None, responses=["s3cret"], methods=[], origins=["s3cret"], assignees=[],
        gold_ranks=[], gold_salt="s3cret",
    )  # fmt: skip
    with db.write() as writer, pytest.raises(IntegrityError) as caught:
        queries.add(writer, task)
    assert "prompt" in str(caught.value)
    said = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in said
    assert "sqlalche.me" not in said


@pytest.mark.parametrize("block", ["s3cret", "987654321"], ids=["no number", "twice the same"])
def test_an_error_of_many_rows_at_once_is_an_error_like_others_and_quotes_nothing(
    postgres: Postgres, block: str
) -> None:
    db = open_database(postgres.new())
    names = ("block", "log_index", "timestamp", "tx", "run", "payer", "amount", "total_funded")
    rows = [(block, 0, 0, "0x", 0, "0x", 1, 1)] * 2
    with db.write() as writer, pytest.raises(SQLAlchemyError) as caught:
        insert_rows(writer, FundingRow, names, rows)
    said = "".join(traceback.format_exception(caught.value))
    assert "COPY chain_funding" in said
    assert block not in said
    assert "sqlalche.me" not in said
    db.engine.dispose()


@pytest.mark.parametrize("value", ["s3cret"])
def test_an_error_about_a_value_does_not_quote_it(postgres: Postgres, value: str) -> None:
    engine = open_engine(postgres.new())
    with engine.connect() as connection, pytest.raises(DataError) as caught:
        connection.execute(text("SELECT CAST(:value AS integer)"), {"value": value})
    said = "".join(traceback.format_exception(caught.value))
    assert "a value does not fit its column (SQLSTATE 22P02)" in said
    assert value not in said
    engine.dispose()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_postgresql_is_opened_by_each_of_its_usual_names(postgres: Postgres, scheme: str) -> None:
    engine = open_engine(scheme + postgres.new().removeprefix("postgresql"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()


def test_what_the_url_sets_prevails_over_our_own_settings(postgres: Postgres) -> None:
    engine = open_engine(
        postgres.new() + "&connect_timeout=7&options=-c%20lock_timeout%3D7s%20-c%20search_path%3Dhaptic"
    )
    with engine.connect() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("lock_timeout", "search_path")
        ]
        libpq: Any = connection.connection.dbapi_connection
        parameters = libpq.info.get_parameters()
    assert shown == ["7s", "haptic"]
    assert (parameters["connect_timeout"], parameters["keepalives_idle"]) == ("7", "5")
    engine.dispose()


def test_a_stepwise_session_holds_no_lock_between_its_statements(db: Database) -> None:
    with db.stepwise() as step, db.write() as writer:
        queries.add(step, JobRow(name="one", arguments=[]))
        assert [j.name for j in work.jobs(writer)] == ["one"]
        queries.add(writer, JobRow(name="two", arguments=[]))
        writer.commit()
        assert len(work.jobs(step)) == 2


def test_what_a_writer_does_not_commit_is_gone(db: Database) -> None:
    with db.write() as writer:
        queries.add(writer, JobRow(name="one", arguments=[]))
    with db.read() as reader:
        assert work.jobs(reader) == []


def test_a_run_of_any_uint64_can_be_kept(db: Database) -> None:
    with db.write() as writer:
        queries.add(writer, PoolRow(epoch=0, run=2**64 - 1, funded="1", carried_in="0", carried_out="1"))
        writer.commit()
        assert writer.exec(select(PoolRow.run)).one() == 2**64 - 1


@pytest.mark.parametrize(
    "url", ["nonsense", "oracle+none://x", "mysql://x", "sqlite:////no/such/folder/haptic.db"]
)
def test_a_database_that_cannot_be_opened_is_a_setting_to_mend(url: str) -> None:
    with pytest.raises(ConfigError, match="HAPTIC_DATABASE_URL"):
        open_database(url)


@pytest.mark.parametrize(
    "rest",
    [
        "+nodriver://user:hunter2@localhost/haptic", "://user:hunter2", "://user:x@hunter2@localhost/haptic",
        "://user:x@y/hunter2@localhost/haptic", "://user/hunter2@localhost", "://user:x@hunter2:y@localhost:1/haptic",
        "://user:x@hunter2?y@localhost/haptic", "://user:hunter2@127.0.0.1:1/haptic",
    ],
)  # fmt: skip
def test_the_message_about_a_database_never_shows_its_password(rest: str) -> None:
    with pytest.raises(ConfigError, match="HAPTIC_DATABASE_URL") as caught:
        open_database("postgresql" + rest)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value, chain=True)).replace(rest, "")


def test_an_at_sign_in_a_password_works_when_it_is_escaped(postgres: Postgres) -> None:
    url = postgres.new().replace("postgres@", "postgres:p%40ss@")
    open_database(url).engine.dispose()


def test_a_server_that_is_too_old_is_named_at_the_start(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new()
    monkeypatch.setattr(database, "OLDEST", (99,))
    with pytest.raises(
        ConfigError, match=r"the database server is PostgreSQL \d+[\d.]*, and 99 or newer is needed"
    ):
        open_database(url)
    assert (
        postgres.run("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", make_url(url).database or "")
        == []
    )
