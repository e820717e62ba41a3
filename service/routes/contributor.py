"""Routes for wallets that rank: log in for an epoch, ask for a task, send a signed ranking, read it back."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlmodel import Session as Db

from chain.bundle import SignedSession
from chain.canonical import text_hash
from chain.contracts import call
from chain.errors import RpcError, SignatureError, UnprovenError
from chain.feedback import Task
from chain.handout import STAKE_AFTER_S, STAKE_BEFORE_S
from chain.messages import Handout, Ranking, Session, checksum, sign_with
from chain.types import MAX_EPOCH, Address, BlockRef
from service import auth, feedback, handouts, login
from service.arena import task_of
from service.context import Context
from service.errors import BadRequestError, ConflictError, ForbiddenError, UnavailableError
from service.idempotency import Repeatable
from service.intake import Intake
from service.ledger import queries
from service.ledger.tables import AnswerRow, EpochRow, RankingRow
from service.rates import Limits
from service.routes.depends import (
    Caller,
    Ctx,
    HashPath,
    Reading,
    Repeat,
    Wallets,
    Writing,
    context,
    contract_wallets,
    idempotency_key,
    repeatable,
)
from service.routes.pages import NEXT, Paged
from service.signatures import TAKEN_WITHIN_S, accepted_at

NO_STAKE = (
    "This wallet has no stake now: the ranking is recorded, but without stake over time its HapticScore is 0."
)
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
        description="the service's on Handout {wallet, epoch, task, prompt, shown, number, at}, texts by their hashes: "
        "keep it, the log must show it so"
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
    staked: str | None = Field(
        description="stake of the wallet now, in wei; none earns nothing. null while the chain cannot be read"
    )
    notice: str = Field(description="what the wallet should know, in words; empty when all is well")


class RankingAnswer(BaseModel):
    """One of the wallet's own rankings as it was signed, with the texts that it orders."""

    ranking: dict[str, Any]
    signature: str
    comment: str
    prompt: str
    shown: list[str] = Field(description="texts in the order of the screen, whose hashes `ranking` has")
    digest: Hash
    position: int
    received_at: int
    receipt: str


@router.get("/terms")
def terms() -> dict[str, str]:
    """The terms whose hash a Session signs."""
    return {"terms": auth.TERMS, "hash": auth.terms_hash()}


@router.post("/sessions", status_code=201)
def log_in(request: Request, ctx: Ctx, db: Writing, wallets: Wallets, body: SessionRequest) -> SessionAnswer:
    """Log a wallet in for the running epoch."""
    session = _parsed(Session, body.session)
    now = ctx.clock.now()
    if now < ctx.place.start(0):
        raise ConflictError(f"epoch 0 begins at {ctx.place.start(0)}, now is {now}; sign in then")
    signed = SignedSession(session, body.signature)
    epoch = ctx.place.epoch_at(now)
    token = auth.log_in(db, signed, ctx.domain, epoch, now, ctx.settings.master, wallets)
    request.app.state.limits.wallet(session.wallet)
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
def sign_in(request: Request, ctx: Ctx, db: Writing, wallets: Wallets, body: LoginRequest) -> LoginAnswer:
    """Sign in with Ethereum: as good as a Session for asking and reading back, but without a key that signs."""
    token, row = login.sign_in(
        db, body.message, body.signature, domain=ctx.settings.authority, chain_id=ctx.deployment.chain_id,
        now=ctx.clock.now(), master=ctx.settings.master, wallets=wallets,
    )  # fmt: skip
    request.app.state.limits.wallet(row.wallet)
    db.commit()
    return LoginAnswer(token=token, wallet=checksum(Address(row.wallet)), expires_at=row.expires_at)


@router.get("/tasks/next")
def next_task(ctx: Ctx, db: Writing, caller: Caller) -> TaskAnswer:
    """Hand out the next task to a wallet with stake; asking again before it is judged gives the same one."""
    now = ctx.clock.now()
    held = _held(ctx, caller.wallet, now)
    if held is None:
        _check_stake(ctx, caller.wallet, now)
    row = _open_epoch(ctx, db, now)
    rules, seed = ctx.rules.from_json(row.rules), ctx.place.seed(row.epoch)
    handed = handouts.next_task(db, seed, rules, row, caller.wallet, now)
    if held is not None and handed.entry.number != held:
        # It was judged or given back meanwhile, so this would be a new one: nothing is handed out unasked for stake.
        db.rollback()
        raise ConflictError("the task that you held was judged or skipped meanwhile; ask again for the next")
    left = handouts.left_of(db, rules, row.epoch, caller.wallet)
    db.commit()
    e = handed.entry
    shown = tuple(map(text_hash, handed.shown))
    promise = Handout(e.wallet, row.epoch, e.task, text_hash(handed.prompt), shown, e.number, e.at)
    return TaskAnswer(
        epoch=row.epoch, task=e.task, prompt=handed.prompt, method=handed.method, shown=list(handed.shown),
        shown_hashes=list(shown), expires_at=handed.expires_at, number=e.number, at=e.at,
        signature=sign_with(promise, ctx.domain, ctx.desk.key), skips_left=left,
    )  # fmt: skip


