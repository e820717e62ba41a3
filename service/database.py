"""Opens the database: SQLite with WAL and one writer at a time, or PostgreSQL; migrated before it is used."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, ExceptionContext, NullPool, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session, create_engine

from chain.ledger.faults import hide_rows
from service.errors import ConfigError

OLDEST = (14,)
"""PostgreSQL before it has no idle_session_timeout, without which a leader that is cut off stays one."""
LOCK_TIMEOUT_S = 30
"""How long a transaction waits for a lock: SQLite's one write lock, or a row's on PostgreSQL."""
THREADS = 48
"""Connections kept open to SQLite: one for each thread that serves requests or runs a job."""
KEPT, AT_MOST = 10, 30
"""Connections to PostgreSQL, kept open and in all: three replicas find room in the 100 that it allows by default."""
LOCKED = "55P03"
"""PostgreSQL's SQLSTATE where a lock was not had in time."""
LEASE_S = 12
"""A session that holds a SessionLock and is silent for so long is ended by PostgreSQL, and the lock is free."""
BUSY_ERRORS = (OperationalError, InternalError, PoolTimeoutError)
"""The database is locked, full, gone, its disk broken, being restarted, or a standby that only reads."""
JSON: Mapping[str, Any] = {
    "json_serializer": lambda value: msgspec.json.encode(value).decode(), "json_deserializer": msgspec.json.decode,
}  # fmt: skip
"""Five times as fast as the standard library's, and every ranking has a message."""
LIBPQ: Mapping[str, Any] = {
    "connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}  # fmt: skip
"""With these we notice within seconds that the server is gone; SERVER lets it notice that we are."""
SERVER = {
    "tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3, "tcp_user_timeout": 10_000,
}  # fmt: skip
"""Settings of each session: what a host that died had locked is free within seconds, not two hours."""
KINDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # A read that turns into a write would fail with "database is locked" if another writer came between.
    # Without a BEGIN, each statement is a transaction of its own.
    "sqlite": {"write": {"begin": "BEGIN IMMEDIATE"}, "read": {"begin": "BEGIN"}, "stepwise": {"begin": ""}},
    # A reader sees one state of the database on either, however many statements it takes to read it.
    "postgresql": {
        "write": {"isolation_level": "READ COMMITTED"},
        "read": {"isolation_level": "REPEATABLE READ"},
        "stepwise": {"isolation_level": "AUTOCOMMIT"},
    },
}
"""How a session of each kind begins."""


def open_engine(url: str) -> Engine:
    """Return an engine for SQLite or PostgreSQL (`postgresql://`, `postgres://`: psycopg is its driver)."""
    parsed = _parse(url)
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    backend = parsed.get_backend_name()
    if backend not in KINDS:
        raise ValueError(f"{backend} is neither sqlite nor postgresql")
    if backend == "sqlite":
        return _open_sqlite(parsed, LOCK_TIMEOUT_S)
    return _open_postgresql(parsed, pool_size=KEPT, max_overflow=AT_MOST - KEPT)


def _parse(url: str) -> URL:
    """Return a URL; a ConfigError, which shows nothing of it, where a part may be the rest of a password."""
    try:
        parsed = make_url(url)
        odd = url.count("@") > 1 or "@" in (parsed.database or "")
        if not (odd and parsed.get_backend_name() in {"postgres", "postgresql"}):
            return parsed
    except (ValueError, ArgumentError):
        pass
    # Not what is wrong with it: where a password is not escaped, any part of it may be taken for a host or a port.
    raise ConfigError(
        "HAPTIC_DATABASE_URL is no URL such as postgresql://user:password@host/name: write each of @ : / ? # % in a "
        "password, and any other @, as %40 %3A %2F %3F %23 %25"
    ) from None


