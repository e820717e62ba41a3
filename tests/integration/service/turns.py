"""Two transactions on a PostgreSQL at once: the second begins when the first is done and not yet committed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from sqlmodel import Session as Db

from service.database import Database


def at_once(db: Database, first: Callable[[Db], Any], second: Callable[[], Any]) -> Any:
    """Let the second come while the first is done and not committed; return what came of it, or its error."""

    def outcome() -> Any:
        try:
            return second()
        except Exception as error:  # noqa: BLE001  # each test says which it wants
            return error

    with ThreadPoolExecutor(1) as pool, db.write() as session:
        first(session)
        coming = pool.submit(outcome)
        _wait_until_it_waits(db, coming)
        session.commit()
        return coming.result(30)


def _wait_until_it_waits(db: Database, coming: Future[Any]) -> None:
    """Wait until the other is at its end, or waits for a lock."""
    with db.stepwise() as probe:
        for _ in range(500):
            waits = probe.connection().exec_driver_sql("SELECT 1 FROM pg_locks WHERE NOT granted").first()
            if waits or coming.done():
                return
            wait([coming], 0.01)
    raise AssertionError("the second neither ended nor waited for the first")


def doing(db: Database, what: Callable[[Db], Any]) -> Callable[[], Any]:
    """Return a transaction of its own that does something."""

    def run() -> Any:
        with db.write() as session:
            found = what(session)
            session.commit()
        return found

    return run
