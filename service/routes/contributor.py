"""Routes for wallets that rank: log in for an epoch, ask for a task, send a signed ranking, read it back."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session as Db

from chain.bundle import SignedSession
from chain.canonical import text_hash
from chain.contracts import call
from chain.errors import RpcError, SignatureError, UnprovenError
from chain.messages import Handout, Ranking, Session, checksum, sign
from chain.types import Address
from service import auth, feedback, handouts, login
from service.context import Context
from service.errors import BadRequestError, ConflictError, UnavailableError
from service.ledger import queries
from service.ledger.tables import EpochRow
from service.routes.depends import MAX_EPOCH, Caller, Ctx, HashPath, Reading, Repeat, Writing
from service.signatures import accepted_at

NO_STAKE = "This wallet has no stake: the ranking is recorded, but its HapticScore is 0 until you stake."
router = APIRouter(tags=["contributors"])
T = TypeVar("T", Session, Ranking)
BY_WALLET = "hex: 65 bytes by the wallet's key, or what its contract accepts (ERC-1271, ERC-6492)"
Hash = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]


class StrictBody(BaseModel):
    """A request body: unknown fields are refused, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SessionRequest(StrictBody):
    """A signed Session (EIP-712)."""

    session: dict[str, Any] = Field(
        description="Session {wallet, key, epoch, maxJudgements, notAfter, termsHash}"
    )
    signature: str = Field(description=BY_WALLET)


class NonceAnswer(BaseModel):
    """What a message of Sign-In with Ethereum (EIP-4361) has to say here."""

    nonce: str = Field(description="for one login, within the hour")
    domain: str
    chain_id: int
    statement: str = Field(description="the terms, which the login agrees to")
    now: int = Field(
        description="block time, Unix seconds: what Issued At and Expiration Time are compared with"
    )
    longest: int = Field(description="seconds from Issued At to Expiration Time, at most")


class LoginRequest(StrictBody):
    """A signed message of Sign-In with Ethereum."""

    message: str = Field(description="to the last character as it was signed")
    signature: str = Field(description=BY_WALLET)


class LoginAnswer(BaseModel):
    """A bearer token until the login expires."""

    token: str
    wallet: str
    expires_at: int = Field(description="block time, Unix seconds")


class SessionAnswer(BaseModel):
    """A bearer token for the rest of the session."""

    token: str
    epoch: int
    not_after: int


class TaskAnswer(BaseModel):
    """A blind task as this wallet sees it."""

    epoch: int
    task: Hash
    prompt: str
    method: str = Field(description="pairwise, best_worst, ranking or likert")
    shown: list[str] = Field(description="texts in the order of the screen; letters A, B, C … go by it")
    shown_hashes: list[Hash]
    expires_at: int = Field(description="block time, Unix seconds")
    number: int = Field(description="place of the hand-out in the epoch's log")
    at: int = Field(description="block time of the hand-out, Unix seconds")
    signature: str = Field(
        description="the service's on Handout {wallet, epoch, task, number, at}: keep it, the log must show it"
    )
    skips_left: int = Field(description="tasks that this wallet may still give back in this epoch")


class SkipRequest(StrictBody):
    """Why a task is given back."""

    reason: str = Field(description="unclear, offensive, not_my_language, too_long or other")


class SkipAnswer(BaseModel):
    """A task that was given back; it does not come again."""

    epoch: int
    task: Hash
    number: int = Field(description="place of the skip in the epoch's log")
    skips_left: int


class RankingRequest(StrictBody):
    """A signed Ranking (EIP-712) and, if wished, the comment that its commentHash is of."""

    ranking: dict[str, Any] = Field(
        description="Ranking {wallet, epoch, task, method, summary, shown, ranks, likert, flag, commentHash, "
        "revision, signedAt}"
    )
    signature: str = Field(description=f"{BY_WALLET}; or 65 bytes by its session key")
    comment: str = ""


class ReceiptAnswer(BaseModel):
    """The service's signed promise that the ranking stands in its log."""

    digest: Hash
    epoch: int
    position: int
    received_at: int
    signature: str
    signer: str
    staked: str = Field(description="stake of the wallet now, in wei; null stake earns nothing")
    notice: str = Field(description="what the wallet should know, in words; empty when all is well")