def _check_server(url: URL) -> None:
    """Raise a ConfigError where a PostgreSQL server is too old, before it is given settings that it does not know."""
    engine = create_engine(url, connect_args={"connect_timeout": 5}, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "handle_error", _tidy)
    with engine.connect() as connection:
        found = connection.dialect.server_version_info or ()
    if found < OLDEST:
        raise ConfigError(
            f"the database server is PostgreSQL {'.'.join(map(str, found))}, and {OLDEST[0]} or newer is needed: upgrade "
            "it, or set HAPTIC_DATABASE_URL to another"
        )


def _open_sqlite(url: URL, patience_s: float) -> Engine:
    """Return an engine whose transactions take the write lock at their start and wait for it so long."""
    locked = {"timeout": patience_s, "check_same_thread": False}
    # Parameters stay out of errors: they reach public routes, and may hold gold answers or origins.
    engine = create_engine(url, connect_args=locked, pool_size=THREADS, hide_parameters=True, **JSON)

    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        # FULL: a receipt or a signed transaction that was handed out must survive a power cut.
        _log_ahead(connection, patience_s)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: Any) -> None:
        if begins := connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"):
            connection.exec_driver_sql(begins)

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", begin)
    event.listen(engine, "handle_error", _tidy)
    return engine


def _log_ahead(connection: Any, patience_s: float) -> None:
    """Switch a file to its write-ahead log. SQLite fails at once where another does so now, instead of waiting."""
    patience_ends = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > patience_ends:
                raise
            time.sleep(0.01)
        else:
            return


def _open_postgresql(url: URL, lease_s: int = 0, **options: Any) -> Engine:
    """Return an engine; with `lease_s`, the server ends a session of it that is silent for so long."""
    settings = SERVER | {"lock_timeout": int(LOCK_TIMEOUT_S * 1000), "idle_session_timeout": lease_s * 1000}
    ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
    # What the URL itself says prevails: of two options of one name the last counts.
    arguments = {name: value for name, value in LIBPQ.items() if name not in url.query}
    arguments["options"] = f"{ours} {url.query.get('options', '')}"
    engine = create_engine(
        url, connect_args=arguments, pool_pre_ping=True, hide_parameters=True, **JSON, **options
    )
    event.listen(engine, "handle_error", _tidy)
    return engine


def _tidy(context: ExceptionContext) -> None:
    """Cut from an error what it quotes of a row, which may be secret as parameters are, and where to read about it."""
    hide_rows(context.original_exception)
    error = context.sqlalchemy_exception
    if error is not None:
        error.code = None
        if isinstance(error, DBAPIError):
            original = context.original_exception
            error.args = (f"({type(original).__module__}.{type(original).__name__}) {original}",)
            if context.engine is not None:
                error.add_note(_named(context.engine.url))


def _named(url: URL) -> str:
    """Return which database a URL is of, without user and password."""
    return f"the database {url.database}" + (f" at {url.host}" if url.host else "")


def _is_locked(error: Exception) -> bool:
    original = getattr(error, "orig", None)
    code, state = getattr(original, "sqlite_errorcode", 0), getattr(original, "sqlstate", None)
    return code & 0xFF == sqlite3.SQLITE_BUSY or state == LOCKED


def trouble(error: Exception) -> str:
    """Return in one line which database one of BUSY_ERRORS is of, what keeps it from being used, and what to do."""
    name = next(iter(getattr(error, "__notes__", ())), "the database")
    if _is_locked(error):
        return (
            f"{name} is locked: another process is writing to it, and did not let go within {LOCK_TIMEOUT_S} s; run this "
            "again when it is done"
        )
    said = next(iter(str(error).splitlines()), type(error).__name__)
    return f"{name} cannot be used: {said}; when it is there, has room and may be written to, run this again"


def migrate(engine: Engine) -> None:
    """Bring the database to the newest schema; running it again changes nothing."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        alone(connection, "migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alone(connection: Connection, name: str) -> None:
    """Wait until no other transaction is alone under this name, and be it until this one ends.

    For what no row's lock covers, such as rows that are not there yet. On SQLite every writer is alone.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_key(name))))


