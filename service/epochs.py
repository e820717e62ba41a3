"""An epoch's life in the database: opened with commitments, closed by the pure core, its bundle and scores kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations, groupby
from pathlib import Path
from typing import IO
from weakref import finalize

from sqlmodel import Session as Db

from chain import ledger as chain_ledger
from chain.assignment import epoch_seed, seed_commitment
from chain.bundle import Evidence, Header, SignedRanking, SignedSession, read_evidence
from chain.collector import paused
from chain.contracts import call
from chain.deployment import Deployment
from chain.epoch import FAST, Closed, Facts, Standing, close, preference_lines
from chain.errors import ChainError, VerifyError
from chain.evidence import Wallets, check_evidence
from chain.feedback import Task
from chain.gold import Gold, gold_root
from chain.handout import check_staked
from chain.indexer import check_stake, snapshot_block
from chain.ledger import EpochReport
from chain.lines import Line, raw_lines, read_line, read_lines
from chain.merkle import EMPTY_ROOT
from chain.messages import Domain, Ranking, Session
from chain.opening import Opening
from chain.quorum import agree
from chain.rpc import Rpc
from chain.rules import Rules
from chain.served import parts_of, spool
from chain.types import NOBODY, ZERO_HASH, Address, BlockRef, Epoch, Hash32, Ratio
from chain.verdict import Known
from chain.wallets import Remembered
from service.arena import Plan, gold_of, task_of
from service.database import alone
from service.errors import ConfigError, ConflictError
from service.files import link, write_file
from service.handouts import handout_entry, skip_entry, tally_of
from service.ledger import queries, results, work
from service.ledger.tables import (
    EpochRow,
    LabelRow,
    LeafRow,
    MatchRow,
    MeritRow,
    PoolRow,
    ScoreRow,
    ShareRow,
    TaskRow,
)
from service.scores import StoredScores

EPOCHS = "epochs"
"""Under this name one transaction at a time opens, closes or reopens an epoch: each follows from the one before."""


@dataclass(frozen=True, slots=True)
class Place:
    """The deployment that epochs are counted on, and the secret that their seeds come from."""

    deployment: Deployment
    master: bytes = field(repr=False)
    bundles: Path
    """Folder of the published bundles."""
    quorum: int = 1
    """How many nodes must agree on an epoch's last block and logs before it is closed."""
    receipts: Address = NOBODY
    """Whose signature receipts have; nobody's where no epoch is closed."""

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of all signed messages."""
        return Domain(self.deployment.chain_id, self.deployment.vault)

    def epoch_at(self, timestamp: int) -> int:
        """Return the epoch of a block time; negative before genesis."""
        return (timestamp - self.deployment.genesis) // self.deployment.epoch_length

    def start(self, epoch: int) -> int:
        """Return the first second of an epoch, Unix."""
        return self.deployment.genesis + epoch * self.deployment.epoch_length

    def seed(self, epoch: int) -> bytes:
        """Return an epoch's secret seed, 32 bytes."""
        return epoch_seed(self.master, self.deployment.chain_id, self.deployment.distributor, Epoch(epoch))

    def bundle_path(self, epoch: int) -> Path:
        """Return where an epoch's bundle is kept."""
        return self.bundles / f"epoch-{epoch}.jsonl"

    def bundle_by_hash(self, data_hash: str) -> Path:
        """Return where a bundle is kept under its own name, also after its epoch was closed anew."""
        return self.bundles / "by-hash" / f"{data_hash}.jsonl"

    def preferences_path(self, epoch: int) -> Path:
        """Return where an epoch's labelled comparisons are kept: its part of a run's data file."""
        return self.bundles / f"epoch-{epoch}.preferences.jsonl"


