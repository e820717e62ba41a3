"""Two transactions at once leave what one after the other would: on PostgreSQL as with SQLite's one writer."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eth_account import Account
from sqlmodel import Session as Db

from chain import ledger
from chain.assignment import seed_commitment
from chain.bundle import SignedSession
from chain.continuity import Last
from chain.errors import ChainError
from chain.messages import Domain, Session, sign
from chain.rules import Rules
from chain.types import Address, BlockRef, Hash32
from service import auth, corrections, epochs, training
from service.database import Database, open_database
from service.epochs import Place
from service.errors import ConflictError
from service.ledger import queries, work
from service.ledger.tables import EpochRow, JobRow
from service.settings import Settings
from service.worker import Worker, _Seen
from tests.integration.service.small_trainer import train
from tests.integration.service.turns import at_once, doing
from tests.postgres import Postgres
from tests.worlds import UNASKED

RULES = Rules(methods=("ranking",), overlap=3, overlap_max=3)
VAULT = Address("0x" + "1" * 40)
NOBODY = Address("0x" + "2" * 40)
DEPLOYMENT: Any = SimpleNamespace(
    chain_id=1, vault=VAULT, distributor=NOBODY, token=NOBODY, genesis=0, epoch_length=100, from_block=0
)


@pytest.fixture
def db(postgres: Postgres) -> Iterator[Database]:
    opened = open_database(postgres.new())
    yield opened
    opened.engine.dispose()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(DEPLOYMENT, b"secret", tmp_path)


# --- sessions, jobs, workers ------------------------------------------------------------------------------


def _log_in(account: Any, most: int) -> Callable[[Db], str]:
    domain = Domain(1, VAULT)
    wallet = Address(account.address.lower())
    session = Session(wallet, wallet, 0, most, 1000, auth.terms_hash())
    signed = SignedSession(session, sign(session, domain, account))
    return lambda db: auth.log_in(db, signed, domain, 0, 5, b"master", UNASKED)


def test_one_session_sent_twice_gives_one_token(db: Database) -> None:
    log_in = _log_in(Account.create(), 7)
    tokens: list[str] = []
    again = at_once(db, lambda s: tokens.append(log_in(s)), doing(db, log_in))
    assert [again] == tokens


def test_no_wallet_has_more_sessions_than_it_may(db: Database) -> None:
    account = Account.create()
    for n in range(auth.MAX_SESSIONS - 1):
        doing(db, _log_in(account, n + 1))()
    one_too_many = at_once(db, _log_in(account, 98), doing(db, _log_in(account, 99)))
    assert isinstance(one_too_many, ConflictError)


def test_what_is_asked_for_twice_is_queued_once(db: Database) -> None:
    again = at_once(
        db,
        lambda s: training.ask(s, "one", ["first"]),
        doing(db, lambda s: training.ask(s, "one", ["second"])),
    )
    assert again.arguments == ["first"]


def _queue(db: Database, *names: str, **values: Any) -> None:
    doing(db, lambda s: queries.add(s, *(JobRow(name=n, arguments=[], **values) for n in names)))()


def test_two_workers_take_a_job_each(db: Database) -> None:
    _queue(db, "one", "two")
    taken = at_once(
        db,
        lambda s: work.claim_job(s, "a", 1.0, 9.0),
        doing(db, lambda s: work.claim_job(s, "b", 1.0, 9.0)),
    )
    assert (taken.name, taken.worker) == ("two", "b")
    with db.read() as reader:
        assert [j.worker for j in work.jobs(reader)] == ["a", "b"]


def test_a_worker_that_is_replaced_while_it_ends_changes_nothing(db: Database, tmp_path: Path) -> None:
    _queue(db, "one")
    slow = doing(db, lambda s: work.claim_job(s, "slow", 1.0, 9.0))()
    worker = Worker(db, tmp_path, 3)
    at_once(
        db,
        lambda s: work.claim_job(s, "quick", 99.0, 9.0),
        lambda: worker._finish(slow, "", _Seen(over=True)),
    )
    with db.read() as reader:
        (job,) = work.jobs(reader)
    assert (job.state, job.worker) == ("running", "quick")


def test_a_failed_job_is_put_back_once(db: Database) -> None:
    _queue(db, "one", state="failed")

    def requeue(session: Db) -> None:
        training.requeue(session, Settings(), "one")

    again = at_once(db, requeue, doing(db, requeue))
    assert isinstance(again, ConflictError)


# --- epochs and runs --------------------------------------------------------------------------------------


def _base(folder: Path) -> dict[str, Any]:
    """Return what makes a first model."""
    return {
        "registry": str(folder / "models"),
        "name": "sft-0",
        "parent": "",
        "seed": 0,
        "sha256": "",
        "snapshot": "",
    }


def _closed(epoch: int, place: Place) -> EpochRow:
    place.preferences_path(epoch).write_text(f'{{"epoch": {epoch}}}\n')
    return EpochRow(
        epoch=epoch, seed_hash="", gold_root="", rules_hash="", rules={}, lambda_num="1", lambda_den="1", opened_at=0,
        closed_at=1,
    )  # fmt: skip


def test_a_run_is_made_once_and_its_file_is_what_its_row_says(
    db: Database, place: Place, tmp_path: Path
) -> None:
    # Without an arena: where there is one, no run is made while the last is in training.
    settings = Settings(data_dir=tmp_path, retrain_after=1, arena=False)
    train(argparse.Namespace(**_base(tmp_path)))
    doing(db, lambda s: queries.add(s, _closed(0, place)))()

    def second() -> None:
        doing(db, lambda s: queries.add(s, _closed(1, place)))()
        doing(db, lambda s: training.due_run(s, place, settings))()

    assert at_once(db, lambda s: training.due_run(s, place, settings), second) is None
    with db.read() as reader:
        runs = work.runs(reader)
    assert [(r.run, r.first, r.last) for r in runs] == [(1, 0, 0), (2, 1, 1)]
    for run in runs:
        data = (tmp_path / "snapshots" / f"run-{run.run}.jsonl").read_bytes()
        assert run.snapshot == "0x" + hashlib.sha256(data).hexdigest()


def test_no_run_learns_from_an_epoch_that_is_taken_back_at_the_same_time(
    db: Database, place: Place, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, retrain_after=1, arena=False)
    train(argparse.Namespace(**_base(tmp_path)))
    row = _closed(0, place)
    row.seed_hash = seed_commitment(place.seed(0))
    doing(db, lambda s: queries.add(s, row))()
    reopened = doing(db, lambda s: corrections.reopen(s, place, 0))
    assert at_once(db, lambda s: training.due_run(s, place, settings), reopened) is None
    with db.read() as reader:
        assert work.runs(reader) == []


def _open(place: Place, epoch: int) -> Callable[[Db], Any]:
    return lambda s: epochs.open_epoch(s, place, epoch, [], RULES, 5)


def test_an_epoch_is_opened_once(db: Database, place: Place) -> None:
    again = at_once(db, _open(place, 0), doing(db, _open(place, 0)))
    assert isinstance(again, ConflictError)
    assert "opened already" in str(again)


# --- the chain's ledger -----------------------------------------------------------------------------------


def _block(number: int) -> BlockRef:
    return BlockRef(number, Hash32(f"0x{number:064x}"), Hash32("0x" + "0" * 64), number)


@pytest.mark.parametrize("before", [None, 5])
def test_a_range_is_stored_by_one_indexer(db: Database, before: int | None) -> None:
    if before is not None:
        doing(db, lambda s: ledger.advance(s, DEPLOYMENT, None, _block(before), Last()))()

    def move(to: int) -> Callable[[Db], None]:
        return lambda s: ledger.advance(s, DEPLOYMENT, before, _block(to), Last())

    refused = at_once(db, move(7), doing(db, move(9)))
    assert isinstance(refused, ChainError)
    assert "another indexer" in str(refused)
    with db.read() as reader:
        known = ledger.checkpoint(reader)
    assert known is not None
    assert known.number == 7