def _key(name: str) -> int:
    """Return the number that a name has among PostgreSQL's advisory locks."""
    return int.from_bytes(hashlib.sha256(f"haptic {name}".encode()).digest()[:8], signed=True)


class SessionLock:
    """A name that at most one session of a PostgreSQL database holds, on a connection that is used for nothing else.

    It is free again when that session ends: with its process, with its host, or because it was silent for LEASE_S.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        options = {"poolclass": NullPool, "isolation_level": "AUTOCOMMIT"}
        self._engine = _open_postgresql(engine.url, LEASE_S, **options)
        self._ask = select(func.pg_try_advisory_lock(_key(name)))
        self._connection: Connection | None = None

    def take(self) -> bool:
        """Tell whether the lock is held here, taking it if it is free.

        A SQLAlchemyError, and not held, where the server does not answer.
        """
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            # The server says yes to the session that holds it already, and to no other.
            return bool(self._connection.execute(self._ask).scalar_one())
        except SQLAlchemyError:
            self.release()
            raise

    def release(self) -> None:
        """Let the lock go by ending its session."""
        gone, self._connection = self._connection, None
        if gone is not None:
            gone.invalidate()
            gone.close()


@dataclass(frozen=True, slots=True)
class Database:
    """Opens sessions; rows stay readable after a commit."""

    engine: Engine
    _kinds: Mapping[str, Engine] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kinds = KINDS[self.engine.dialect.name].items()
        # Made once, because each listens for connections.
        made: dict[str, Engine] = {name: self.engine.execution_options(**options) for name, options in kinds}
        if self.embedded:
            made["at once"] = hasty = _open_sqlite(self.engine.url, 0)
            event.listen(self.engine, "engine_disposed", lambda _: hasty.dispose())
        object.__setattr__(self, "_kinds", made)

    @property
    def embedded(self) -> bool:
        """A statement is a call in this process (SQLite), not a question to a server."""
        return self.engine.dialect.name == "sqlite"

    def write(self) -> Session:
        """Return a session that may write; on SQLite it waits for the one write lock at its first statement.

        On PostgreSQL what is read before it is written has to be locked: a row, or a name by `alone`.
        """
        return Session(self._kinds["write"], expire_on_commit=False)

    def write_at_once(self) -> Session:
        """Return a session that writes, or fails with one of BUSY_ERRORS where it would have to wait for another writer.

        Only of an embedded database.
        """
        return Session(self._kinds["at once"], expire_on_commit=False)

    def read(self) -> Session:
        """Return a session that only reads, all of it from one moment, and never waits for a writer."""
        return Session(self._kinds["read"], expire_on_commit=False)

    def stepwise(self) -> Session:
        """Return a session for work that waits for the chain between its statements: it holds no lock meanwhile.

        Each statement is a transaction of its own, so a rollback takes nothing back.
        """
        return Session(self._kinds["stepwise"], expire_on_commit=False)


def open_database(url: str) -> Database:
    """Return the database at `url`, migrated to the newest schema; ConfigError where it cannot be opened.

    One of BUSY_ERRORS where it only is locked for longer than is waited.
    """
    if url.startswith("sqlite:///") and not (folder := Path(url.removeprefix("sqlite:///")).parent).is_dir():
        raise ConfigError(
            f"there is no folder {folder} for the database: set HAPTIC_DATA_DIR or HAPTIC_DATABASE_URL to where it is, "
            "or make it"
        )
    try:
        engine = open_engine(url)
        if engine.dialect.name == "postgresql":
            _check_server(engine.url)
        migrate(engine)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        if _is_locked(error):
            raise
        # Not the URL itself: it holds a password.
        raise ConfigError(f"the database cannot be opened, check HAPTIC_DATABASE_URL: {error}") from error
    return Database(engine)
