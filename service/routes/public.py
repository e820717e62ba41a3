"""Routes for anybody: what the network is and where it stands, scores, wallets and the proofs they claim by."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from chain import ledger as chain_ledger
from chain import publisher
from chain.contracts import call
from chain.ledger import EpochReport
from chain.messages import checksum
from chain.reason import why_zero
from chain.types import Address
from service.context import Context, Payouts
from service.errors import NotFoundError
from service.events import Listening
from service.guard import HEAD
from service.ledger import queries, results
from service.ledger.tables import ScoreRow
from service.routes import merit
from service.routes.depends import Ctx, EpochPath, Reading, WalletPath
from service.routes.merit import Earned
from service.routes.pages import NEXT, Paged
from service.status import Status, read_status

router = APIRouter(tags=["public"])


class Info(BaseModel):
    """What this deployment is and where it stands."""

    chain_id: int
    vault: str
    distributor: str
    token: str
    token_symbol: str
    token_decimals: int
    payment_token: str
    payment_symbol: str
    payment_decimals: int
    genesis: int
    epoch_length: int
    challenge_window: int
    epoch: int = Field(description="the running epoch by block time; negative before genesis")
    now: int = Field(description="block time of the chain's head")
    receipt_signer: str
    rules: dict[str, Any]
    rules_hash: str


class Standing(BaseModel):
    """A wallet in one epoch."""

    epoch: int
    place: int = Field(description="from 1, by HapticScore, and of equal ones the lower address first")
    wallet: str
    score: str = Field(description="HapticScore")
    proven: str = Field(description="W: surplus proven in this epoch, ppm of a sixth of a comparison")
    comparisons: float = Field(description="Contribution: comparisons judged")
    quality: float = Field(description="Quality: W per comparison judged, 0 to 1 or little more")
    reputation: float = Field(
        description="Reputation: S̄/(S̄ + κλW), the part of W that the stake behind it lets count"
    )
    earned: str = Field(description="deltaG: surplus of this epoch, before chance and entry are taken off")
    proven_so_far: str = Field(description="Hmax: all that was paid for up to this epoch")
    held_back: str = Field(description="what was earned up to this epoch and is not proven")
    reliability: float = Field(description="estimated reliability that weights its labels, .5 to .95")
    stake: str = Field(description="time-weighted mean stake, wei")
    reason: str = Field(description="why the score is 0, in words; empty where it is not")


class Waiting(BaseModel):
    """What a wallet ranked in the epoch that is not closed yet; how it ranked is not public before the close."""

    epoch: int
    rankings: int
    ends: int = Field(description="block time, Unix seconds; it is closed soon after")


class Pending(BaseModel):
    """What a wallet can claim once the root that waits is active."""

    epoch: int
    active_at: int = Field(description="end of the challenge window, block time; it pays soon after")
    claimable: str = Field(description="what a claim would pay then, in units of the payment token")


class Contributor(BaseModel):
    """A wallet over all epochs."""

    wallet: str
    staked: str = Field(description="at the chain's head")
    staked_final: str = Field(description="as of the last indexed, final block: what counts")
    unfinalized: bool = Field(
        description="a block that is not final yet changed its stake, and a reorg may undo that"
    )
    earned: Earned | None = Field(
        description="over all epochs, against what is proven; null before the first"
    )
    waiting: Waiting | None = Field(description="null where every opened epoch is closed")
    abandoned: list[int] = Field(
        description="epochs that it ranked in and that were given up: nothing of them counts"
    )
    allotted: str = Field(description="all payouts allotted to it, in units of the payment token")
    claimable: str = Field(description="what a claim would pay now")
    claimed: str
    pending: Pending | None = Field(description="null while no root of this service waits on the chain")


class Proof(BaseModel):
    """What `claim` of the distributor takes."""

    account: str
    epoch: int = Field(description="the active epoch that the proof is for")
    cumulative: str
    index: int
    proof: list[tuple[str, str]] = Field(description="(hash, sum) from leaf to root")
    root: str


@router.get("/info")
def info(ctx: Ctx) -> Info:
    """What this network is: contracts, rules, the running epoch."""
    d, now = ctx.deployment, ctx.clock.now()
    return Info(
        chain_id=d.chain_id, vault=checksum(d.vault), distributor=checksum(d.distributor), token=checksum(d.token),
        token_symbol=ctx.token.symbol, token_decimals=ctx.token.decimals, payment_token=checksum(d.payment_token),
        payment_symbol=ctx.payment.symbol, payment_decimals=ctx.payment.decimals, genesis=d.genesis,
        epoch_length=d.epoch_length, challenge_window=d.challenge_window, epoch=ctx.place.epoch_at(now), now=now,
        receipt_signer=ctx.desk.shown_signer, rules=ctx.rules.to_json(), rules_hash=ctx.rules.hash(),
    )  # fmt: skip


@router.get("/status")
def status(ctx: Ctx, db: Reading) -> Status:
    """Where the network stands: blocks, epoch, the next step, stake and revenue."""
    return read_status(ctx, db, time.time())


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(request: Request) -> Response:
    """How far the running epoch is, as server-sent events: `counts`, at most one a second, and `epoch` when it changes.

    `counts` has epoch, rankings, handouts, skips and seconds_left; nothing else is public before the close.
    """
    if HEAD in request.scope:
        return Response(media_type=Listening.media_type)
    return Listening(request.app.state.events)


@router.get("/epochs/{epoch}/scores", responses=NEXT)
def scores(db: Reading, epoch: EpochPath, page: Paged) -> list[Standing]:
    """The wallets of a closed epoch, the highest HapticScore first."""
    (after,) = page.after(1) or (0,)
    found = results.scores(db, epoch, after, page.wanted)
    return [_standing(s) for s in page.cut(found, lambda s: (s.place,))]


@router.get("/contributors/{wallet}")
def contributor(ctx: Ctx, db: Reading, wallet: WalletPath) -> Contributor:
    """A wallet: stake, what it earned, was allotted and can claim; its scores are under `/epochs` of it."""
    last, active, scored = queries.last_closed(db), _active(db), list(results.scores_of(db, wallet))
    allotted = results.cumulative_of(db, wallet, last)
    payable = results.cumulative_of(db, wallet, active.epoch) if active else 0
    claimed = int(call(ctx.reader, ctx.deployment.revenue_distributor(), "claimed", wallet))
    staked = int(call(ctx.reader, ctx.deployment.stake_vault(), "stakedOf", wallet))
    unfinalized = ctx.head.staked(wallet)
    return Contributor(
        wallet=checksum(wallet), staked=str(staked), staked_final=str(chain_ledger.staked_of(db, wallet)),
        unfinalized=unfinalized is not None,
        earned=merit.earned(db, scored),
        waiting=_waiting(ctx, db, wallet, last + 1), abandoned=queries.abandoned_of(db, wallet),
        allotted=str(allotted), claimable=str(max(0, payable - claimed)), claimed=str(claimed),
        pending=_pending(ctx, db, wallet, claimed),
    )  # fmt: skip


@router.get("/contributors/{wallet}/epochs", responses=NEXT)
def contributor_epochs(db: Reading, wallet: WalletPath, page: Paged) -> list[Standing]:
    """The closed epochs that a wallet took part in, newest first."""
    (before,) = page.after(1) or (None,)
    found = results.scores_before(db, wallet, before, page.wanted)
    return [_standing(s) for s in page.cut(found, lambda s: (s.epoch,))]


def _waiting(ctx: Context, db: Reading, wallet: Address, epoch: int) -> Waiting | None:
    """Return what a wallet ranked in the epoch after the last closed one, if it is open."""
    if queries.epoch_row(db, epoch) is None:
        return None
    ranked = queries.judged_count(db, epoch, wallet)
    return Waiting(epoch=epoch, rankings=ranked, ends=ctx.place.start(epoch + 1))


def _pending(ctx: Context, db: Reading, wallet: Address, claimed: int) -> Pending | None:
    """Return what the root that waits on the chain gives a wallet, if it is the one that was computed here."""
    state = publisher.chain_state(ctx.reader, ctx.deployment)
    if state.pending_epoch is None:
        return None
    report = chain_ledger.epoch_report(db, state.pending_epoch)
    if report is None or report.root != state.pending_root:
        return None
    payable = results.cumulative_of(db, wallet, state.pending_epoch)
    return Pending(
        epoch=state.pending_epoch, active_at=state.active_at, claimable=str(max(0, payable - claimed))
    )


@router.get("/proofs/{wallet}")
def proof(ctx: Ctx, db: Reading, wallet: WalletPath) -> Proof:
    """The Merkle proof by which this wallet claims, under the active root."""
    active = _active(db)
    payouts = _payouts(ctx, db, active) if active else None
    if active is None or payouts is None or wallet not in payouts.leaves:
        raise NotFoundError(f"{checksum(wallet)} has no payout under an active root yet")
    found = payouts.tree.proof(wallet)
    return Proof(
        account=checksum(wallet), epoch=active.epoch, cumulative=str(payouts.leaves[wallet]), index=found.index,
        proof=[(h, str(s)) for h, s in found.nodes], root=payouts.tree.root_hash,
    )  # fmt: skip


def _active(db: Reading) -> EpochReport | None:
    """Return the report that claims are paid by."""
    found = (r for r in chain_ledger.epoch_reports(db) if r.status == "active")
    return max(found, key=lambda r: r.epoch, default=None)


def _payouts(ctx: Context, db: Reading, report: EpochReport) -> Payouts:
    return ctx.trees.find(report.epoch, report.root, lambda: results.cumulative(db, report.epoch))


def _standing(row: ScoreRow) -> Standing:
    line = row.line
    held_back = max(0, int(line["payG"]) - int(line["payHmax"]))
    return Standing(
        epoch=row.epoch, place=row.place, wallet=checksum(Address(line["wallet"])), score=line["score"], proven=line["w"],
        comparisons=line["comparisons"] / 6, quality=merit.quality_of(line), reputation=merit.reputation_of(line),
        earned=line["deltaG"], proven_so_far=line["payHmax"], held_back=str(held_back),
        reliability=line["a"] / 1e6, stake=line["stake"], reason=why_zero(line),
    )  # fmt: skip
