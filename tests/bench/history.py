"""A database in which a hundred thousand wallets worked for some epochs: the last of them runs, the others are paid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlmodel import Session, SQLModel

from chain.assignment import seed_commitment
from chain.board import Board
from chain.bundle import Evidence, SignedRanking
from chain.canonical import text_hash
from chain.events import Activated, Staked
from chain.feedback import Task
from chain.handout import HandoutEntry
from chain.ledger import EpochReport, StakeRow
from chain.ledger.bulk import insert_rows
from chain.ledger.rows import ReportRow
from chain.tree import SumTree
from chain.types import Address, Hash32, Leaf, Wei
from service.epochs import Place
from service.ledger.tables import (
    EpochRow,
    HandoutRow,
    LabelRow,
    LeafRow,
    LeaseRow,
    MatchRow,
    MeritRow,
    PoolRow,
    RankingRow,
    ScoreRow,
    SessionRow,
    ShareRow,
    TallyRow,
    TaskRow,
)
from tests.bench.crowd import OVERLAP, PAIRS, RULES, Crowd, changes

CLOSED: Final = 3
"""Epochs that were closed and pay; the one after them runs."""
UNITS: Final = 1_000_003
"""What a wallet is paid in an epoch."""
_PREFERENCE: Final = {"prompt": 150, "chosen": 240, "rejected": 240}
"""Lengths of the texts in a line of what the trainer learns from."""


def crowd_of(place: Place, wallets: int, comparisons: int) -> Crowd:
    """Return who ranks in the running epoch, and how; a tenth of its tasks lacks a judgement or more."""
    spare = comparisons // PAIRS // OVERLAP // 10 + 1
    return Crowd(
        wallets, comparisons, CLOSED, place.start(CLOSED), place.seed(CLOSED), place.domain, spare
    )  # fmt: skip


def write_preferences(place: Place, comparisons: int) -> None:
    """Write what each closed epoch taught: a line per labelled pair, of which five wallets judge each."""
    line = {k: "x" * n for k, n in _PREFERENCE.items()} | {"confidence_ppm": 900_000, "judgements": 5}
    place.bundles.mkdir(parents=True, exist_ok=True)
    for epoch in range(CLOSED):
        text = json.dumps(line | {"epoch": epoch}).encode() + b"\n"
        place.preferences_path(epoch).write_bytes(text * (comparisons // 5))
        place.bundle_path(epoch).write_bytes(text * (comparisons // 5))


def fill(session: Session, place: Place, crowd: Crowd) -> None:
    """Write all of it, table after table; the caller commits."""
    found, board = crowd.work()
    wallets = sorted(a for a, _ in crowd.people)
    log = [(r, json.dumps(r.ranking.to_json())) for r in found.rankings]
    tasks = [
        (t, task.salt, task.prompt, json.dumps(task.responses), json.dumps(task.methods))
        for t, task in found.tasks.items()
    ]  # fmt: skip
    for epoch in range(CLOSED + 1):
        last = epoch == CLOSED
        earlier = place.start(CLOSED) - place.start(epoch)
        _put(session, EpochRow, [_epoch(place, epoch, found, earlier)])
        models = json.dumps(["policy-1", "policy-2"] * 2)
        _put(
            session,
            TaskRow,
            [
                (epoch, name, *content, models, "[]", "", salt, "[]", "", False, "[]")
                for name, salt, *content in tasks
            ],
        )
        _put(session, RankingRow, list(_rankings(epoch, log, earlier)))
        _put(session, SessionRow, list(_sessions(epoch, wallets)))
        _put(
            session,
            HandoutRow,
            [(epoch, h.number, h.wallet, h.task, h.at - earlier, h.after) for h in found.handouts],
        )
        if last:
            _put(session, TallyRow, list(_tallies(epoch, board, found.tasks)))
            _put(session, LeaseRow, list(_leases(epoch, found.handouts)))
        else:
            _closed(session, place, epoch, wallets)
            known = json.dumps([[0, 1, 1, 2_000_000, 1, 880_000]] * PAIRS)
            _put(session, LabelRow, [(epoch, name, known) for name in found.tasks])
    _put(session, StakeRow, list(_stakes(wallets, crowd.start)))


def _tallies(epoch: int, board: Board, tasks: Mapping[Hash32, Task]) -> Iterator[tuple[Any, ...]]:
    for name, tally in board.tallies.items():
        methods = f",{','.join(tasks[name].methods)},"
        yield epoch, name, methods, "", "", tally.taken, tally.done, tally.wanted, json.dumps(tally.votes)


def _leases(epoch: int, handouts: Iterable[HandoutEntry]) -> Iterator[tuple[Any, ...]]:
    """Yield what became of each hand-out: it was judged."""
    for h in handouts:
        yield epoch, h.wallet, h.task, h.number, h.at + RULES.lease_s, False, True, False


def _epoch(place: Place, epoch: int, found: Evidence, earlier: int) -> tuple[Any, ...]:
    lam, start = RULES.params, place.start(epoch)
    closed = None if epoch == CLOSED else start + 600
    price = str(lam.lambda0_num), str(lam.lambda0_den)
    return (
        epoch, seed_commitment(place.seed(epoch)), found.header.gold_root, RULES.hash(),
        json.dumps(RULES.to_json()), *price, start, start, None, closed,
        *((None, None) if closed is None else price), closed,
        len(found.handouts), found.rankings[-1].received_at - earlier, 0, 0,
        "[0, 0, 0, 0, 0]" if closed else None,
    )  # fmt: skip


def _rankings(
    epoch: int, log: Iterable[tuple[SignedRanking, str]], earlier: int
) -> Iterator[tuple[Any, ...]]:
    for found, message in log:
        said, name = found.ranking, text_hash(f"{epoch} {found.position}")
        yield (
            epoch, found.position, name, said.wallet, said.wallet, said.task, 0, message, found.signature, "",
            found.received_at - earlier, found.signature, None,
        )  # fmt: skip


def _sessions(epoch: int, wallets: Iterable[Address]) -> Iterator[tuple[Any, ...]]:
    # Of wallets that signed each ranking themselves: a session that stands in no bundle is not checked.
    for wallet in wallets:
        message = {"wallet": wallet, "key": wallet, "epoch": epoch, "maxJudgements": 99, "notAfter": 2**33}
        name = text_hash(f"{epoch} {wallet}")
        yield name, epoch, wallet[:-1] + "x", json.dumps(message), "0x" + "5" * 130, name[2:], None


def _closed(session: Session, place: Place, epoch: int, wallets: Sequence[Address]) -> None:
    """Write what came of an epoch: everybody scored and was paid."""
    # Spread like the scores of a crowd, ties among them.
    scores = {w: str(int(w[-7:], 16) ** 3 // 977 * 10**6) for w in wallets}
    ranked = sorted(wallets, key=lambda w: (-int(scores[w]), w))
    lines = {
        w: json.dumps({
            "kind": "wallet", "wallet": w, "stakeStart": str(10**21), "stakeEnd": str(10**23), "stake": str(10**20),
            "n": "3000000", "d": "6000000", "a": 900_000, "deltaG": "123456", "deltaV": "654321", "h": "77777",
            "w": str(int(w[-5:], 16) * 37), "comparisons": 132, "labelN": "3000000", "labelD": "6000000",
            "payG": "9000000", "payV": "12000000", "payHmax": "1000000", "score": scores[w],
        })
        for w in wallets
    }  # fmt: skip
    names = _names(ScoreRow)
    places = {w: n for n, w in enumerate(ranked, start=1)}
    rows = [{"epoch": epoch, "wallet": w, "line": lines[w], "place": places[w]} for w in wallets]
    insert_rows(session, ScoreRow, names, [tuple(row[n] for n in names) for row in rows])
    worth = [(w, epoch, 132, int(w[-6:], 16) * 10, int(w[-4:], 16) * 10_000) for w in wallets]
    _put(session, MeritRow, worth)
    total = UNITS * (epoch + 1)
    _put(session, PoolRow, [(epoch, 0, str(UNITS * len(wallets)), "0", "0")])
    _put(session, ShareRow, [(epoch, 0, w, str(UNITS)) for w in wallets])
    _put(session, LeafRow, [(epoch, w, str(total)) for w in wallets])
    _put(session, MatchRow, [(epoch, "policy-1", "policy-2", 400), (epoch, "policy-2", "policy-1", 600)])
    tree = SumTree.build([Leaf(w, Wei(total)) for w in wallets])
    closed, nothing = place.start(epoch + 1), text_hash("")
    session.add(
        EpochReport(
            epoch=epoch, root=tree.root_hash, sum=tree.sum, depth=tree.depth, data_hash=nothing, ledger_root=nothing,
            rules_hash=RULES.hash(), snapshot_block=1, snapshot_hash=nothing, bundle_path=str(place.bundle_path(epoch)),
            status="active", built_at=closed,
        )
    )  # fmt: skip
    # The chain said so, before the first block that is indexed here.
    session.add(
        ReportRow(
            block=0, log_index=epoch, timestamp=closed, tx=nothing, kind=Activated.__name__, epoch=epoch,
            root=tree.root_hash, sum=tree.sum,
        )
    )  # fmt: skip
    session.flush()


def _stakes(wallets: list[Address], start: int) -> Iterator[tuple[Any, ...]]:
    for place, change in enumerate(changes(wallets, start=start)):
        stake = str(change.staked_after)
        yield 0, place, change.timestamp, Staked.__name__, change.account, stake, stake, "0", None


def _names(table: type[SQLModel]) -> list[str]:
    return [c.name for c in SQLModel.metadata.tables[str(table.__tablename__)].columns]


def _put(session: Session, table: type[SQLModel], rows: list[tuple[Any, ...]]) -> None:
    insert_rows(session, table, _names(table), rows)
