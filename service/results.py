"""A closed epoch written down: its files, what each wallet came to and was allotted, and the report that is posted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, groupby, permutations
from pathlib import Path
from typing import IO

from sqlmodel import Session as Db

from chain import ledger as chain_ledger
from chain.ledger import EpochReport
from chain.lines import Line, raw_lines, read_line
from chain.served import parts_of
from chain.types import ZERO_HASH, Hash32
from chain.verdict import Known
from service import promotion
from service.arena import task_of
from service.database import alone
from service.epochs import EPOCHS, Draft, Place
from service.errors import ConflictError
from service.files import link, write_file
from service.ledger import queries, work
from service.ledger.tables import (
    EpochRow,
    LabelRow,
    LeafRow,
    MatchRow,
    MeritRow,
    PoolRow,
    ScoreRow,
    ShareRow,
)


def _report(item: Draft, place: Place, now: int) -> EpochReport:
    """Return what is posted to the distributor, and where its bundle lies."""
    tree = item.closed.tree
    return EpochReport(
        epoch=item.epoch, root=tree.root_hash, sum=tree.sum, depth=tree.depth, data_hash=item.closed.data_hash,
        ledger_root=item.closed.ledger_root, rules_hash=item.rules_hash, snapshot_block=item.snapshot.number,
        snapshot_hash=item.snapshot.hash, bundle_path=str(place.bundle_path(item.epoch)), status="built", built_at=now,
    )  # fmt: skip


def _wallet_lines(bundle: IO[bytes]) -> Iterator[Line]:
    """Yield the lines of a bundle that say what became of a wallet."""
    for number, raw in enumerate(raw_lines(bundle), start=1):
        if b'"kind":"wallet"' in raw:  # a quotation mark inside a text is written with a backslash before it
            yield read_line(number, raw)


def _matches(db: Db, item: Draft) -> list[MatchRow]:
    """Return in how many tasks one model's answers came out ahead of another's: 0 where people only found ties."""
    ranked = set() if item.abandoned else queries.ranked_tasks(db, item.epoch)
    origin: dict[tuple[str, str], str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for t in queries.tasks(db, item.epoch):
        origin.update(((t.task, h), model) for h, model in zip(task_of(t).hashes, t.origins, strict=True))
        if t.task in ranked:
            counts.update(dict.fromkeys(permutations(set(t.origins), 2), 0))
    labelled = zip(item.closed.comparisons.keys, item.closed.result.pairs, strict=True)
    for task, group in groupby(labelled, key=lambda line: line[0].task):
        counts.update(promotion.ahead((origin[task, k.a], origin[task, k.b], r.label) for k, r in group))
    return [MatchRow(epoch=item.epoch, winner=w, loser=x, count=n) for (w, x), n in counts.items()]


def _labels(db: Db, item: Draft) -> Iterator[tuple[Hash32, list[Known | None]]]:
    """Yield what came out of each task that anybody ordered: an entry per pair of its responses."""
    hashes = {t.task: task_of(t).hashes for t in queries.tasks(db, item.epoch)}
    found = item.closed.comparisons
    lines = zip(found.keys, found.pairs, item.closed.result.pairs, strict=True)
    for task, group in groupby(lines, key=lambda line: line[0].task):
        known = {
            (key.a, key.b): Known(p.gold, p.bucket, p.longer, r.log_odds, r.label, r.confidence)
            for key, p, r in group
        }
        yield task, [known.get(pair) for pair in combinations(hashes[task], 2)]


def _check_current(db: Db, item: Draft, row: EpochRow) -> None:
    """Raise a ConflictError where anything that a draft was made of has changed since."""
    last, report = queries.last_closed(db), chain_ledger.epoch_report(db, item.epoch - 1)
    previous = ZERO_HASH if report is None else report.data_hash
    came = (0, 0) if item.abandoned else (queries.judgement_count(db, item.epoch), row.entries)
    found = (last, previous, item.rankings, item.entries, item.abandoned)
    expected = (item.epoch - 1, item.previous, *came, row.abandoned_at is not None)
    if found != expected:
        raise ConflictError(
            f"while epoch {item.epoch} was being closed, a ranking came in, a task was handed out, or it or the epoch "
            "before was reopened or given up; it is closed again in a moment"
        )


def _files(place: Place, item: Draft) -> list[tuple[Path, Path, IO[bytes]]]:
    """Return an epoch's files: the name by its number, the one by its hash, and what is in it."""
    kept = place.bundle_by_hash(item.closed.data_hash)
    return [
        (place.bundle_path(item.epoch), kept, item.bundle),
        (place.preferences_path(item.epoch), kept.with_suffix(".preferences.jsonl"), item.learned),
    ]


