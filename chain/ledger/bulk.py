"""Many rows at once: COPY on PostgreSQL, executemany on SQLite, both past the mapping of objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlmodel import Session, SQLModel

from chain.ledger.faults import wrapped


def insert_rows(
    session: Session, table: type[SQLModel], names: Sequence[str], rows: list[tuple[Any, ...]]
) -> None:
    """Append rows, whose values are whole numbers, None, or text that needs no escape: hex, digits, names.

    In the session's transaction, like any other statement.
    """
    if not rows:
        return
    connection, where = session.connection(), table.__tablename__
    columns = ", ".join(f'"{name}"' for name in names)
    if connection.dialect.name == "postgresql":
        cursor: Any = connection.connection.cursor()
        driver: Any = connection.dialect.dbapi
        statement = f"COPY {where} ({columns}) FROM STDIN"
        try:
            with cursor, cursor.copy(statement) as copy:
                copy.write(_copied(rows))
        except driver.Error as error:
            raise wrapped(connection, statement, error) from error
        return
    holes = ", ".join("?" * len(names))
    connection.exec_driver_sql(f"INSERT INTO {where} ({columns}) VALUES ({holes})", rows)  # noqa: S608


def put_rows(
    session: Session, table: type[SQLModel], names: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Insert rows of text, or replace those with the same value in the first of `names`, which is the key."""
    if not rows:
        return
    connection, where = session.connection(), table.__tablename__
    changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    columns, then = ", ".join(names), f"ON CONFLICT ({names[0]}) DO UPDATE SET {changes}"
    if connection.dialect.name == "postgresql":
        lists = ", ".join(["%s::text[]"] * len(names))
        put = f"INSERT INTO {where} ({columns}) SELECT * FROM unnest({lists}) {then}"  # noqa: S608
        # As array literals: adapting so many values one by one takes longer than all the rest.
        connection.exec_driver_sql(
            put, tuple("{" + ",".join(column) + "}" for column in zip(*rows, strict=True))
        )
        return
    holes = ", ".join("?" * len(names))
    put = f"INSERT INTO {where} ({columns}) VALUES ({holes}) {then}"  # noqa: S608
    connection.exec_driver_sql(put, rows)


def _copied(rows: Iterable[tuple[Any, ...]]) -> str:
    """Return rows in COPY's text format."""
    return "".join(
        ["\t".join(["\\N" if value is None else str(value) for value in row]) + "\n" for row in rows]
    )