class RankingAnswer(BaseModel):
    """One of the wallet's own rankings as it was signed."""

    ranking: dict[str, Any]
    signature: str
    comment: str
    digest: Hash
    position: int
    received_at: int
    receipt: str


@router.get("/terms")
def terms() -> dict[str, str]:
    """The terms whose hash a Session signs."""
    return {"terms": auth.TERMS, "hash": auth.terms_hash()}


@router.post("/sessions", status_code=201)
def log_in(ctx: Ctx, db: Writing, body: SessionRequest) -> SessionAnswer:
    """Log a wallet in for the running epoch."""
    session = _parsed(Session, body.session)
    now = ctx.clock.now()
    if now < ctx.place.start(0):
        raise ConflictError(f"epoch 0 begins at {ctx.place.start(0)}, now is {now}; sign in then")
    signed = SignedSession(session, body.signature)
    epoch = ctx.place.epoch_at(now)
    token = auth.log_in(db, signed, ctx.domain, epoch, now, ctx.settings.master, ctx.wallets)
    db.commit()
    return SessionAnswer(token=token, epoch=session.epoch, not_after=session.not_after)


@router.get("/login/nonce")
def login_nonce(ctx: Ctx) -> NonceAnswer:
    """A nonce to sign in with, and what the message has to say besides."""
    now = ctx.clock.now()
    return NonceAnswer(
        nonce=login.make_nonce(ctx.settings.master, secrets.token_bytes(login.NONCE_BYTES), now),
        domain=ctx.settings.authority, chain_id=ctx.deployment.chain_id, statement=auth.TERMS, now=now,
        longest=login.LONGEST_S,
    )  # fmt: skip


@router.post("/login", status_code=201)
def sign_in(ctx: Ctx, db: Writing, body: LoginRequest) -> LoginAnswer:
    """Sign in with Ethereum: as good as a Session for asking and reading back, but without a key that signs."""
    token, row = login.sign_in(
        db, body.message, body.signature, domain=ctx.settings.authority, chain_id=ctx.deployment.chain_id,
        now=ctx.clock.now(), master=ctx.settings.master, wallets=ctx.wallets,
    )  # fmt: skip
    db.commit()
    return LoginAnswer(token=token, wallet=checksum(Address(row.wallet)), expires_at=row.expires_at)


@router.get("/tasks/next")
def next_task(ctx: Ctx, db: Writing, caller: Caller) -> TaskAnswer:
    """Hand out the next task; asking again before it is judged gives the same one."""
    now, staked = ctx.clock.now(), _staked(ctx, caller.wallet) > 0
    row = _open_epoch(ctx, db, now)
    rules, seed = ctx.rules.from_json(row.rules), ctx.place.seed(row.epoch)
    handed = handouts.next_task(db, seed, rules, row, caller.wallet, now, staked=staked)
    left = handouts.left_of(db, rules, row.epoch, caller.wallet)
    db.commit()
    e = handed.entry
    promise = Handout(e.wallet, row.epoch, e.task, e.number, e.at)
    return TaskAnswer(
        epoch=row.epoch, task=e.task, prompt=handed.prompt, method=handed.method, shown=list(handed.shown),
        shown_hashes=[text_hash(t) for t in handed.shown], expires_at=handed.expires_at, number=e.number, at=e.at,
        signature=sign(promise, ctx.domain, ctx.desk.receipts), skips_left=left,
    )  # fmt: skip


@router.post("/tasks/{task}/skip")
def skip(ctx: Ctx, db: Writing, caller: Caller, task: HashPath, body: SkipRequest) -> SkipAnswer:
    """Give a task back unjudged, within a budget: some are free, and judged ones earn more."""
    now = ctx.clock.now()
    row = _open_epoch(ctx, db, now)
    done = handouts.skip(db, ctx.rules.from_json(row.rules), row, caller.wallet, task, body.reason, now)
    db.commit()
    return SkipAnswer(epoch=row.epoch, task=task, number=done.entry.number, skips_left=done.left)


