"""An epoch's life in the database: opened with commitments, closed by the pure core, its bundle and scores kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from weakref import finalize

from sqlmodel import Session as Db

from chain import ledger as chain_ledger
from chain.assignment import epoch_seed, seed_commitment
from chain.bundle import ZERO_HASH, Evidence, Gold, Header, SignedRanking, SignedSession, read_evidence
from chain.committer import EpochRecord
from chain.contracts import call
from chain.deployment import Deployment
from chain.epoch import FAST, Closed, Facts, Standing, close, gold_root, preference_lines
from chain.errors import ChainError, VerifyError
from chain.events import topics
from chain.evidence import check_evidence
from chain.feedback import Task
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
from chain.stake import fold, stake_seconds
from chain.types import Address, BlockRef, Epoch, Hash32, Ratio, Wei
from chain.wallets import Remembered
from service.arena import Plan, gold_of, task_of
from service.database import alone
from service.errors import ConfigError, ConflictError, NotFoundError
from service.ledger import queries
from service.ledger.tables import (
    EpochRow,
    LeafRow,
    MatchRow,
    PoolRow,
    RankingRow,
    ScoreRow,
    SessionRow,
    ShareRow,
    TaskRow,
)

EPOCHS = "epochs"
"""Under this name one transaction at a time opens, closes or reopens an epoch: each follows from the one before."""


NOBODY = Address("0x" + 40 * "0")


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

    def preferences_path(self, epoch: int) -> Path:
        """Return where an epoch's labelled comparisons are kept: its part of a run's data file."""
        return self.bundles / f"epoch-{epoch}.preferences.jsonl"


def standing(db: Db, rules: Rules) -> Standing:
    """Return what the last closed epoch handed on, read from the tables."""
    last = queries.last_closed(db)
    runs = queries.run_records(r for r in queries.runs(db) if r.declared_in is not None)
    if last < 0:
        return Standing(lam=Ratio(rules.params.lambda0_num, rules.params.lambda0_den))
    report, row = chain_ledger.epoch_report(db, last), queries.epoch_row(db, last)
    if report is None or row is None:
        raise ConflictError(
            f"epoch {last} is closed but its report is missing; restore the database from a backup"
        )
    lines = {Address(s.wallet): s.line for s in queries.scores(db, last)}
    proven = {w: int(x["w"]) for w, x in lines.items()}
    stakes = {w: int(x["stake"]) for w, x in lines.items()}
    if row.next_num is None or row.next_den is None:
        # Closed before what follows was kept; then the epoch was scored by what it was opened with.
        lam = FAST.lambda_next(proven, stakes, Ratio(int(row.lambda_num), int(row.lambda_den)))
    else:
        lam = Ratio(int(row.next_num), int(row.next_den))
    return Standing(
        lam=lam,
        previous=Hash32(report.data_hash),
        states=queries.wallet_states(db),
        cumulative=queries.cumulative(db, last),
        carried=queries.carried(db, last),
        scores=queries.score_history(db, last),
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
    rows, golden = [], []
    for plan in plans:
        gold = gold_of(plan, seed) if plan.gold_ranks else None
        golden += [gold] if gold else []
        rows.append(
            TaskRow(
                epoch=epoch, task=plan.task.hash(), prompt=plan.task.prompt, responses=list(plan.task.responses),
                methods=list(plan.task.methods), origins=list(plan.origins), assignees=sorted(plan.assignees),
                gold_ranks=list(plan.gold_ranks), gold_salt=gold.salt if gold else "",
            )
        )  # fmt: skip
    row = EpochRow(
        epoch=epoch, seed_hash=seed_commitment(seed), gold_root=gold_root(golden), rules_hash=rules.hash(),
        rules=rules.to_json(), lambda_num=str(before.lam.num), lambda_den=str(before.lam.den), opened_at=now,
    )  # fmt: skip
    _check_distinct(rows)
    queries.add(db, row, *rows)
    return row


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


def _signed_session(row: SessionRow) -> SignedSession:
    return SignedSession(Session.parse(row.message), row.signature, row.block or 0)


def _signed_ranking(row: RankingRow) -> SignedRanking:
    return SignedRanking(
        Ranking.parse(row.message), row.signature, row.position, row.received_at, row.block or 0
    )


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
    undeclared = queries.runs(db, undeclared=True)
    runs = tuple(queries.run_records(r for r in undeclared if r.last < row.epoch).values())
    if abandoned:
        return Evidence(header, {}, {}, (), (), runs)
    tasks: dict[Hash32, Task] = {}
    gold: dict[Hash32, Gold] = {}
    for t in queries.tasks(db, row.epoch):
        name = Hash32(t.task)
        tasks[name] = task_of(t)
        if t.gold_ranks:
            gold[name] = Gold(name, tuple(t.gold_ranks), Hash32(t.gold_salt))
    rankings = tuple(_signed_ranking(r) for r in queries.rankings(db, row.epoch))
    ranked = {r.ranking.wallet for r in rankings}
    return Evidence(
        header, tasks, gold,
        sessions=tuple(_signed_session(s) for s in queries.sessions(db, row.epoch) if s.wallet in ranked),
        rankings=rankings,
        runs=runs,
    )  # fmt: skip


def facts(db: Db, rpc: Rpc, place: Place, epoch: int, snapshot: BlockRef) -> Facts:
    """Return stake and revenue at the snapshot, folded from indexed events and held against the vault's storage."""
    start, end = place.start(epoch), place.start(epoch + 1)
    changes = chain_ledger.stake_changes(db, snapshot.number)
    accounts, at_start = fold(changes, end), fold(changes, start)
    check_stake(rpc, place.deployment, accounts, snapshot, end)
    _check_funded(db, rpc, place, snapshot)
    funded: dict[int, Wei] = {}
    for event in chain_ledger.fundings(db, _last_before(db, place, epoch), snapshot.number):
        funded[event.run] = Wei(funded.get(event.run, 0) + event.amount)
    return Facts(
        stake_start={a: stake_seconds(s, start) for a, s in at_start.items()},
        stake_end={a: stake_seconds(s, end) for a, s in accounts.items()},
        funded=funded,
    )