def standing(db: Db, rules: Rules) -> Standing:
    """Return what the last closed epoch handed on, read from the tables."""
    last = queries.last_closed(db)
    runs = work.run_records(r for r in work.runs(db) if r.declared_in is not None)
    if last < 0:
        return Standing(lam=Ratio(rules.params.lambda0_num, rules.params.lambda0_den))
    report, row = chain_ledger.epoch_report(db, last), queries.epoch_row(db, last)
    if report is None or row is None:
        raise ConflictError(
            f"epoch {last} is closed but its report is missing; restore the database from a backup"
        )
    if row.next_num is None or row.next_den is None:
        # Closed before what follows was kept; then the epoch was scored by what it was opened with.
        lines = {Address(w): x for w, x in results.lines(db, last)}
        proven, stakes = ({w: int(x[name]) for w, x in lines.items()} for name in ("w", "stake"))
        lam = FAST.lambda_next(proven, stakes, Ratio(int(row.lambda_num), int(row.lambda_den)))
    else:
        lam = Ratio(int(row.next_num), int(row.next_den))
    return Standing(
        lam=lam,
        previous=Hash32(report.data_hash),
        states=results.wallet_states(db),
        cumulative=results.cumulative(db, last),
        carried=results.carried(db, last),
        scores=tuple(StoredScores(db, e) for e in range(last + 1)),
        runs=runs,
    )


def open_epoch(db: Db, place: Place, epoch: int, plans: Iterable[Plan], rules: Rules, now: int) -> EpochRow:
    """Open an epoch with its tasks, committing to seed, gold, rules and lambda before anybody sees one."""
    alone(db.connection(), EPOCHS)
    if queries.epoch_row(db, epoch) is not None:
        raise ConflictError(f"epoch {epoch} was opened already; its tasks stay as they are")
    if (last := queries.last_closed(db)) != epoch - 1:
        raise ConflictError(
            f"epoch {epoch} opens after epoch {epoch - 1} is closed; the last closed one is {last}"
        )
    seed = place.seed(epoch)
    before = standing(db, rules)
    listed = list(plans)
    golden = {plan.task.hash(): gold_of(plan, seed) for plan in listed if plan.gold_ranks}
    rows = [_task_row(epoch, plan, golden.get(plan.task.hash())) for plan in listed]
    root = gold_root((Hash32(r.task) for r in rows), golden, seed)
    row = EpochRow(
        epoch=epoch, seed_hash=seed_commitment(seed), gold_root=root, rules_hash=rules.hash(),
        rules=rules.to_json(), lambda_num=str(before.lam.num), lambda_den=str(before.lam.den), opened_at=now,
        redacted=sum(len(plan.redacted) for plan in listed),
    )  # fmt: skip
    _check_distinct(rows)
    queries.add(db, row, *rows, *(tally_of(epoch, plan.task, rules) for plan in listed))
    return row


def _task_row(epoch: int, plan: Plan, gold: Gold | None) -> TaskRow:
    task = plan.task
    return TaskRow(
        epoch=epoch, task=task.hash(), prompt=task.prompt, responses=list(task.responses), methods=list(task.methods),
        origins=list(plan.origins), assignees=list(task.assignees), author=task.author,
        gold_ranks=list(plan.gold_ranks), gold_salt=gold.salt if gold else "",
        redacted=[r.note() for r in plan.redacted],
    )  # fmt: skip


def opening(row: EpochRow) -> Opening:
    """Return what an epoch was opened with, as the chain's ledger is told."""
    lam = Ratio(int(row.lambda_num), int(row.lambda_den))
    return Opening(Hash32(row.seed_hash), Hash32(row.gold_root), Hash32(row.rules_hash), lam)