@router.post("/tasks/{task}/skip")
def skip(ctx: Ctx, db: Writing, caller: Caller, task: HashPath, body: SkipRequest) -> SkipAnswer:
    """Give a task back unjudged, within a budget: some are free, and judged ones earn more."""
    now = ctx.clock.now()
    row = _open_epoch(ctx, db, now)
    done = handouts.skip(db, ctx.rules.from_json(row.rules), row, caller.wallet, task, body.reason, now)
    db.commit()
    return SkipAnswer(epoch=row.epoch, task=task, number=done.entry.number, skips_left=done.left)


def _open_epoch(ctx: Context, db: Db, now: int, *, lock: bool = True) -> EpochRow:
    """Return the running epoch, locked; ConflictError where nobody is asked anything yet."""
    epoch = ctx.place.epoch_at(now)
    row = queries.epoch_row(db, epoch, lock=lock)
    if row is None or row.committed_at is None or row.closed_at is not None:
        raise ConflictError(f"epoch {epoch} is not open yet: its tasks are being made; ask again in a moment")
    return row


RECEIPTS: dict[int | str, dict[str, Any]] = {
    200: {"model": ReceiptAnswer, "description": "It was there already: its first receipt"},
    201: {"model": ReceiptAnswer},
}
RANKING_BODY = {
    "required": True, "content": {"application/json": {"schema": RankingRequest.model_json_schema()}},
}  # fmt: skip


@router.post(
    "/rankings",
    status_code=201,
    responses=RECEIPTS,
    response_model=None,
    openapi_extra={"requestBody": RANKING_BODY},
)
async def rank(request: Request, repeat: Repeat) -> Response:
    """Record a signed ranking; sending the same one again returns its first receipt with status 200.

    The answer comes once it is committed. Read by hand: this is the route that has to be fast.
    """
    ctx = context(request)
    try:
        body = RankingRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError([e | {"loc": ("body", *e["loc"])} for e in error.errors()]) from error
    ranking = _parsed(Ranking, body.ranking)
    if repeat and (known := await to_thread.run_sync(_recall, ctx, repeat, ranking)):
        return JSONResponse(known.answer, known.status)
    limits: Limits = request.app.state.limits
    limits.check_wallet(ranking.wallet)
    sent = feedback.Sent.of(ranking, body.signature, body.comment, ctx.domain)
    accepted = await _accepted(ctx, request, sent)
    # Only what the wallet signed counts against it: else anybody could use its requests up by naming it.
    limits.charge_wallet(ranking.wallet)
    # A wallet that the index does not know may have staked in a block that is not final yet.
    staked = accepted.staked or await request.app.state.stakes.of(ranking.wallet)
    answer = _receipt(ctx, accepted, staked)
    status = 200 if accepted.replayed else 201
    if repeat:
        await to_thread.run_sync(_keep, ctx, repeat, ranking, status, answer)
    return Response(answer.model_dump_json(), status, media_type="application/json")


async def rank_at_once(request: Request) -> Response:
    """Do the same where the framework was passed by, and with it the idempotency key."""
    # Not `request.headers`, which decodes all of them: a hundredth of what a ranking takes.
    key = next((value for name, value in request.scope["headers"] if name == b"idempotency-key"), None)
    if key is None:
        return await rank(request, None)
    return await rank(request, await repeatable(request, idempotency_key(key.decode("latin-1"))))


async def _accepted(ctx: Context, request: Request, sent: feedback.Sent) -> feedback.Accepted:
    """Take a ranking in; where no key gave its signature, ask the wallet's code, while nothing is locked."""
    intake: Intake = request.app.state.intake
    try:
        return await intake.take(sent)
    except UnprovenError as error:
        said, wallets = str(error), contract_wallets(request)

    def ask() -> int:
        wallet = sent.ranking.wallet
        return accepted_at(wallets, wallet, sent.digest, sent.signature, ctx.clock.now(), said)

    return await intake.take(replace(sent, block=await to_thread.run_sync(ask)))


