"""Routes for wallets that rank: log in for an epoch, ask for a task, send a signed ranking, read it back."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chain.bundle import SignedSession
from chain.canonical import text_hash
from chain.contracts import call
from chain.errors import RpcError, SignatureError
from chain.messages import Ranking, Session
from chain.types import Address
from service import arena, auth, feedback
from service.context import Context
from service.errors import BadRequestError, ConflictError, UnavailableError
from service.ledger import queries
from service.routes.depends import MAX_EPOCH, Caller, Ctx, Reading, Writing, context

NO_STAKE = "This wallet has no stake: the ranking is recorded, but its HapticScore is 0 until you stake."
router = APIRouter(tags=["contributors"])
T = TypeVar("T", Session, Ranking)
Hash = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]


class StrictBody(BaseModel):
    """A request body: unknown fields are refused, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SessionRequest(StrictBody):
    """A signed Session (EIP-712)."""

    session: dict[str, Any] = Field(
        description="Session {wallet, key, epoch, maxJudgements, notAfter, termsHash}"
    )
    signature: str = Field(description="65 bytes hex by the wallet")


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


class RankingRequest(StrictBody):
    """A signed Ranking (EIP-712) and, if wished, the comment that its commentHash is of."""

    ranking: dict[str, Any] = Field(
        description="Ranking {wallet, epoch, task, method, summary, shown, ranks, likert, flag, commentHash, "
        "revision, signedAt}"
    )
    signature: str = Field(description="65 bytes hex by the wallet or its session key")
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
    token = auth.log_in(db, signed, ctx.domain, ctx.place.epoch_at(now), now, ctx.settings.master)
    db.commit()
    return SessionAnswer(token=token, epoch=session.epoch, not_after=session.not_after)


@router.get("/tasks/next")
def next_task(ctx: Ctx, db: Writing, caller: Caller) -> TaskAnswer:
    """Hand out the next task; asking again before it is judged gives the same one."""
    now, staked = ctx.clock.now(), _staked(ctx, caller.wallet) > 0
    epoch = ctx.place.epoch_at(now)
    row = queries.epoch_row(db, epoch, lock=True)
    if row is None or row.committed_at is None or row.closed_at is not None:
        raise ConflictError(f"epoch {epoch} is not open yet: its tasks are being made; ask again in a moment")
    rules = ctx.rules.from_json(row.rules)
    handed = arena.next_task(db, ctx.place.seed(epoch), rules, epoch, caller.wallet, now, staked=staked)
    db.commit()
    return TaskAnswer(
        epoch=epoch, task=handed.task, prompt=handed.prompt, method=handed.method, shown=list(handed.shown),
        shown_hashes=[text_hash(t) for t in handed.shown], expires_at=handed.expires_at,
    )  # fmt: skip


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
async def rank(request: Request) -> Response:
    """Record a signed ranking; sending the same one again returns its first receipt with status 200.

    The answer comes once it is committed. Read by hand: this is the route that has to be fast.
    """
    ctx, intake, stakes = context(request), request.app.state.intake, request.app.state.stakes
    try:
        body = RankingRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError([e | {"loc": ("body", *e["loc"])} for e in error.errors()]) from error
    ranking = _parsed(Ranking, body.ranking)
    accepted = await intake.take(feedback.Sent.of(ranking, body.signature, body.comment, ctx.domain))
    staked, r = await stakes.of(ranking.wallet), accepted.receipt
    answer = ReceiptAnswer(
        digest=r.digest_of, epoch=r.epoch, position=r.position, received_at=r.received_at, signature=accepted.signature,
        signer=ctx.desk.shown_signer, staked=None if staked is None else str(staked), notice=NO_STAKE if staked == 0 else "",
    )  # fmt: skip
    status = 200 if accepted.replayed else 201
    return Response(answer.model_dump_json(), status, media_type="application/json")


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