def _open_epoch(ctx: Context, db: Writing, now: int) -> EpochRow:
    """Return the running epoch, locked; ConflictError where nobody is asked anything yet."""
    epoch = ctx.place.epoch_at(now)
    row = queries.epoch_row(db, epoch, lock=True)
    if row is None or row.committed_at is None or row.closed_at is not None:
        raise ConflictError(f"epoch {epoch} is not open yet: its tasks are being made; ask again in a moment")
    return row


@router.post("/rankings", status_code=201)
def rank(ctx: Ctx, db: Writing, body: RankingRequest, response: Response, repeat: Repeat) -> ReceiptAnswer:
    """Record a signed ranking; sending the same one again returns its first receipt with status 200."""
    ranking = _parsed(Ranking, body.ranking)
    now = ctx.clock.now()
    current = ctx.place.epoch_at(now)
    if ranking.epoch != current:
        raise ConflictError(f"the ranking is for epoch {ranking.epoch}, the running one is {current}")
    staked = _staked(ctx, ranking.wallet)
    if repeat and (known := repeat.recall(db, ranking.wallet, current)):
        response.status_code = known.status
        return ReceiptAnswer(**known.answer)
    accepted = _accepted(ctx, db, ranking, body, now)
    answer = _receipt(accepted, staked)
    if accepted.replayed:
        response.status_code = 200
    if repeat:
        repeat.keep(db, ranking.wallet, current, response.status_code or 201, answer.model_dump())
    db.commit()
    return answer


def _accepted(ctx: Context, db: Db, ranking: Ranking, body: RankingRequest, now: int) -> feedback.Accepted:
    """Take a ranking in; where no key gave its signature, ask the wallet's code, while nothing is locked."""
    asked = (db, ctx.desk, ctx.place.seed(ranking.epoch), ranking, body.signature, body.comment, now)
    try:
        return feedback.accept(*asked)
    except UnprovenError as error:
        db.rollback()
        digest = ranking.digest(ctx.domain)
        block = accepted_at(ctx.wallets, ranking.wallet, digest, body.signature, now, str(error))
    return feedback.accept(*asked, block)


def _receipt(accepted: feedback.Accepted, staked: int) -> ReceiptAnswer:
    r = accepted.receipt
    return ReceiptAnswer(
        digest=r.digest_of, epoch=r.epoch, position=r.position, received_at=r.received_at, signature=accepted.signature,
        signer=checksum(accepted.signer), staked=str(staked),
        notice="" if staked else NO_STAKE,
    )  # fmt: skip


@router.get("/rankings")
def own_rankings(
    db: Reading, caller: Caller, epoch: Annotated[int | None, Query(ge=0, le=MAX_EPOCH)] = None
) -> list[RankingAnswer]:
    """Read back what this wallet signed, newest first."""
    return [
        RankingAnswer(
            ranking=r.message, signature=r.signature, comment=r.comment, digest=r.digest,
            position=r.position, received_at=r.received_at, receipt=r.receipt,
        )
        for r in queries.rankings_of(db, caller.wallet, epoch)
    ]  # fmt: skip


@router.post("/typed-data/{kind}")
def typed_data(ctx: Ctx, kind: str, message: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """Return a Session or Ranking as `eth_signTypedData_v4` wants it, after the same checks as when it is sent."""
    if kind == "session":
        return ctx.domain.typed_data(_parsed(Session, message))
    if kind == "ranking":
        return ctx.domain.typed_data(_parsed(Ranking, message))
    raise BadRequestError(f"{kind!r} is neither session nor ranking")


def _parsed(kind: type[T], value: dict[str, Any]) -> T:
    try:
        return kind.parse(value)
    except SignatureError as error:
        raise BadRequestError(str(error)) from error


def _staked(ctx: Context, wallet: Address) -> int:
    try:
        return int(call(ctx.reader, ctx.deployment.stake_vault(), "stakedOf", wallet))
    except RpcError as error:
        raise UnavailableError(
            f"the chain cannot be read, so nothing was recorded; try again: {error}"
        ) from error
