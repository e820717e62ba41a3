"""Routes about epochs: their commitments and reports, their bundles, and proofs that a ranking stands in their logs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from chain import ledger as chain_ledger
from chain.ledger import EpochReport
from chain.messages import checksum
from chain.types import Address
from service.context import Context
from service.errors import NotFoundError
from service.guard import HEAD
from service.ledger import queries
from service.ledger.tables import EpochRow
from service.routes.depends import Ctx, EpochPath, HashPath, Reading, closed_report
from service.routes.pages import NEXT, Paged

router = APIRouter(tags=["public"])
LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}
}


class EpochAnswer(BaseModel):
    """An epoch: its commitments, and its report once it is closed."""

    epoch: int
    state: str = Field(
        description="opening, open, built, posted, active or vetoed (by the guardian or a proof)"
    )
    start: int
    end: int
    seed_hash: str = Field(description="keccak256 of the seed, published before the first task")
    gold_root: str
    rules_hash: str
    tasks: int
    judgements: int = Field(description="with hand-outs and skips, all that is public before the close")
    handouts: int
    skips: int
    redacted: int = Field(
        description="responses in which a name of a model, or a control character, was replaced before they were shown"
    )
    retired_gold: int = Field(
        description="gold tasks that proved wrong at the close and did not count as gold"
    )
    abandoned: bool = Field(description="its operator gave it up: no ranking of it counts")
    root: str | None = None
    sum: str | None = None
    data_hash: str | None = None
    ledger_root: str | None = None
    snapshot_block: int | None = None
    snapshot_hash: str | None = None


class Inclusion(BaseModel):
    """Where a ranking stands, and the proof that it is under its epoch's ledger root."""

    epoch: int
    digest: str
    wallet: str
    position: int
    received_at: int = Field(description="block time, Unix seconds")
    ledger_root: str = Field(description="as EpochLedger and RevenueDistributor have it")
    proof: list[str] = Field(
        description="of the leaf (bytes32 digest, address wallet) of OpenZeppelin's StandardMerkleTree"
    )


@router.get("/epochs", responses=NEXT)
def epochs(ctx: Ctx, db: Reading, page: Paged) -> list[EpochAnswer]:
    """All epochs that were opened, newest first."""
    (before,) = page.after(1) or (None,)
    rows = page.cut(queries.newest_epochs(db, page.wanted, before), lambda row: (row.epoch,))
    reports = {r.epoch: r for r in chain_ledger.epoch_reports(db)}
    counts = queries.counts(db, [row.epoch for row in rows])
    return [_epoch(ctx, row, reports.get(row.epoch), *counts[row.epoch]) for row in rows]


@router.get("/epochs/{epoch}")
def epoch(ctx: Ctx, db: Reading, epoch: EpochPath) -> EpochAnswer:
    """One epoch; while it runs only counts are public, because an answer that can be seen can be copied."""
    row = queries.epoch_row(db, epoch)
    if row is None:
        raise NotFoundError(f"epoch {epoch} was not opened")
    return _epoch(ctx, row, chain_ledger.epoch_report(db, epoch), *queries.counts(db, [epoch])[epoch])


def _epoch(
    ctx: Context, row: EpochRow, report: EpochReport | None, tasks: int, judgements: int, skips: int
) -> EpochAnswer:
    found = EpochAnswer(
        epoch=row.epoch, state="open" if row.committed_at else "opening",
        start=ctx.place.start(row.epoch), end=ctx.place.start(row.epoch + 1),
        seed_hash=row.seed_hash, gold_root=row.gold_root, rules_hash=row.rules_hash,
        tasks=tasks, judgements=judgements, handouts=row.entries - skips, skips=skips, redacted=row.redacted,
        retired_gold=row.retired, abandoned=row.abandoned_at is not None,
    )  # fmt: skip
    if report is None:
        return found
    return found.model_copy(
        update={
            "state": report.status, "root": report.root, "sum": str(report.sum), "data_hash": report.data_hash,
            "ledger_root": report.ledger_root, "snapshot_block": report.snapshot_block,
            "snapshot_hash": report.snapshot_hash,
        }
    )  # fmt: skip


class BundleFile(FileResponse):
    """A bundle as it is sent; to HEAD only its headers, so that nothing is read from disk for nobody."""

    media_type = "application/jsonl"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as HTTP has it for the method that was asked with, which routes see as GET."""
        await super().__call__({**scope, "method": "HEAD"} if HEAD in scope else scope, receive, send)


@router.get("/epochs/{epoch}/bundle", response_class=FileResponse, responses=LINES)
def bundle(ctx: Ctx, db: Reading, epoch: EpochPath) -> FileResponse:
    """The epoch's bundle (JSON lines): all that a stranger needs, with the chain, to recompute it."""
    report = closed_report(db, epoch, "its bundle is published then")
    path = ctx.place.bundle_path(epoch)
    return BundleFile(path, headers={"ETag": f'"{report.data_hash}"'})


@router.get("/bundles/{data_hash}", response_class=FileResponse, responses=LINES)
def bundle_by_hash(ctx: Ctx, data_hash: HashPath) -> FileResponse:
    """The bundle that has this dataHash, also where its epoch was closed anew since; it never changes."""
    path = ctx.place.bundle_by_hash(data_hash)
    if not path.is_file():
        raise NotFoundError(f"no bundle with the hash {data_hash} was published here")
    headers = {"ETag": f'"{data_hash}"', "Cache-Control": "public, max-age=31536000, immutable"}
    return BundleFile(path, headers=headers)


@router.get("/epochs/{epoch}/rankings/{digest}/proof")
def inclusion(ctx: Ctx, db: Reading, epoch: EpochPath, digest: HashPath) -> Inclusion:
    """That a ranking stands in a closed epoch's log: the proof leads to the ledger root on the chain."""
    report = closed_report(db, epoch, "what stands in its log is proven then")
    row = queries.ranking_by_digest(db, epoch, digest)
    if row is None:
        raise NotFoundError(f"no ranking {digest} is in the log of epoch {epoch}")
    tree = ctx.ledgers.find(epoch, report.ledger_root, lambda: queries.ledger_entries(db, epoch))
    return Inclusion(
        epoch=epoch, digest=row.digest, wallet=checksum(Address(row.wallet)), position=row.position,
        received_at=row.received_at, ledger_root=report.ledger_root, proof=list(tree.proof(digest)),
    )  # fmt: skip
