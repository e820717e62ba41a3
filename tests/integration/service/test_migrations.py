"""A database of an older version is brought up with all that it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, inspect
from sqlmodel import Session

from chain import ledger
from chain.feedback import Task
from service import database
from service.database import migrate, open_engine
from service.errors import ConfigError
from service.ledger import results

OLD = """
INSERT INTO chain_transaction (kind, epoch, sender, nonce, hash, about, raw, status)
VALUES ('{kind}', {epoch}, '0xab', {nonce}, '0x{nonce}', '0x01', x'02', 'failed')
"""
ASKED = Task.of("a prompt", ["one", "another"], ["ranking"])
OPENED = dict.fromkeys(("seed_hash", "gold_root", "rules_hash"), "") | {
    "rules": {"version": 2}, "lambda_num": "1", "lambda_den": "1", "opened_at": 0, "entries": 0, "last_at": 0,
    "redacted": 0, "retired": 0,
}  # fmt: skip
TOLD = {
    "prompt": ASKED.prompt, "responses": list(ASKED.responses), "methods": list(ASKED.methods), "author": "",
    "gold_salt": "", "retired": False, "origins": [], "assignees": [], "gold_ranks": [], "redacted": [],
}  # fmt: skip
ASKED_ABOUT = {"both": ["a", "b", "a"], "same": ["a", "a"], "unranked": ["a", "c"]}
"""The models behind the answers of each task."""
SCORED = "INSERT INTO score (epoch, wallet, line) VALUES ({epoch}, '{wallet}', '{line}')"


def test_transactions_of_an_older_version_keep_their_turn(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'haptic.db'}")
    with engine.begin() as connection:
        _upgrade(connection, "0002")
        for nonce, (kind, epoch) in enumerate(
            [("post", 0), ("post", 0), ("open", 0), ("post", 0), ("post", 1)]
        ):
            connection.exec_driver_sql(OLD.format(kind=kind, epoch=epoch, nonce=nonce))
    migrate(engine)
    with Session(engine) as session:
        found = [
            ledger.transaction(session, kind, epoch)
            for kind, epoch in [("post", 0), ("open", 0), ("post", 1)]
        ]
        assert [(row.nonce, row.turn) for row in found if row is not None] == [(3, 2), (2, 0), (4, 0)]
        assert all(
            [a.hash for a in ledger.attempts(session, row)] == [row.hash] for row in found if row is not None
        )
    engine.dispose()


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_scores_of_an_older_version_are_given_their_places(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = _empty(backend, tmp_path, request)
    scores = {"0xa": "9", "0xb": "10", "0xc": "10", "0xd": "0", "0xe": str(2**80), "0xf": str(2**80 + 1)}
    with engine.begin() as connection:
        _upgrade(connection, "0004")
        for epoch in (0, 1):
            for wallet, score in scores.items():
                line = json.dumps({"score": score})
                connection.exec_driver_sql(SCORED.format(epoch=epoch, wallet=wallet, line=line))
    migrate(engine)
    with Session(engine) as session:
        for epoch in (0, 1):
            found = results.scores(session, epoch, 0, 9)
            assert [row.wallet for row in found] == ["0xf", "0xe", "0xb", "0xc", "0xa", "0xd"]
            assert [row.place for row in found] == [1, 2, 3, 4, 5, 6]
    engine.dispose()


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_scores_of_an_older_version_are_on_the_leaderboard(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = _empty(backend, tmp_path, request)
    numbers = {"comparisons": 60, "deltaG": str(-(2**46)), "deltaV": str(2**54)}
    with engine.begin() as connection:
        _upgrade(connection, "0004")
        for epoch in (0, 1, 2):
            line = json.dumps({"score": "1"} | numbers)
            connection.exec_driver_sql(SCORED.format(epoch=epoch, wallet="0xa", line=line))
    migrate(engine)
    with Session(engine) as session:
        assert list(results.merits(session, 1, 2)) == [("0xa", 2, 120, -(2**47), 2**55)]
        assert list(results.merits(session, 0, 2, ["0xb"])) == []
    engine.dispose()


@pytest.mark.parametrize("closed_at", [None, 9])
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_network_of_an_older_version_is_left_to_the_release_that_knows_its_epochs(
    backend: str, closed_at: int | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Closed epochs too: whoever verifies the next one goes through all of them, with one program."""
    engine = _older(backend, tmp_path, request, closed_at)
    with pytest.raises(ConfigError, match="epoch 3 was opened under rules of version 2"):
        migrate(engine)
    with engine.begin() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "0010"
        assert "salt" not in {c["name"] for c in inspect(connection).get_columns("task")}
    engine.dispose()


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_closed_epochs_of_an_older_version_in_which_people_found_only_ties_still_count(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whatever was counted stays; what is open, was given up, or was ranked by nobody counts no more than before."""
    engine = _empty(backend, tmp_path, request)
    closed = {"closed_at": 9}
    epochs = {0: closed, 1: closed, 2: closed, 3: closed | {"abandoned_at": 8}, 4: {}}
    texts = ("digest", "wallet", "signer", "signature", "comment", "receipt")
    with engine.begin() as connection:
        _upgrade(connection, "0011")
        tables = MetaData()
        tables.reflect(connection)
        for number, state in epochs.items():
            _add(connection, tables, "epoch", OPENED | {"epoch": number} | state)
            for task, models in ASKED_ABOUT.items():
                _add(connection, tables, "task", TOLD | {"epoch": number, "task": task, "origins": models})
            for position, task in enumerate(() if number == 2 else ("both", "same", "both")):
                signed = dict.fromkeys(texts, "") | {"digest": str(position), "wallet": str(position)}
                _add(connection, tables, "ranking", signed | {
                    "epoch": number, "position": position, "task": task, "revision": 0, "message": {}, "received_at": 0,
                })  # fmt: skip
        for winner, loser, count in (("a", "b", 5), ("b", "a", 7)):
            counted = {"epoch": 0, "winner": winner, "loser": loser, "count": count}
            _add(connection, tables, "match", counted)
    migrate(engine)
    with Session(engine) as session:
        found = sorted((m.epoch, m.winner, m.loser, m.count) for m in results.matches(session))
    assert found == [(0, "a", "b", 5), (0, "b", "a", 7), (1, "a", "b", 0), (1, "b", "a", 0)]
    engine.dispose()


def _add(connection: Connection, tables: MetaData, name: str, values: Mapping[str, Any]) -> None:
    connection.execute(tables.tables[name].insert().values(**values))


def _empty(backend: str, folder: Path, request: pytest.FixtureRequest) -> Engine:
    sqlite = f"sqlite:///{folder / 'haptic.db'}"
    return open_engine(sqlite if backend == "sqlite" else request.getfixturevalue("postgres").new())


def _older(backend: str, folder: Path, request: pytest.FixtureRequest, closed_at: int | None) -> Engine:
    """Return a database of the version before salts, with one epoch of one task."""
    engine = _empty(backend, folder, request)
    with engine.begin() as connection:
        _upgrade(connection, "0010")
        tables = MetaData()
        tables.reflect(connection, only=["epoch", "task"])
        _add(connection, tables, "epoch", OPENED | {"epoch": 3, "closed_at": closed_at})
        _add(connection, tables, "task", TOLD | {"epoch": 3, "task": ASKED.hash()})
    return engine


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
