"""Takes signed rankings in: every check first, then one append to the log and a signed receipt for each.

Many come in one transaction (`service.intake`): what they are all held against is read at once, and a ranking sees
those before it in the batch as if they had been committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from coincurve import PrivateKey
from eth_account.signers.local import LocalAccount
from sqlmodel import Session as Db

from chain import ledger as chain_ledger
from chain.assignment import display_order, method_of
from chain.canonical import text_hash
from chain.errors import HapticError, SignatureError, UnprovenError
from chain.evidence import CLOCK_SKEW_S, check_signer, recovered
from chain.feedback import Task, check_ranking
from chain.messages import Domain, Ranking, Receipt, Session, sign_with
from chain.rules import Rules
from chain.types import Address, Epoch, Hash32, Wei
from service import handouts
from service.errors import ConflictError, ExpiredError, NotFoundError, RejectedError, ServiceError
from service.ledger import intake as rows
from service.ledger import queries
from service.ledger.intake import Lease, NewRanking

MAX_COMMENT = 4000
MAX_REVISIONS = 20
"""Most revisions of one ranking: all of them are published."""


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
    signer: Address | None
    """Of the key that signed; None where the signature is not one of a key, so that only a contract could know it."""
    unproven: str = ""
    """What is wrong with the signature as one of a key, in words."""
    block: int = 0
    """The finalized block at which the wallet's code accepted the signature; 0 where it was not asked."""

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
            return cls(ranking, signature, comment, digest, recovered(digest, signature))
        except UnprovenError as error:
            return cls(ranking, signature, comment, digest, None, str(error))
        except SignatureError as error:
            raise RejectedError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted ranking: where it stands, and the service's signature that it does."""

    receipt: Receipt
    signature: str
    signer: Address
    replayed: bool
    """The very same ranking was there already; this is its first receipt again."""
    staked: Wei
    """The wallet's stake as of the last indexed, final block."""
    by: Address
    """Whose signature it was taken by: the wallet, itself or by its code, or a session key."""


@dataclass(slots=True)
class Running:
    """What does not change, or only grows, while an epoch runs; kept from batch to batch."""

    epoch: int
    seed: bytes = field(repr=False)
    rules: Rules | None = None
    tasks: dict[Hash32, Task] = field(default_factory=dict)
    sessions: dict[Address, list[Session]] = field(default_factory=dict)
    position: int = 0
    """Rankings that `signed` counts: all before this position."""
    signed: Counter[tuple[Address, Address]] = field(default_factory=Counter)
    """How many rankings, revisions included, each key signed in each wallet's name."""

    def advance(self, sent: Sequence[Sent], found: Sequence[Accepted | HapticError]) -> None:
        """Count what was committed."""
        for item, result in zip(sent, found, strict=True):
            if isinstance(result, Accepted) and not result.replayed:
                self.signed[item.ranking.wallet, result.by] += 1
                self.position = result.receipt.position + 1