def _check_distinct(rows: Iterable[TaskRow]) -> None:
    """Refuse two tasks that compare the same responses to the same prompt: a pair counts once."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for row in rows:
        key = (row.prompt, tuple(row.responses))
        if key in seen:
            raise ConflictError(f"two tasks show the same responses to {row.prompt[:60]!r}; make it one")
        seen.add(key)


def evidence(db: Db, place: Place, row: EpochRow, snapshot: BlockRef, before: Standing) -> Evidence:
    """Return everything that was signed or committed to in an epoch, from the tables; of an abandoned one nothing."""
    d, abandoned = place.deployment, row.abandoned_at is not None
    header = Header(
        epoch=Epoch(row.epoch), chain_id=d.chain_id, vault=d.vault, distributor=d.distributor, genesis=d.genesis,
        length=d.epoch_length, snapshot_block=snapshot.number, snapshot_hash=snapshot.hash,
        seed=ZERO_HASH if abandoned else Hash32("0x" + place.seed(row.epoch).hex()),
        gold_root=EMPTY_ROOT if abandoned else Hash32(row.gold_root),
        # What was committed to is another where the epoch before was corrected meanwhile: it is held to the correction.
        lam=before.lam,
        rules=Rules.from_json(row.rules), previous=before.previous, receipt_signer=place.receipts,
    )  # fmt: skip
    undeclared = work.runs(db, undeclared=True)
    runs = tuple(work.run_records(r for r in undeclared if r.last < row.epoch).values())
    if abandoned:
        return Evidence(header, {}, {}, (), (), runs)
    tasks: dict[Hash32, Task] = {}
    gold: dict[Hash32, Gold] = {}
    for t in queries.tasks(db, row.epoch):
        name = Hash32(t.task)
        tasks[name] = task_of(t)
        if t.gold_ranks:
            gold[name] = Gold(name, tuple(t.gold_ranks), Hash32(t.gold_salt))
    rankings = tuple(
        SignedRanking(Ranking.parse(r.message), r.signature, r.position, r.received_at, r.block or 0)
        for r in queries.rankings(db, row.epoch)
    )
    ranked = {r.ranking.wallet for r in rankings}
    return Evidence(
        header, tasks, gold,
        sessions=tuple(
            SignedSession(Session.parse(message), signature, block or 0)
            for wallet, message, signature, block in queries.signed_sessions(db, row.epoch) if wallet in ranked
        ),
        rankings=rankings,
        runs=runs,
        handouts=tuple(map(handout_entry, queries.handouts(db, row.epoch))),
        skips=tuple(map(skip_entry, queries.skips(db, row.epoch))),
    )  # fmt: skip


def facts(db: Db, rpc: Rpc, place: Place, epoch: int, snapshot: BlockRef) -> Facts:
    """Return stake and revenue at the snapshot, folded from indexed events and held against the vault's storage."""
    start, end = place.start(epoch), place.start(epoch + 1)
    changes = chain_ledger.stake_changes(db, snapshot.number)
    income = chain_ledger.fundings(db, _last_before(db, place, epoch), snapshot.number)
    found, accounts = Facts.of(changes, income, start, end)
    check_stake(rpc, place.deployment, accounts, snapshot, end)
    _check_funded(db, rpc, place, snapshot)
    return found


def _last_before(db: Db, place: Place, epoch: int) -> int:
    """Return the last block that counts for the epochs before."""
    report = chain_ledger.epoch_report(db, epoch - 1) if epoch else None
    return report.snapshot_block if report else place.deployment.from_block - 1


def _check_agreed(db: Db, rpc: Rpc, place: Place, epoch: int, snapshot: BlockRef) -> None:
    """Raise unless as many nodes as wanted say of the epoch's blocks what is stored, each by itself.

    Of a payment the chain itself keeps the amount alone: which run it names rests on this, and where one node is enough,
    on that node.
    """
    if place.quorum > 1:
        first = _last_before(db, place, epoch) + 1
        agree(rpc, db, place.deployment, first, snapshot, place.quorum, place.start(epoch + 1))


def _check_funded(db: Db, rpc: Rpc, place: Place, snapshot: BlockRef) -> None:
    """Raise unless all indexed revenue is what the distributor itself says at the snapshot block."""
    said = int(call(rpc, place.deployment.revenue_distributor(), "funded", block=snapshot))
    known = sum(e.amount for e in chain_ledger.fundings(db, -1, snapshot.number))
    if said != known:
        raise ChainError(
            f"the distributor had {said} at block {snapshot.number}, the indexed events add up to {known}: "
            "the node drops logs; use another, and read all again: `haptic index --anew`"
        )


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Draft:
    """A closed epoch that is not yet written down."""

    epoch: int
    snapshot: BlockRef
    closed: Closed
    bundle: IO[bytes]
    """Its bytes, on disk beyond some megabytes; gone when this is."""
    learned: IO[bytes]
    """Its labelled comparisons, in the same way."""
    rankings: int
    """Rankings in it, revisions included."""
    entries: int
    """Hand-outs and skips in it."""
    rules_hash: Hash32
    previous: Hash32
    """dataHash of the epoch before, as it was then."""
    abandoned: bool


