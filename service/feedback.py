"""Takes a signed ranking in: every check first, then one append to the log and a signed receipt for it."""

from __future__ import annotations

from dataclasses import dataclass

from eth_account.signers.local import LocalAccount
from sqlmodel import Session as Db

from chain.assignment import display_order, method_of
from chain.canonical import text_hash
from chain.errors import HapticError, UnprovenError
from chain.evidence import CLOCK_SKEW_S, check_signer
from chain.feedback import check_ranking
from chain.messages import Domain, Ranking, Receipt, Session, recover, sign
from chain.rules import Rules
from chain.types import Address, Epoch, Hash32
from service import handouts
from service.arena import task_of
from service.errors import ConflictError, ExpiredError, NotFoundError, RejectedError
from service.ledger import queries
from service.ledger.tables import LeaseRow, RankingRow

MAX_COMMENT = 4000
MAX_REVISIONS = 20
"""Most revisions of one ranking: all of them are published."""
NO_COMMENT = text_hash("")
"""commentHash of a ranking without a comment: keccak256 of no bytes."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What taking in a ranking needs beside the database."""

    domain: Domain
    receipts: LocalAccount
    """Key that signs receipts."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted ranking: where it stands, and the service's signature that it does."""

    receipt: Receipt
    signature: str
    signer: Address
    replayed: bool
    """The very same ranking was there already; this is its first receipt again."""


def _accepted(desk: Desk, row: RankingRow, *, replayed: bool) -> Accepted:
    receipt = Receipt(Hash32(row.digest), row.epoch, row.position, row.received_at)
    return Accepted(receipt, row.receipt, Address(desk.receipts.address.lower()), replayed)


def _check_task(db: Db, seed: bytes, rules: Rules, ranking: Ranking, now: int) -> LeaseRow:
    """Return the wallet's lease of the task; refuse a ranking of what it does not hold, or was not shown so."""
    task = queries.task_row(db, ranking.epoch, ranking.task)
    if task is None:
        raise NotFoundError(
            f"task {ranking.task} is not a task of epoch {ranking.epoch}; ask for one at /v1/tasks/next"
        )
    lease = queries.lease_row(db, ranking.epoch, ranking.wallet, ranking.task)
    held = handouts.check_held(lease, ranking.wallet, ranking.task, now)
    shown = display_order(seed, ranking.wallet, ranking.task, task_of(task).hashes)
    try:
        check_ranking(ranking, method_of(seed, ranking.wallet, rules.methods), shown)
    except HapticError as error:
        raise RejectedError(str(error)) from error
    return held


def _check_signature(
    db: Db, desk: Desk, ranking: Ranking, signature: str, now: int, block: int
) -> tuple[Address, int]:
    """Return who signed the ranking, the wallet or its session key within its time and limits.

    With it comes `block`, where it was the wallet's code that accepted the signature there, else 0.
    """
    known = [Session.parse(r.message) for r in queries.sessions(db, ranking.epoch, ranking.wallet)]
    try:
        signer = recover(check_signer(ranking, signature, desk.domain, known), signature)
    except UnprovenError:
        if block:
            return ranking.wallet, block
        raise
    except HapticError as error:
        raise RejectedError(str(error)) from error
    if signer != ranking.wallet:
        _check_key(db, ranking, signer, [s for s in known if s.key == signer], now)
    return signer, 0


def _check_key(db: Db, ranking: Ranking, key: Address, granted: list[Session], now: int) -> None:
    """Refuse a session key whose time is over by the chain's clock, or that has signed all it may."""
    if (end := max(s.not_after for s in granted)) <= now:
        raise ExpiredError(f"session key {key} ended at {end}, now is {now}; sign a new session")
    limit = max(s.max_judgements for s in granted)
    if queries.signed_by(db, ranking.epoch, ranking.wallet, key) >= limit:
        raise RejectedError(f"session key {key} may sign {limit} judgements and has; sign a new session")


def _check_revision(db: Db, ranking: Ranking) -> RankingRow | None:
    """Return the revision before this one; they count 0, 1, 2 …, each once."""
    last = queries.latest_revision(db, ranking.epoch, ranking.wallet, ranking.task)
    expected = 0 if last is None else last.revision + 1
    if ranking.revision < expected:
        raise ConflictError(
            f"revision {ranking.revision} of this ranking is already recorded; to change it send revision {expected}"
        )
    if ranking.revision >= MAX_REVISIONS:
        raise RejectedError(f"a ranking can be revised {MAX_REVISIONS - 1} times, and this one was")
    if ranking.revision > expected:
        raise RejectedError(f"revision {ranking.revision} skips one; the next is {expected}")
    return last


def accept(
    db: Db,
    desk: Desk,
    seed: bytes,
    ranking: Ranking,
    signature: str,
    comment: str,
    now: int,
    block: int = 0,
) -> Accepted:
    """Append a ranking to its epoch's log and return its receipt; raises a ServiceError and adds nothing otherwise.

    Sending the very same signed ranking again returns its first receipt. `now` is block time. An UnprovenError where
    all is right but that no key gave the signature: then the wallet's code is to be asked, outside this transaction,
    and the `block` at which it accepted is given here.
    """
    epoch = queries.epoch_row(db, ranking.epoch, lock=True)
    if epoch is None or epoch.closed_at is not None:
        raise ConflictError(f"epoch {ranking.epoch} is not open")
    now = handouts.later(epoch, now)
    digest = ranking.digest(desk.domain)
    known = queries.ranking_by_digest(db, ranking.epoch, digest)
    if known is not None and known.signature == signature:
        return _accepted(desk, known, replayed=True)
    if "\0" in comment:
        raise RejectedError("the comment holds a NUL character, which no text column of PostgreSQL can hold")
    if len(comment) > MAX_COMMENT or text_hash(comment) != ranking.comment_hash:
        raise RejectedError(f"commentHash is not the hash of the comment (at most {MAX_COMMENT} characters)")
    if ranking.signed_at > now + CLOCK_SKEW_S:
        raise RejectedError(f"signedAt {ranking.signed_at} is in the future; the chain's clock says {now}")
    rules = Rules.from_json(epoch.rules)
    lease = _check_task(db, seed, rules, ranking, now)
    signer, block = _check_signature(db, desk, ranking, signature, now, block)
    last = _check_revision(db, ranking)
    receipt = Receipt(digest, Epoch(ranking.epoch), queries.next_position(db, ranking.epoch), now)
    row = RankingRow(
        epoch=ranking.epoch, position=receipt.position, digest=digest, wallet=ranking.wallet, signer=signer,
        task=ranking.task, revision=ranking.revision, message=ranking.to_json(), signature=signature,
        comment=comment, received_at=now, receipt=sign(receipt, desk.domain, desk.receipts),
        block=block or None,
    )  # fmt: skip
    queries.add(db, row)
    handouts.count(db, rules, lease, ranking, Ranking.parse(last.message) if last else None)
    return _accepted(desk, row, replayed=False)
