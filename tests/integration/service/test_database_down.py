"""While the database is locked, away or full: 503 in words, nothing half-written, and all goes on when it is back."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from chain.devnet import mine
from chain.messages import sign
from chain.rules import Rules
from service import database, jobs
from service.app import BUSY
from service.devnet import process, wait_until_served
from tests.postgres import Postgres

RULES = Rules(methods=("ranking",))


@dataclass
class Case:
    """A service, what happens to its database, and whether what is stored can still be read meanwhile."""

    net: Any
    trouble: Callable[[], Any]
    is_read: bool


@pytest.fixture(params=["locked", "away", "read-only"])
def case(request: pytest.FixtureRequest, network: Any, tmp_path: Path) -> Iterator[Case]:
    if request.param == "locked":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database, "LOCK_TIMEOUT_S", 0.2)
            with network(tmp_path, RULES) as net:
                yield Case(net, lambda: _locked(tmp_path / "haptic.db"), is_read=True)
        return
    if request.param == "read-only":
        server = request.getfixturevalue("postgres")
        url = server.new()
        with network(tmp_path, RULES, database_url=url) as net:
            yield Case(net, lambda: _read_only(server, url), is_read=True)
        return
    with Postgres() as server, network(tmp_path, RULES, database_url=server.new()) as net:
        yield Case(net, lambda: _away(server), is_read=False)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold SQLite's write lock for longer than anybody waits for it."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


@contextmanager
def _away(server: Postgres) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@contextmanager
def _read_only(server: Postgres, url: str) -> Iterator[None]:
    """Let the server refuse what writes, as a standby does."""
    server.read_only(url, on=True)
    yield
    server.read_only(url, on=False)


def _signed(net: Any, right: Any) -> dict[str, Any]:
    """Let somebody take a task of epoch 0 and sign a ranking of it; return the request."""
    net.go_to(net.start(0) + 1)
    net.open(0, net.plans(0, 2))
    who = net.person()
    task = who.next_task()
    ranking = who.ranking(task, right(task), now=net.now())
    return {
        "ranking": ranking.to_json(),
        "signature": sign(ranking, net.ctx.domain, who.signer),
        "comment": "",
    }


def test_all_waits_for_the_database_and_goes_on_when_it_is_back(case: Case, right: Any) -> None:
    net, request = case.net, {"method": "POST", "path": "/v1/rankings", "body": _signed(case.net, right)}
    jobs.run_step(net.ctx, net.ctx.pulse, "index")
    mine(net.rpc, 3)
    before = net.rows()
    with case.trouble():
        answer = net.ask(**request)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert answer.json()["detail"] == BUSY
        assert net.ask("GET", "/v1/epochs").status_code == (200 if case.is_read else 503)
        with pytest.raises(SQLAlchemyError):
            jobs.run_step(net.ctx, net.ctx.pulse, "index")
        assert "index" in net.ask("GET", "/healthz").json()["errors"]
    assert net.rows() == before
    assert [net.ask(**request).status_code for _ in range(2)] == [201, 200]
    jobs.run_step(net.ctx, net.ctx.pulse, "index")
    assert net.ask("GET", "/healthz").json()["ok"]


def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "it did not come true in 30 s"
        time.sleep(0.05)


def test_a_full_disk_stops_nothing_for_good(network: Any, tmp_path: Path, right: Any) -> None:
    with network(tmp_path, RULES) as net:
        body = _signed(net, right)
        environ = net.site.environ | {
            "HAPTIC_ARENA": "false",
            "HAPTIC_TICK_S": "0.2",
            "HAPTIC_PORT": str(_free()),
        }
        url = f"http://127.0.0.1:{environ['HAPTIC_PORT']}"

        def health() -> dict[str, Any]:
            with suppress(httpx.HTTPError):
                found: dict[str, Any] = httpx.get(f"{url}/healthz").json()
                return found
            return {"errors": {}}

        net.site.environ.update(environ)
        with process("serve", ["serve"], net.site) as child:
            wait_until_served(url, child, tmp_path / "serve.log")
            # No file of the service can grow any more: its database's neither.
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            answer = httpx.post(f"{url}/v1/rankings", json=body)
            assert (answer.status_code, answer.json()["detail"]) == (503, BUSY)
            net.go_to(net.start(1) + 1)
            _until(lambda: "index" in health()["errors"])
            assert httpx.get(f"{url}/v1/epochs/0").json()["judgements"] == 0
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            _until(lambda: httpx.get(f"{url}/v1/epochs/0").json()["root"] is not None)
            _until(lambda: health()["ok"])
        with sqlite3.connect(tmp_path / "haptic.db") as found:
            assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found.close()


def _free() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("is_new", [True, False])
def test_a_command_says_in_one_line_that_another_process_keeps_the_database(
    tmp_path: Path, *, is_new: bool
) -> None:
    path = tmp_path / "haptic.db"
    if not is_new:
        database.open_database(f"sqlite:///{path}").engine.dispose()
    script = "from service import cli, database; database.LOCK_TIMEOUT_S = 0.2; cli.main()"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("HAPTIC_")}
    with _locked(path):
        said = subprocess.run(
            [sys.executable, "-c", script, "epoch", "list"], env=environ | {"HAPTIC_DATA_DIR": str(tmp_path)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (said.returncode, said.stdout) == (1, "")
    (line,) = said.stderr.splitlines()
    assert line.startswith(f"error: the database {path} is locked: another process is writing to it")
    assert "run this again when it is done" in line


def test_a_read_only_database_is_named_without_its_password(postgres: Postgres) -> None:
    url = postgres.new()
    db = database.open_database(url)
    postgres.read_only(url, on=True)
    with db.write() as session, pytest.raises(database.BUSY_ERRORS) as caught:
        session.connection().execute(text("CREATE TABLE one (more int)"))
    postgres.read_only(url, on=False)
    db.engine.dispose()
    line = database.trouble(caught.value)
    assert line.startswith(f"the database {make_url(url).database}")
    assert "cannot be used: " in line
    assert "\n" not in line
