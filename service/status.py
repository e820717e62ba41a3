"""Where the network stands, in one look: the chain, the index, the running epoch, what is done next, and the money."""

from __future__ import annotations

from pydantic import BaseModel, Field
from sqlmodel import Session as Db

from chain import ledger as chain_ledger
from chain import publisher
from chain.contracts import call
from chain.messages import checksum
from chain.publisher import ChainState
from chain.rpc import Rpc
from chain.types import Address
from service import training
from service.context import Context, Pulse
from service.epochs import Place
from service.ledger import queries
from service.ledger.tables import EpochRow
from service.settings import Settings
from service.stall import Patience, stall
from service.terminal import show_wait


class Status(BaseModel):
    """Where the network stands; amounts are decimal text in smallest units."""

    chain_id: int
    node: str = Field(description="the node that was asked, without keys")
    head: int = Field(description="the latest block")
    now: int = Field(description="its time, Unix seconds")
    finalized: int
    finalized_at: int = Field(description="its time, Unix seconds")
    stalled: str = Field(
        description="that the chain stands still by the service's clock, in words; empty where it goes on"
    )
    indexed: int = Field(description="the last block whose events are in the database; -1 before the first")
    lag_s: int | None = Field(
        description="how far the index is behind the finalized block, in seconds of block time; null before its first"
    )
    epoch: int = Field(description="the running epoch by block time; negative before genesis")
    epoch_ends: int
    judgements: int = Field(description="rankings of the running epoch")
    next_step: str = Field(description="what happens next, and when, in words")
    poster: str | None = Field(description="the account that posts, where this service has its key")
    poster_balance: str | None = Field(description="what it has for gas, in wei")
    bond: str = Field(description="in wei; so is the next")
    bond_required: str
    staked: str = Field(description="of all accounts together")
    funded: str = Field(description="revenue that ever came in")
    committed: str = Field(description="what the active root allots in all")
    claimed: str = Field(description="of that, what was paid")
    models: str = Field(
        description="what model is published, and what people said so far of one that wants its place, in words"
    )
    waits: dict[str, str] = Field(description="by job of the clock: what it did or waits for")
    errors: dict[str, str] = Field(description="by job of the clock: what it failed with")


def read_status(ctx: Context, db: Db, clock: float) -> Status:
    """Read chain and database once; `clock` is this machine's. An RpcError where the node does not answer."""
    poster = None if ctx.poster is None else Address(ctx.poster.address.lower())
    return status_of(ctx.reader, db, ctx.place, poster, ctx.pulse, clock, ctx.settings)


def status_of(
    rpc: Rpc, db: Db, place: Place, poster: Address | None, pulse: Pulse, clock: float, settings: Settings
) -> Status:
    """Return where the network of `place` stands."""
    d, patience = place.deployment, settings.patience(place.deployment.chain_id)
    head, finalized = rpc.blocks(["latest", "finalized"])
    state = publisher.chain_state(rpc, d)
    at = chain_ledger.checkpoint(db)
    distributor = d.revenue_distributor()
    bond, required, funded, claimed = (
        int(call(rpc, distributor, name)) for name in ("bond", "bondRequired", "funded", "claimedTotal")
    )
    committed = int(call(rpc, distributor, "active")[1])
    epoch = place.epoch_at(head.timestamp)
    return Status(
        chain_id=d.chain_id, node=rpc.name, head=head.number, now=head.timestamp, finalized=finalized.number,
        finalized_at=finalized.timestamp, stalled=stall(head, finalized, clock, patience),
        indexed=-1 if at is None else at.number,
        lag_s=None if at is None else max(0, finalized.timestamp - at.timestamp),
        epoch=epoch, epoch_ends=place.start(epoch + 1), judgements=queries.judgement_count(db, epoch),
        next_step=next_step(db, place, state), poster=None if poster is None else checksum(poster),
        poster_balance=None if poster is None else str(rpc.balance(poster)), bond=str(bond), bond_required=str(required),
        staked=str(int(call(rpc, d.stake_vault(), "totalStaked"))), funded=str(funded), committed=str(committed),
        claimed=str(claimed), models=training.said(db, settings), waits=dict(pulse.waits),
        errors=dict(pulse.errors),
    )  # fmt: skip


def next_step(db: Db, place: Place, state: ChainState) -> str:
    """Return what happens next on the way of the oldest epoch that does not pay yet, in words."""
    epoch = state.next_epoch
    row, report = queries.epoch_row(db, epoch), chain_ledger.epoch_report(db, epoch)
    if state.pending_epoch is not None:
        left = state.active_at - state.time
        return f"activate epoch {epoch}" + (
            f" in {show_wait(left)}, after its challenge window" if left > 0 else ""
        )
    if report is None or row is None:
        return _before_close(place, epoch, state.time, row)
    if report.status == "vetoed":
        return f"decide: epoch {epoch} was rejected; `haptic epoch post --again` or `haptic epoch reopen`"
    return f"post epoch {epoch}" if row.anchored_at else f"write the close of epoch {epoch} to the chain"


def _before_close(place: Place, epoch: int, now: int, row: EpochRow | None) -> str:
    if row is not None and row.committed_at is None:
        return f"write the opening of epoch {epoch} to the chain"
    if now >= place.start(epoch + 1):
        return f"close epoch {epoch}, once the block after its end is final and indexed"
    if now < place.start(epoch):
        return f"epoch {epoch} begins in {show_wait(place.start(epoch) - now)}"
    if row is None:
        return f"open epoch {epoch}"
    return f"close epoch {epoch} in {show_wait(place.start(epoch + 1) - now)}"


def lag(rpc: Rpc, db: Db, allowed_s: int, clock: float, patience: Patience) -> str:
    """Return in words why what is stored is old; else nothing.

    The chain stands still by `clock`, this machine's, or the index is more than `allowed_s` behind it.
    """
    (head, finalized), at = rpc.blocks(["latest", "finalized"]), chain_ledger.checkpoint(db)
    if said := stall(head, finalized, clock, patience):
        return said
    if at is None:
        return "nothing is indexed yet"
    behind = finalized.timestamp - at.timestamp
    if at.number >= finalized.number or behind <= allowed_s:
        return ""
    return f"the index is at block {at.number}, {show_wait(behind)} behind the finalized block {finalized.number}"