def draft(db: Db, rpc: Rpc, place: Place, epoch: int) -> Draft | None:
    """Return the close of an epoch without writing anything; None while its snapshot block is not finalized.

    ConflictError when it is closed already: what it was closed on stands no more where it stood.
    """
    row = queries.epoch_row(db, epoch)
    check_secret(db, place)
    if row is not None and row.closed_at is not None:
        raise ConflictError(f"epoch {epoch} is closed already; see /v1/epochs/{epoch}")
    if row is not None and (last := queries.last_closed(db)) != epoch - 1:
        raise ConflictError(f"epoch {epoch} is closed after epoch {epoch - 1}; the last closed one is {last}")
    snapshot = snapshot_block(rpc, place.start(epoch + 1))
    indexed = chain_ledger.checkpoint(db)
    if row is None or snapshot is None or indexed is None or indexed.number < snapshot.number:
        return None
    _check_agreed(db, rpc, place, epoch, snapshot)
    return close_on(db, place, row, snapshot, facts(db, rpc, place, epoch, snapshot), Remembered(rpc))


@paused()
def close_on(
    db: Db, place: Place, row: EpochRow, snapshot: BlockRef, known: Facts, wallets: Wallets | None = None
) -> Draft:
    """Return the close of an epoch on what the chain says of it; `wallets` tells what contract wallets accept."""
    before = standing(db, Rules.from_json(row.rules))
    with ExitStack() as held:
        bundle, learned = held.enter_context(spool()), held.enter_context(spool())
        # What people signed is large, and gone from memory before it is read again as a stranger will.
        closed, gold, rankings, entries = _close(
            db, place, row, snapshot, known, before, bundle, learned, wallets
        )
        _check_readable(bundle, gold, row.epoch)
        item = Draft(
            row.epoch, snapshot, closed, bundle, learned, rankings, entries, Hash32(row.rules_hash), before.previous,
            row.abandoned_at is not None,
        )  # fmt: skip
        finalize(item, held.pop_all().close)
    return item


def _close(
    db: Db, place: Place, row: EpochRow, snapshot: BlockRef, known: Facts, before: Standing,
    bundle: IO[bytes], learned: IO[bytes], wallets: Wallets | None,
) -> tuple[Closed, Hash32, int, int]:  # fmt: skip
    """Write both files; return the closed epoch, the root of its gold, how many rankings, and hand-outs and skips."""
    found = evidence(db, place, row, snapshot, before)
    digests = check_evidence(found, place.domain, wallets)
    least = found.header.rules.stake_least
    # Read once more, so that they are not in memory while all that was signed is.
    check_staked(found.handouts, chain_ledger.stake_changes(db, snapshot.number), least)
    closed = close(found, known, before, FAST, digests, bundle.write)
    # One by one: `writelines` would hold all of them before the first is on disk.
    for line in preference_lines(found.tasks, closed.comparisons, closed.result, row.epoch):
        learned.write(line)
    return closed, found.header.gold_root, len(found.rankings), len(found.handouts) + len(found.skips)


def check_secret(db: Db, place: Place) -> None:
    """Raise a ConfigError where an epoch that is not closed was opened with another secret than there is now."""
    for row in queries.epochs(db):
        if (
            row.closed_at is None
            and row.abandoned_at is None
            and row.seed_hash != seed_commitment(place.seed(row.epoch))
        ):
            raise ConfigError(
                f"HAPTIC_SECRET is not the one that epoch {row.epoch} was opened with: put that one back; only if it is "
                f"lost for good, give the epoch up when it has ended: `haptic epoch abandon --epoch {row.epoch}`"
            )


def _check_readable(bundle: IO[bytes], committed: Hash32, epoch: int) -> None:
    """Read a bundle as a stranger will, so that nothing is posted that nobody can verify."""
    found = read_evidence(read_lines(raw_lines(bundle)))
    if (root := gold_root(found.tasks, found.gold, bytes.fromhex(found.header.seed[2:]))) != committed:
        raise VerifyError(
            f"tasks and gold of epoch {epoch} have root {root}, committed was {committed}: a row was changed"
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
    """Return how often one model's answer was labelled better than another's."""
    origin = {
        (t.task, h): model
        for t in queries.tasks(db, item.epoch)
        for h, model in zip(task_of(t).hashes, t.origins, strict=True)
    }
    counts: dict[tuple[str, str], int] = {}
    for key, known in zip(item.closed.comparisons.keys, item.closed.result.pairs, strict=True):
        a, b = origin[key.task, key.a], origin[key.task, key.b]
        if known.label and a != b:
            pair = (a, b) if known.label > 0 else (b, a)
            counts[pair] = counts.get(pair, 0) + 1
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
