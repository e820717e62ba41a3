"""Takes signed rankings in: every check first, then one append to the log and a signed receipt for each.

Many come in one transaction (`service.intake`): what they are all held against is read at once, and a ranking sees
those before it in the batch as if they had been committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from coincurve import PrivateKey
from eth_account.signers.local import LocalAccount
from sqlmodel import Session as Db

from chain.assignment import display_order, method_of
from chain.canonical import text_hash
from chain.errors import HapticError
from chain.evidence import CLOCK_SKEW_S, check_signer
from chain.feedback import Task, check_ranking
from chain.messages import Domain, Ranking, Receipt, Session, recover, sign_with
from chain.types import Address, Epoch, Hash32
from service.errors import ConflictError, ExpiredError, NotFoundError, RejectedError, ServiceError
from service.ledger import intake as rows
from service.ledger import queries
from service.ledger.intake import Lease, NewRanking

MAX_COMMENT = 4000
MAX_REVISIONS = 20
"""Most revisions of one ranking: all of them are published."""
NO_COMMENT = text_hash("")
"""commentHash of a ranking without a comment: keccak256 of no bytes."""


@dataclass(frozen=True)
class Desk:
    """What taking in a ranking needs beside the database."""

    domain: Domain
    receipts: LocalAccount
    """Key that signs receipts."""

    @cached_property
    def key(self) -> PrivateKey:
        """The receipts' key as libsecp256k1 takes it; made once."""
        return PrivateKey(bytes(self.receipts.key))

    @cached_property
    def signer(self) -> Address:
        """The address of the receipts' key."""
        return Address(self.receipts.address.lower())

    @property
    def shown_signer(self) -> str:
        """The same in EIP-55."""
        return str(self.receipts.address)


@dataclass(frozen=True, slots=True)
class Sent:
    """A ranking as it came in, and who signed it."""

    ranking: Ranking
    signature: str
    comment: str
    digest: Hash32
    signer: Address

    @classmethod
    def of(cls, ranking: Ranking, signature: str, comment: str, domain: Domain) -> Sent:
        """Return what came in after every check that needs nothing but itself."""
        if "\0" in comment:
            raise RejectedError(
                "the comment holds a NUL character, which no text column of PostgreSQL can hold"
            )
        if len(comment) > MAX_COMMENT or text_hash(comment) != ranking.comment_hash:
            raise RejectedError(
                f"commentHash is not the hash of the comment (at most {MAX_COMMENT} characters)"
            )
        digest = ranking.digest(domain)
        try:
            return cls(ranking, signature, comment, digest, recover(digest, signature))
        except HapticError as error:
            raise RejectedError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted ranking: where it stands, and the service's signature that it does."""

    receipt: Receipt
    signature: str
    signer: Address
    replayed: bool
    """The very same ranking was there already; this is its first receipt again."""


@dataclass(slots=True)
class Running:
    """What does not change, or only grows, while an epoch runs; kept from batch to batch."""

    epoch: int
    seed: bytes = field(repr=False)
    methods: tuple[str, ...] = ()
    tasks: dict[Hash32, Task] = field(default_factory=dict)
    sessions: dict[Address, list[Session]] = field(default_factory=dict)
    position: int = 0
    """Rankings that `signed` counts: all before this position."""
    signed: Counter[tuple[Address, Address]] = field(default_factory=Counter)
    """How many rankings, revisions included, each key signed in each wallet's name."""

    def advance(self, sent: Sequence[Sent], found: Sequence[Accepted | ServiceError]) -> None:
        """Count what was committed."""
        for item, result in zip(sent, found, strict=True):
            if isinstance(result, Accepted) and not result.replayed:
                self.signed[item.ranking.wallet, item.signer] += 1
                self.position = result.receipt.position + 1