def _last_before(db: Db, place: Place, epoch: int) -> int:
    """Return the last block that counts for the epochs before."""
    report = chain_ledger.epoch_report(db, epoch - 1) if epoch else None
    return report.snapshot_block if report else place.deployment.from_block - 1


def _check_agreed(db: Db, rpc: Rpc, place: Place, epoch: int, snapshot: BlockRef) -> None:
    """Raise unless as many nodes as wanted say the same of the epoch's blocks, each by itself."""
    if place.quorum > 1:
        contracts = [place.deployment.vault, place.deployment.distributor]
        first = _last_before(db, place, epoch) + 1
        agree(
            rpc, contracts, topics(), first, snapshot.number, snapshot, place.quorum, place.start(epoch + 1)
        )


def _check_funded(db: Db, rpc: Rpc, place: Place, snapshot: BlockRef) -> None:
    """Raise unless all indexed revenue is what the distributor itself says at the snapshot block."""
    said = int(call(rpc, place.deployment.revenue_distributor(), "funded", block=snapshot))
    known = sum(e.amount for e in chain_ledger.fundings(db, -1, snapshot.number))
    if said != known:
        raise ChainError(
            f"the distributor had {said} at block {snapshot.number}, the indexed events add up to {known}: "
            "the node drops logs; use another, and index again from an empty database"
        )


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Draft:
    """A closed epoch that is not yet written down."""

    epoch: int
    snapshot: BlockRef
    closed: Closed
    bundle: IO[bytes]
    """Its bytes, on disk beyond some megabytes; gone when this is."""
    rankings: int
    """Rankings in it, revisions included."""
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
    before = standing(db, Rules.from_json(row.rules))
    found = evidence(db, place, row, snapshot, before)
    digests = check_evidence(found, place.domain, Remembered(rpc))
    known = facts(db, rpc, place, epoch, snapshot)
    with ExitStack() as held:
        bundle = held.enter_context(spool())
        closed = close(found, known, before, FAST, digests, bundle.write)
        _check_readable(bundle, found.header.gold_root, epoch)
        item = Draft(
            epoch, snapshot, closed, bundle, len(found.rankings), Hash32(row.rules_hash), before.previous,
            row.abandoned_at is not None,
        )  # fmt: skip
        finalize(item, held.pop_all().close)
    return item


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
    if (root := gold_root(found.gold[t] for t in sorted(found.gold))) != committed:
        raise VerifyError(
            f"the gold of epoch {epoch} has root {root}, committed was {committed}: a row was changed"
        )


def _report(item: Draft, place: Place, now: int) -> EpochReport:
    """Return what is posted to the distributor, and where its bundle lies."""
    tree = item.closed.tree
    return EpochReport(
        epoch=item.epoch, root=tree.root_hash, sum=tree.sum, depth=tree.depth, data_hash=item.closed.data_hash,
        ledger_root=item.closed.ledger_root, rules_hash=item.rules_hash, snapshot_block=item.snapshot.number,
        snapshot_hash=item.snapshot.hash, bundle_path=str(place.bundle_path(item.epoch)), status="built", built_at=now,
    )  # fmt: skip


