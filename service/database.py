"""Opens the database: SQLite with WAL and one writer at a time, or PostgreSQL; migrated before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, create_engine

from service.errors import ConfigError

LOCK_TIMEOUT_S = 30
"""How long a transaction waits for SQLite's write lock."""
THREADS = 48
"""Connections kept open: one for each thread that serves requests or runs a job."""
BEGIN = {"write": "BEGIN IMMEDIATE", "read": "BEGIN", "stepwise": ""}
"""How a session of each kind begins on SQLite; without a BEGIN, each statement is a transaction of its own."""


def open_engine(url: str) -> Engine:
    """Return an engine; on SQLite every transaction takes the write lock at its start and waits for it."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    locked = {"timeout": LOCK_TIMEOUT_S, "check_same_thread": False}
    # Parameters stay out of errors: they reach public routes, and may hold gold answers or origins.
    engine = create_engine(url, connect_args=locked, pool_size=THREADS, hide_parameters=True)

    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        # FULL: a receipt or a signed transaction that was handed out must survive a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: Any) -> None:
        # A read that turns into a write would fail with "database is locked" if another writer came between.
        if begins := BEGIN[connection.get_execution_options().get("haptic", "write")]:
            connection.exec_driver_sql(begins)

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", begin)
    return engine


def migrate(engine: Engine) -> None:
    """Bring the database to the newest schema; running it again changes nothing."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@dataclass(frozen=True, slots=True)
class Database:
    """Opens sessions; rows stay readable after a commit."""

    engine: Engine

    def write(self) -> Session:
        """Return a session that may write; on SQLite it waits for the one write lock at its first statement."""
        return Session(self.engine, expire_on_commit=False)

    def read(self) -> Session:
        """Return a session that only reads, and never waits for a writer."""
        return Session(self.engine.execution_options(haptic="read"), expire_on_commit=False)

    def stepwise(self) -> Session:
        """Return a session for work that waits for the chain between its statements: it holds no lock meanwhile.

        On SQLite each statement is a transaction of its own, so a rollback takes nothing back.
        """
        return Session(self.engine.execution_options(haptic="stepwise"), expire_on_commit=False)


def open_database(url: str) -> Database:
    """Return the database at `url`, migrated to the newest schema; ConfigError where it cannot be opened."""
    try:
        engine = open_engine(url)
        migrate(engine)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        # Not the URL itself: it may hold a password.
        raise ConfigError(f"the database cannot be opened, check HAPTIC_DATABASE_URL: {error}") from error
    return Database(engine)