class _Batch:
    """Rankings of one epoch on their way into its log, and all that they are held against."""

    def __init__(
        self, db: Db, desk: Desk, running: Running, rules: Rules, sent: Sequence[Sent], now: int
    ) -> None:
        self._db, self._desk, self._running, self._rules, self._now = db, desk, running, rules, now
        self.new: list[NewRanking] = []
        self._said: dict[tuple[str, str], Ranking] = {}
        self.signed: Counter[tuple[Address, Address]] = Counter()
        self._fresh: set[Address] = set()
        self._follow_log()
        self._load_tasks({s.ranking.task for s in sent})
        self._load_sessions({s.ranking.wallet for s in sent if s.signer != s.ranking.wallet})
        held = {(s.ranking.wallet, s.ranking.task) for s in sent}
        found = rows.leases(db, running.epoch, held)
        self._leases = {place: lease for place, (lease, _) in found.items()}
        self._last = {place: revision for place, (_, revision) in found.items()}
        self._tallies = rows.tallies(db, running.epoch, {task for _, task in held})
        self._changed: set[tuple[str, str]] = set()
        self._stakes = chain_ledger.stakes_of(db, {s.ranking.wallet for s in sent})

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
            # Only what there is: anybody may name wallets here, and what is kept stays as long as the epoch.
            self._running.sessions |= rows.sessions(self._db, self._running.epoch, missing)

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
        signer, block = self._check_signer(sent)
        _check_revision(ranking, known)
        receipt = Receipt(sent.digest, Epoch(running.epoch), self._position, self._now)
        signature = sign_with(receipt, self._desk.domain, self._desk.key)
        self.new.append(NewRanking(receipt, signer, ranking, sent.signature, sent.comment, signature, block))
        tally = self._tallies[ranking.task]
        handouts.count(self._rules, lease, tally, ranking, self._before(ranking))
        self._changed.add((ranking.wallet, ranking.task))
        self._position += 1
        self._last[ranking.wallet, ranking.task] = ranking.revision
        self._said[ranking.wallet, ranking.task] = ranking
        self.signed[ranking.wallet, signer] += 1
        return self._accepted(receipt, signature, ranking.wallet, signer, replayed=False)

    def _accepted(
        self, receipt: Receipt, signature: str, wallet: Address, by: Address, *, replayed: bool
    ) -> Accepted:
        staked = self._stakes.get(wallet, Wei(0))
        return Accepted(receipt, signature, self._desk.signer, replayed, staked, by)

    def _before(self, ranking: Ranking) -> Ranking | None:
        """Return the revision that a ranking replaces."""
        if not ranking.revision:
            return None
        if (known := self._said.get((ranking.wallet, ranking.task))) is not None:
            return known
        row = queries.latest_revision(self._db, ranking.epoch, ranking.wallet, ranking.task)
        return Ranking.parse(row.message) if row else None

    def _replayed(self, sent: Sent) -> Accepted | None:
        """Return the first receipt of a ranking that is there already, if it is the very same."""
        for item in self.new:
            if item.receipt.digest_of == sent.digest and item.signature == sent.signature:
                return self._accepted(
                    item.receipt, item.proof, sent.ranking.wallet, item.signer, replayed=True
                )
        row = queries.ranking_by_digest(self._db, self._running.epoch, sent.digest)
        if row is None or row.signature != sent.signature:
            return None
        receipt = Receipt(Hash32(row.digest), Epoch(row.epoch), row.position, row.received_at)
        return self._accepted(receipt, row.receipt, sent.ranking.wallet, Address(row.signer), replayed=True)

    def _check_task(self, ranking: Ranking) -> Lease:
        """Return the wallet's lease; refuse a ranking unless this wallet holds its task and ranked what it was shown."""
        running = self._running
        task = running.tasks.get(ranking.task)
        if task is None:
            raise NotFoundError(
                f"task {ranking.task} is not a task of epoch {ranking.epoch}; ask for one at /v1/tasks/next"
            )
        found = self._leases.get((ranking.wallet, ranking.task))
        lease = handouts.check_held(found, ranking.wallet, ranking.task, self._now)
        shown = display_order(running.seed, ranking.wallet, ranking.task, task.hashes)
        try:
            check_ranking(ranking, method_of(running.seed, ranking.wallet, self._rules.methods), shown)
        except HapticError as error:
            raise RejectedError(str(error)) from error
        return lease

    def _check_signer(self, sent: Sent) -> tuple[Address, int]:
        """Return who signed, and the block at which the wallet's code accepted it, 0 where a key did.

        A refusal of a session key is made by what the database says now: a session may have been signed in elsewhere
        since. An UnprovenError where no key that may sign for the wallet did, and its code was not asked yet.
        """
        wallet = sent.ranking.wallet
        if sent.signer == wallet:
            return wallet, 0
        try:
            return self._check_key(sent)
        except (ServiceError, UnprovenError):
            if wallet in self._fresh:
                raise
        self._load_sessions([wallet], fresh=True)
        return self._check_key(sent)

    def _check_key(self, sent: Sent) -> tuple[Address, int]:
        """Return a session key within its time and limits, or the wallet where its code accepted the signature."""
        ranking, key = sent.ranking, sent.signer
        known = self._running.sessions.get(ranking.wallet, [])
        granted = [s for s in known if s.key == key]
        if key is None or not granted:
            if sent.block:
                return ranking.wallet, sent.block
            if key is None:
                raise UnprovenError(sent.unproven)
        if key is None or not granted or ranking.signed_at > max(s.not_after for s in granted):
            try:
                check_signer(ranking, sent.signature, self._desk.domain, known)
            except UnprovenError:
                raise
            except HapticError as error:
                raise RejectedError(str(error)) from error
        if (end := max(s.not_after for s in granted)) <= self._now:
            raise ExpiredError(f"session key {key} ended at {end}, now is {self._now}; sign a new session")
        limit = max(s.max_judgements for s in granted)
        if self._running.signed[ranking.wallet, key] + self.signed[ranking.wallet, key] >= limit:
            raise RejectedError(f"session key {key} may sign {limit} judgements and has; sign a new session")
        return key, 0

    def write(self) -> None:
        """Store what was accepted; the transaction is the caller's."""
        rows.append(self._db, self.new)
        leases = [self._leases[place] for place in self._changed]
        rows.finish(self._db, leases, [self._tallies[task] for task in {x.task for x in leases}])


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
) -> list[Accepted | HapticError]:
    """Append rankings of one epoch to its log, in this order; return what became of each. The caller commits.

    What an error is returned for has added nothing; an UnprovenError says that all is right but that no key gave the
    signature: then the wallet's code is to be asked, outside this transaction, and the ranking sent again with the
    `block` at which it accepted. Sending the very same signed ranking again returns its first receipt. `now` is block
    time. After the commit, and only then, `running.advance` is told what was returned.
    """
    epoch = queries.epoch_row(db, running.epoch, lock=True)
    if epoch is None or epoch.closed_at is not None:
        return [ConflictError(f"epoch {running.epoch} is not open") for _ in sent]
    running.rules = running.rules or Rules.from_json(epoch.rules)
    now = handouts.moment(epoch, now)
    batch = _Batch(db, desk, running, running.rules, sent, now)
    found: list[Accepted | HapticError] = []
    for item in sent:
        try:
            found.append(batch.take(item))
        except (ServiceError, UnprovenError) as error:
            found.append(error)
    if batch.new:
        batch.write()
        epoch.last_at = now
    return found


def accept(
    db: Db, desk: Desk, seed: bytes, ranking: Ranking, signature: str, comment: str, now: int
) -> Accepted:
    """Append one ranking to its epoch's log and return its receipt; raises and adds nothing otherwise."""
    running = Running(ranking.epoch, seed)
    found = accept_all(db, desk, running, [Sent.of(ranking, signature, comment, desk.domain)], now)[0]
    if isinstance(found, HapticError):
        raise found
    return found