class _Batch:
    """Rankings of one epoch on their way into its log, and all that they are held against."""

    def __init__(self, db: Db, desk: Desk, running: Running, sent: Sequence[Sent], now: int) -> None:
        self._db, self._desk, self._running, self._now = db, desk, running, now
        self.new: list[NewRanking] = []
        self.done: list[Lease] = []
        self.signed: Counter[tuple[Address, Address]] = Counter()
        self._fresh: set[Address] = set()
        self._follow_log()
        self._load_tasks({s.ranking.task for s in sent})
        self._load_sessions({s.ranking.wallet for s in sent if s.signer != s.ranking.wallet})
        held = {(s.ranking.wallet, s.ranking.task) for s in sent}
        self._leases: Mapping[tuple[str, str], Lease] = rows.leases(db, running.epoch, held)
        self._last: dict[tuple[str, str], int] = rows.revisions(db, running.epoch, held)

    def _follow_log(self) -> None:
        """Count what other replicas took in meanwhile."""
        running, end = self._running, queries.next_position(self._db, self._running.epoch)
        if end != running.position:
            running.signed.update(rows.signed_since(self._db, running.epoch, running.position))
            running.position = end
        self._position = end

    def _load_tasks(self, names: Iterable[Hash32]) -> None:
        missing = [n for n in names if n not in self._running.tasks]
        if missing:
            self._running.tasks |= rows.tasks(self._db, self._running.epoch, missing)

    def _load_sessions(self, wallets: Iterable[Address], *, fresh: bool = False) -> None:
        missing = [w for w in wallets if fresh or w not in self._running.sessions]
        if missing:
            self._fresh.update(missing)
            found = rows.sessions(self._db, self._running.epoch, missing)
            self._running.sessions |= {w: found.get(w, []) for w in missing}

    def take(self, sent: Sent) -> Accepted:
        """Append a ranking to the batch and return its receipt, or raise a ServiceError and add nothing."""
        ranking, running = sent.ranking, self._running
        known = self._last.get((ranking.wallet, ranking.task), -1)
        if ranking.revision <= known and (found := self._replayed(sent)):
            return found
        if ranking.signed_at > self._now + CLOCK_SKEW_S:
            raise RejectedError(
                f"signedAt {ranking.signed_at} is in the future; the chain's clock says {self._now}"
            )
        lease = self._check_task(ranking)
        if sent.signer != ranking.wallet:
            self._check_key(sent)
        _check_revision(ranking, known)
        receipt = Receipt(sent.digest, Epoch(running.epoch), self._position, self._now)
        signature = sign_with(receipt, self._desk.domain, self._desk.key)
        self.new.append(NewRanking(receipt, sent.signer, ranking, sent.signature, sent.comment, signature))
        self._position += 1
        self._last[ranking.wallet, ranking.task] = ranking.revision
        self.signed[ranking.wallet, sent.signer] += 1
        if not lease.done:
            lease.done = True
            self.done.append(lease)
        return Accepted(receipt, signature, self._desk.signer, replayed=False)

    def _replayed(self, sent: Sent) -> Accepted | None:
        """Return the first receipt of a ranking that is there already, if it is the very same."""
        for item in self.new:
            if item.receipt.digest_of == sent.digest and item.signature == sent.signature:
                return Accepted(item.receipt, item.proof, self._desk.signer, replayed=True)
        row = queries.ranking_by_digest(self._db, self._running.epoch, sent.digest)
        if row is None or row.signature != sent.signature:
            return None
        receipt = Receipt(Hash32(row.digest), Epoch(row.epoch), row.position, row.received_at)
        return Accepted(receipt, row.receipt, self._desk.signer, replayed=True)

    def _check_task(self, ranking: Ranking) -> Lease:
        """Return the wallet's lease; refuse a ranking unless this wallet holds its task and ranked what it was shown."""
        running = self._running
        task = running.tasks.get(ranking.task)
        if task is None:
            raise NotFoundError(
                f"task {ranking.task} is not a task of epoch {ranking.epoch}; ask for one at /v1/tasks/next"
            )
        lease = self._leases.get((ranking.wallet, ranking.task))
        if lease is None:
            raise RejectedError(
                f"task {ranking.task} was not handed to {ranking.wallet}; ask for one at /v1/tasks/next"
            )
        if not lease.done and lease.expires_at <= self._now:
            raise ExpiredError(
                f"the task was yours until {lease.expires_at}, now is {self._now}; ask for another"
            )
        shown = display_order(running.seed, ranking.wallet, ranking.task, task.hashes)
        try:
            check_ranking(ranking, method_of(running.seed, ranking.wallet, running.methods), shown)
        except HapticError as error:
            raise RejectedError(str(error)) from error
        return lease

    def _check_key(self, sent: Sent) -> None:
        """Refuse a session key that is unknown, whose time is over by the chain's clock, or that signed all it may.

        A refusal is made by what the database says now: a session may have been signed in elsewhere since.
        """
        wallet = sent.ranking.wallet
        try:
            self._check_session(sent)
        except ServiceError:
            if wallet in self._fresh:
                raise
            self._load_sessions([wallet], fresh=True)
            self._check_session(sent)

    def _check_session(self, sent: Sent) -> None:
        ranking, key = sent.ranking, sent.signer
        known = self._running.sessions[ranking.wallet]
        granted = [s for s in known if s.key == key]
        if not granted or ranking.signed_at > max(s.not_after for s in granted):
            try:
                check_signer(ranking, sent.signature, self._desk.domain, known)
            except HapticError as error:
                raise RejectedError(str(error)) from error
        if (end := max(s.not_after for s in granted)) <= self._now:
            raise ExpiredError(f"session key {key} ended at {end}, now is {self._now}; sign a new session")
        limit = max(s.max_judgements for s in granted)
        if self._running.signed[ranking.wallet, key] + self.signed[ranking.wallet, key] >= limit:
            raise RejectedError(f"session key {key} may sign {limit} judgements and has; sign a new session")

    def write(self) -> None:
        """Store what was accepted; the transaction is the caller's."""
        rows.append(self._db, self.new)
        rows.finish(self._db, self.done)