def write_files(place: Place, item: Draft) -> None:
    """Write the files of a closed epoch under names that are only theirs, unless they are there."""
    for _, kept, file in _files(place, item):
        if not kept.exists():
            write_file(kept, parts_of(file))


def store(db: Db, place: Place, item: Draft, now: int) -> None:
    """Write a closed epoch: its files first, then all rows; the caller commits once.

    The files may be there already (`write_files`), so that nobody waits for the disk while all is locked.
    """
    alone(db.connection(), EPOCHS)
    row = queries.epoch_row(db, item.epoch, lock=True)
    if row is None or row.closed_at is not None:
        return
    _check_current(db, item, row)
    write_files(place, item)
    for path, kept, _ in _files(place, item):
        link(kept, path)
    queries.retire_gold(db, item.epoch, item.closed.retired)
    row.closed_at, row.retired = now, len(item.closed.retired)
    row.style_bias = list(item.closed.result.style_bias)
    row.next_num, row.next_den = str(item.closed.standing.lam.num), str(item.closed.standing.lam.den)
    _store_results(db, item)
    queries.add(db, *_matches(db, item))
    for run in work.runs(db, undeclared=True):
        if run.run in item.closed.standing.runs:
            run.declared_in = item.epoch
    chain_ledger.save_epoch_report(db, _report(item, place, now))


def _store_results(db: Db, item: Draft) -> None:
    """Write what each wallet came to and what it was allotted; there may be a million."""
    scores, epoch, totals = item.closed.scores, item.epoch, item.closed.standing.cumulative
    best = sorted(scores, key=lambda w: (-scores[w], w))
    places = {wallet: place for place, wallet in enumerate(best, start=1)}
    lines = ((x["wallet"], x) for x in _wallet_lines(item.bundle))
    scored = ((epoch, wallet, json.dumps(line), places[wallet]) for wallet, line in lines)
    queries.add_many(db, ScoreRow, ("epoch", "wallet", "line", "place"), scored)
    results = zip(item.closed.comparisons.wallets, item.closed.result.wallets, strict=True)
    worth = ((wallet, epoch, r.comparisons, r.delta_g, r.delta_v) for wallet, r in results)
    queries.add_many(db, MeritRow, ("wallet", "epoch", "comparisons", "delta_g", "delta_v"), worth)
    labels = ((epoch, task, json.dumps(pairs)) for task, pairs in _labels(db, item))
    queries.add_many(db, LabelRow, ("epoch", "task", "pairs"), labels)
    for pool in item.closed.pools:
        carried = {"carried_in": str(pool.carried_in), "carried_out": str(pool.carried_out)}
        queries.add(db, PoolRow(epoch=epoch, run=pool.run, funded=str(pool.funded), **carried))
        shares = ((epoch, str(pool.run), wallet, str(amount)) for wallet, amount in pool.shares.items())
        queries.add_many(db, ShareRow, ("epoch", "run", "wallet", "amount"), shares)
    paid = sorted({a for pool in item.closed.pools for a in pool.shares})
    leaves = ((epoch, account, str(totals[account])) for account in paid)
    queries.add_many(db, LeafRow, ("epoch", "account", "cumulative"), leaves)