def _recall(ctx: Context, repeat: Repeatable, ranking: Ranking) -> AnswerRow | None:
    # It only reads: who sent this is not known yet, and must not make those wait who write.
    with ctx.db.read() as db:
        return repeat.recall(db, ranking.wallet, ranking.epoch)


def _keep(ctx: Context, repeat: Repeatable, ranking: Ranking, status: int, answer: ReceiptAnswer) -> None:
    """Keep an answer under its key; should that fail, the ranking itself still tells its receipt again."""
    with ctx.db.write() as db:
        repeat.keep(db, ranking.wallet, ranking.epoch, status, answer.model_dump())
        db.commit()


def _receipt(ctx: Context, accepted: feedback.Accepted, staked: int | None) -> ReceiptAnswer:
    r = accepted.receipt
    return ReceiptAnswer(
        digest=r.digest_of, epoch=r.epoch, position=r.position, received_at=r.received_at, signature=accepted.signature,
        signer=ctx.desk.shown_signer, staked=None if staked is None else str(staked),
        notice=NO_STAKE if staked == 0 else "",
    )  # fmt: skip


@router.get("/rankings", responses=NEXT)
def own_rankings(
    db: Reading, caller: Caller, page: Paged, epoch: Annotated[int | None, Query(ge=0, le=MAX_EPOCH)] = None
) -> list[RankingAnswer]:
    """Read back what this wallet signed, newest first; the last revision of a task is the one that counts."""
    before = page.after(2)
    found = queries.rankings_of(db, caller.wallet, epoch, before=before, limit=page.wanted)
    shown = page.cut(found, lambda r: (r.epoch, r.position))
    tasks = queries.tasks_of(db, shown)
    return [_read_back(r, task_of(tasks[r.epoch, r.task])) for r in shown]


def _read_back(row: RankingRow, task: Task) -> RankingAnswer:
    texts = dict(zip(task.hashes, task.responses, strict=True))
    return RankingAnswer(
        ranking=row.message, signature=row.signature, comment=row.comment, prompt=task.prompt,
        shown=[texts[name] for name in row.message["shown"]], digest=row.digest, position=row.position,
        received_at=row.received_at, receipt=row.receipt,
    )  # fmt: skip


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


def _held(ctx: Context, wallet: Address, now: int) -> int | None:
    """Return the number of the hand-out whose task a wallet holds: that is its own, whatever it has staked since."""
    with ctx.db.read() as db:
        lease = queries.live_lease(db, ctx.place.epoch_at(now), wallet, now)
        return None if lease is None else lease.number


def _check_stake(ctx: Context, wallet: Address, now: int) -> None:
    """Raise a ForbiddenError where a wallet has not the stake with which it is handed tasks; nothing is locked.

    Its stake is that of the latest finalized block: no reorg can make a liar of the log of hand-outs.
    """
    with ctx.db.read() as db:
        least = ctx.rules.from_json(_open_epoch(ctx, db, now, lock=False).rules).stake_least
    final, stake = _final_stake(ctx, wallet, now)
    if stake < least:
        raise ForbiddenError(
            f"stake first: {checksum(wallet)} has {stake} wei staked as of block {final.number}, the last final one, and "
            f"tasks are handed out from {least} wei on; stake what is missing (`haptic stake`), and ask again once that "
            "is final"
        )


def _final_stake(ctx: Context, wallet: Address, now: int) -> tuple[BlockRef, int]:
    """Return the latest finalized block, and a wallet's stake there in wei; UnavailableError where it is too old."""
    try:
        final = ctx.reader.block("finalized")
        if final.timestamp > now + STAKE_AFTER_S:
            raise UnavailableError(
                f"the chain was read too slowly: block {final.number}, final by now, is of {final.timestamp}, long after "
                f"{now}, when you asked; nothing was handed out, ask again"
            )
        if final.timestamp < now - (STAKE_BEFORE_S - TAKEN_WITHIN_S):
            raise UnavailableError(
                f"the last finalized block, {final.number}, is of {final.timestamp}, too long before {now} to tell who "
                "has stake; nothing was handed out, try again later"
            )
        return final, int(call(ctx.reader, ctx.deployment.stake_vault(), "stakedOf", wallet, block=final))
    except RpcError as error:
        raise UnavailableError(
            f"the chain cannot be read, so nothing was recorded; try again: {error}"
        ) from error