def write_bundle(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file, part by part, so that a crash leaves the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or a power cut takes the name back
    finally:
        os.close(folder)


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


def reopen(db: Db, place: Place, epoch: int) -> None:
    """Take back all that followed from closing `epoch` and the epochs after it; what was signed stays.

    ConflictError where an epoch after it was given its λ, and the chain does not know of that yet; ConfigError where
    the secret that one of them was opened with is gone, so that it could never be closed again.
    """
    alone(db.connection(), EPOCHS)
    for row in queries.epochs(db):
        if row.epoch > epoch and row.committed_at is None:
            raise ConflictError(
                f"epoch {row.epoch} was opened by what epoch {epoch} came to, and the chain has to hear of both first: "
                f"`haptic epoch commit --epoch {epoch}`, then `--epoch {row.epoch}`"
            )
        gone = row.seed_hash != seed_commitment(place.seed(row.epoch))
        if row.epoch >= epoch and row.abandoned_at is None and gone:
            raise ConfigError(
                f"epoch {row.epoch} was opened with another HAPTIC_SECRET: put that one back before it is reopened"
            )
    queries.forget_results(db, epoch)
    chain_ledger.forget_epoch_reports(db, epoch)


def check_abandoned(
    db: Db, place: Place, epoch: int, known: EpochRecord, now: int, *, lock: bool = False
) -> EpochRow:
    """Return the epoch if it can be given up; ConflictError where it is not over, not opened, or paid already."""
    row = queries.epoch_row(db, epoch, lock=lock)
    if row is None:
        raise NotFoundError(f"epoch {epoch} was not opened")
    if now < place.start(epoch + 1):
        raise ConflictError(
            f"epoch {epoch} lasts until {place.start(epoch + 1)}, now is {now}: its secret may still be found"
        )
    report = chain_ledger.epoch_report(db, epoch)
    if report is not None and report.status in {"posted", "active"}:
        raise ConflictError(f"the root of epoch {epoch} is {report.status}: the guardian's veto comes first")
    if not known.opened_at:
        raise ConflictError(
            f"epoch {epoch} is not open on the chain yet: `haptic epoch commit --epoch {epoch}` first"
        )
    return row


def abandon(db: Db, place: Place, epoch: int, known: EpochRecord, now: int) -> None:
    """Give up an ended epoch whose opening cannot be revealed, so that it closes without a ranking.

    `known` is what the chain knows of it. Raises as `check_abandoned` does.
    """
    alone(db.connection(), EPOCHS)
    row = check_abandoned(db, place, epoch, known, now, lock=True)
    # Epochs that were opened here and not on the chain: nobody was asked anything in them, and they are opened anew.
    queries.forget_uncommitted(db, epoch)
    queries.forget_results(db, epoch)
    chain_ledger.forget_epoch_reports(db, epoch)
    row.abandoned_at, row.committed_at, row.closed_at, row.anchored_at = now, known.opened_at, None, None


def _check_current(db: Db, item: Draft, row: EpochRow) -> None:
    """Raise a ConflictError where anything that a draft was made of has changed since."""
    last, report = queries.last_closed(db), chain_ledger.epoch_report(db, item.epoch - 1)
    previous = ZERO_HASH if report is None else report.data_hash
    came = 0 if item.abandoned else queries.judgement_count(db, item.epoch)
    if (last, previous, item.rankings) != (item.epoch - 1, item.previous, came) or item.abandoned != (
        row.abandoned_at is not None
    ):
        raise ConflictError(
            f"while epoch {item.epoch} was being closed, a ranking came in, or it or the epoch before was reopened or "
            "given up; it is closed again in a moment"
        )


def store(db: Db, place: Place, item: Draft, now: int) -> None:
    """Write a closed epoch: bundle file first, then all rows; the caller commits once."""
    alone(db.connection(), EPOCHS)
    row = queries.epoch_row(db, item.epoch, lock=True)
    if row is None or row.closed_at is not None:
        return
    _check_current(db, item, row)
    write_bundle(place.bundle_path(item.epoch), parts_of(item.bundle))
    known = {Hash32(t.task): task_of(t) for t in queries.tasks(db, item.epoch)}
    learned = preference_lines(known, item.closed.comparisons, item.closed.result, item.epoch)
    write_bundle(place.preferences_path(item.epoch), learned)
    row.closed_at = now
    row.next_num, row.next_den = str(item.closed.standing.lam.num), str(item.closed.standing.lam.den)
    lines = _wallet_lines(item.bundle)
    queries.add(db, *(ScoreRow(epoch=item.epoch, wallet=x["wallet"], line=x) for x in lines))
    for pool in item.closed.pools:
        queries.add(
            db,
            PoolRow(
                epoch=item.epoch, run=pool.run, funded=str(pool.funded),
                carried_in=str(pool.carried_in), carried_out=str(pool.carried_out),
            ),
            *(ShareRow(epoch=item.epoch, run=pool.run, wallet=w, amount=str(v)) for w, v in pool.shares.items()),
        )  # fmt: skip
    paid = {a for pool in item.closed.pools for a in pool.shares}
    totals = item.closed.standing.cumulative
    queries.add(db, *(LeafRow(epoch=item.epoch, account=a, cumulative=str(totals[a])) for a in sorted(paid)))
    queries.add(db, *_matches(db, item))
    for run in queries.runs(db, undeclared=True):
        if run.run in item.closed.standing.runs:
            run.declared_in = item.epoch
    chain_ledger.save_epoch_report(db, _report(item, place, now))
