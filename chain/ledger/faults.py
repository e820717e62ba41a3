"""What a database's own error may say in a log or an answer: what is wrong, and never a value of a row."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

QUOTED: Final = ("\nDETAIL:", "\nCONTEXT:", "\nLINE ", "\nWHERE:")
"""Where PostgreSQL begins to quote: the row, the line of a COPY, the statement."""
DATA: Final = "22"
"""Class of the SQLSTATEs about a value, whose first line quotes it."""


def hide_rows(error: BaseException) -> None:
    """Cut from a driver's error what it quotes of a row; a traceback shows it too, as the cause of ours."""
    state = str(getattr(error, "sqlstate", None) or "")
    if state.startswith(DATA):
        error.args = (f"a value does not fit its column (SQLSTATE {state})",)
    elif error.args:
        said = str(error.args[0])
        for begin in QUOTED:
            said = said.partition(begin)[0]
        error.args = (said, *error.args[1:])


def wrapped(connection: Connection, statement: str, error: Exception) -> BaseException:
    """Return a driver's error as SQLAlchemy raises those of its own statements, without the row."""
    hide_rows(error)
    base: Any = connection.dialect.dbapi
    made = DBAPIError.instance(statement, None, error, base.Error, hide_parameters=True)
    made.__dict__["code"] = None  # no line of where to read about it
    return made