def _check_revision(ranking: Ranking, known: int) -> None:
    """Revisions of one task count 0, 1, 2 …, each once."""
    expected = known + 1
    if ranking.revision < expected:
        raise ConflictError(
            f"revision {ranking.revision} of this ranking is already recorded; to change it send revision {expected}"
        )
    if ranking.revision >= MAX_REVISIONS:
        raise RejectedError(f"a ranking can be revised {MAX_REVISIONS - 1} times, and this one was")
    if ranking.revision > expected:
        raise RejectedError(f"revision {ranking.revision} skips one; the next is {expected}")


def accept_all(
    db: Db, desk: Desk, running: Running, sent: Sequence[Sent], now: int
) -> list[Accepted | ServiceError]:
    """Append rankings of one epoch to its log, in this order; return what became of each. The caller commits.

    What a ServiceError is returned for has added nothing. Sending the very same signed ranking again returns its first
    receipt. `now` is block time. After the commit, and only then, `running.advance` is told what was returned.
    """
    epoch = queries.epoch_row(db, running.epoch, lock=True)
    if epoch is None or epoch.closed_at is not None:
        return [ConflictError(f"epoch {running.epoch} is not open") for _ in sent]
    running.methods = running.methods or tuple(epoch.rules["methods"])
    # The clock may be half a second behind the block that opened the epoch.
    batch = _Batch(db, desk, running, sent, max(now, epoch.committed_at or 0))
    found: list[Accepted | ServiceError] = []
    for item in sent:
        try:
            found.append(batch.take(item))
        except ServiceError as error:
            found.append(error)
    batch.write()
    return found


def accept(
    db: Db, desk: Desk, seed: bytes, ranking: Ranking, signature: str, comment: str, now: int
) -> Accepted:
    """Append one ranking to its epoch's log and return its receipt; raises a ServiceError and adds nothing otherwise."""
    running = Running(ranking.epoch, seed)
    found = accept_all(db, desk, running, [Sent.of(ranking, signature, comment, desk.domain)], now)[0]
    if isinstance(found, ServiceError):
        raise found
    return found
