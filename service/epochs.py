"""An epoch's life in the database: opened with commitments, and closed by the pure core on what was signed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
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
from chain.lines import raw_lines, read_lines
from chain.merkle import EMPTY_ROOT
from chain.messages import Domain, Ranking, Session
from chain.opening import Opening
from chain.quorum import agree
from chain.rpc import Rpc
from chain.rules import Rules
from chain.served import spool
from chain.types import NOBODY, ZERO_HASH, Address, BlockRef, Epoch, Hash32, Ratio
from chain.wallets import Remembered
from service.arena import Plan, gold_of, task_of
from service.database import alone
from service.errors import ConfigError, ConflictError
from service.handouts import handout_entry, skip_entry, tally_of
from service.ledger import queries, results, work
from service.ledger.tables import EpochRow, TaskRow
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
    # Before anything is named by a task's hash: by the salt in it, nobody can try who a task names, or whether anybody.
    listed = [replace(plan, task=plan.task.sealed(seed)) for plan in plans]
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
        origins=list(plan.origins), assignees=list(task.assignees), author=task.author, salt=task.salt,
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
