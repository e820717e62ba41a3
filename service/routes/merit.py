"""Routes about what a wallet's work is worth: the leaderboard, its history, and each judgement after the close."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from chain import ledger as chain_ledger
from chain.lines import Line
from chain.messages import Ranking, checksum
from chain.surplus import Surplus, in_words, next_payment
from chain.types import Address, Hash32
from chain.verdict import Known, Verdict, verdicts
from service.errors import BadRequestError, NotFoundError
from service.leaderboard import LEAST, SIXTH, WINDOWS, Board, Merit
from service.ledger import queries, results
from service.ledger.tables import LabelRow, RankingRow, ScoreRow, TaskRow
from service.routes.depends import Ctx, EpochPath, Reading, WalletPath
from service.routes.pages import NEXT, Paged

router = APIRouter(tags=["public"])
COMPARISONS = "in comparisons"


class Place(BaseModel):
    """A wallet on the leaderboard."""

    place: int = Field(description="from 1")
    wallet: str
    quality: float = Field(
        description="surplus per comparison: about 0 for a coin, at most about 1 for who is always right"
    )
    low: float = Field(description="lower bound of the quality: 95 of 100 such intervals hold the true one")
    high: float
    comparisons: float = Field(description="judged in these epochs")
    epochs: int = Field(description="of these, in how many it took part")
    score: str = Field(description="HapticScore of the last of them; 0 where it took no part in that one")


class Leaderboard(BaseModel):
    """Wallets over some closed epochs."""

    by: Literal["quality", "score"]
    first: int | None = Field(description="the first of the epochs; null while none is closed")
    last: int | None
    least_comparisons: int = Field(
        description="by quality, who has judged fewer comparisons in these epochs is left out; by score, nobody is"
    )
    wallets: int = Field(description="how many have a place")
    entries: list[Place]


class Earned(BaseModel):
    """What a wallet has earned against what it has proven, over all epochs; ppm of a sixth of a comparison."""

    epoch: int = Field(description="the last closed epoch that it took part in")
    earned: str = Field(description="G: surplus of all epochs, before chance and entry are taken off")
    chance: str = Field(description="what of it chance may explain: z standard deviations of guessing")
    entry: str = Field(description="c0: what each wallet leaves unpaid once")
    stands: str = Field(description="H: what is left")
    proven: str = Field(description="the highest that H has ever been, at least 0: what was paid for so far")
    held_back: str = Field(description="earned and not proven")
    missing: str = Field(description="by how much H must grow before more is paid")
    next_payment: float | None = Field(
        description="comparisons until it is paid again if it goes on as it did so far; null where it would not be"
    )
    words: str = Field(description="all of it in a sentence")


class Point(BaseModel):
    """A wallet after an epoch, for a plot; amounts in comparisons."""

    epoch: int
    place: int
    score: float = Field(description=COMPARISONS)
    comparisons: float
    quality: float = Field(description="surplus per comparison of this epoch; with its bounds")
    low: float
    high: float
    paid_quality: float = Field(description="W per comparison: what of this epoch counts")
    reliability: float
    reputation: float
    earned: float = Field(description="deltaG: surplus of this epoch")
    surplus: float = Field(description="G: of all epochs up to this one")
    chance: float = Field(description="what of that chance may explain")
    entry: float
    stands: float = Field(description="H")
    proven: float = Field(description="Hmax: all that was paid for up to this epoch")
    allotted: str = Field(description="in this epoch, in units of the payment token")


class PairVerdict(BaseModel):
    """Two responses of a task, by the letters under which they were shown."""

    first: str
    second: str
    said: str = Field(description="the letter that was ranked better; empty where neither was")
    label: str = Field(description="the letter that came out as the better one; empty where neither did")
    confidence: float = Field(description="of the label, .5 to 1")
    gold: str = Field(description="the letter that was known to be better; empty where that was not known")
    agreed: bool | None = Field(
        description="with gold, or else with the label; null where either says nothing"
    )
    surplus: str = Field(description="what it earned, ppm of a sixth of a comparison")


class Judgement(BaseModel):
    """What came of one task that a wallet judged."""

    task: str
    position: int = Field(description="of its last ranking of the task in the epoch's log")
    method: str
    prompt: str
    said: str = Field(description="what was signed: the order by the letters shown")
    flag: str
    gold: bool = Field(description="its answer was known beforehand")
    retired: bool = Field(description="what was known proved wrong, and did not count")
    comparisons: float = Field(description="what it counts for; 0 for a tie or a flag")
    surplus: str = Field(
        description="what it earned, ppm of a sixth of a comparison: of all, they are deltaG"
    )
    pairs: list[PairVerdict] = Field(description="those that anybody ordered")


class Judgements(BaseModel):
    """A page of what came of a wallet's judgements in a closed epoch."""

    epoch: int
    wallet: str
    earned: str = Field(description="deltaG: the surplus of all its judgements")
    comparisons: float
    reliability: float = Field(description="what its votes weighed by, .5 to .95")
    style_bias: list[int] = Field(
        description="ppm by which the truth leans to the longer response, per style bucket; taken off every surplus"
    )
    judgements: list[Judgement]


@router.get("/leaderboard", responses=NEXT)
def leaderboard(
    ctx: Ctx,
    db: Reading,
    page: Paged,
    by: Annotated[
        Literal["quality", "score"],
        Query(description="quality: the lower bound of the surplus per comparison"),
    ] = "quality",
    epochs: Annotated[
        int, Query(description="how many of the last; 0: all", json_schema_extra={"enum": list(WINDOWS)})
    ] = 0,
) -> Leaderboard:
    """Wallets by what their work shows for certain: few comparisons prove little, and many bad ones nothing."""
    # Its pages stay with the epochs of the first.
    closed = queries.last_closed(db)
    last, after = page.after(2) or (closed, 0)
    if last > closed:
        raise NotFoundError(f"epoch {last} is not closed: leave the cursor out")
    # Whatever is asked, no more is ever put together than is kept: it takes a second, and others wait.
    if last < closed - 1:
        raise NotFoundError(
            f"the leaderboard of epoch {last} is over, epoch {closed} is closed: leave the cursor out"
        )
    if epochs not in WINDOWS:
        raise BadRequestError(f"epochs is {epochs}, expected one of {', '.join(map(str, WINDOWS))}; 0 is all")
    first = max(0, last + 1 - epochs) if epochs else 0
    if by == "quality":
        report = chain_ledger.epoch_report(db, last)
        read = partial(results.merits, db, first, last)
        board = ctx.boards.find(report.data_hash, first, read) if report else Board(())
        found, count = list(board.page(after, page.wanted)), len(board)
        scores = results.scores_among(db, last, [m.wallet for _, m in found])
    else:
        rows = results.scores(db, last, after, page.wanted)
        known = {m.wallet: m for m in results.merits(db, first, last, [r.wallet for r in rows])}
        found, count = [(r.place, known[r.wallet]) for r in rows], results.score_count(db, last)
        scores = {r.wallet: r.line["score"] for r in rows}
    return Leaderboard(
        by=by, first=None if last < 0 else first, last=None if last < 0 else last, least_comparisons=LEAST,
        wallets=count, entries=[_place(*one, scores) for one in page.cut(found, lambda x: (last, x[0]))],
    )  # fmt: skip


def _place(place: int, merit: Merit, scores: dict[str, str]) -> Place:
    quality, low, high = merit.interval
    return Place(
        place=place, wallet=checksum(Address(merit.wallet)), quality=quality, low=low, high=high,
        comparisons=merit.comparisons / 6, epochs=merit.epochs, score=scores.get(merit.wallet, "0"),
    )  # fmt: skip


@router.get("/contributors/{wallet}/history", responses=NEXT)
def history(db: Reading, wallet: WalletPath, page: Paged) -> list[Point]:
    """A wallet epoch by epoch, oldest first: what a plot of it needs; epochs without it are left out."""
    (after,) = page.after(1) or (-1,)
    rows = page.cut(results.scores_of(db, wallet, after, page.wanted), lambda r: (r.epoch,))
    params = results.params_of(db, [r.epoch for r in rows])
    allotted: dict[int, int] = {}
    for share in results.shares_of(db, wallet):
        allotted[share.epoch] = allotted.get(share.epoch, 0) + int(share.amount)
    points = []
    for row in rows:
        line, found = row.line, Surplus.of(row.line, params[row.epoch])
        merit = Merit(wallet, 1, line["comparisons"], int(line["deltaG"]), int(line["deltaV"]))
        quality, low, high = merit.interval
        points.append(
            Point(
                epoch=row.epoch, place=row.place, score=int(line["score"]) / SIXTH, comparisons=merit.comparisons / 6,
                quality=quality, low=low, high=high, paid_quality=quality_of(line), reliability=line["a"] / 1e6,
                reputation=reputation_of(line), earned=merit.surplus / SIXTH, surplus=found.earned / SIXTH,
                chance=found.chance / SIXTH, entry=found.entry / SIXTH, stands=found.stands / SIXTH,
                proven=found.proven / SIXTH, allotted=str(allotted.get(row.epoch, 0)),
            )
        )  # fmt: skip
    return points


def quality_of(line: Line) -> float:
    """Return Quality of a bundle's `wallet` line: W per comparison judged."""
    return int(line["w"]) / (line["comparisons"] * 1e6) if line["comparisons"] else 0.0


def reputation_of(line: Line) -> float:
    """Return Reputation of a bundle's `wallet` line, S̄ / (S̄ + κλW): the part of W that the score is."""
    if int(line["w"]):
        return int(line["score"]) / int(line["w"])
    return 1.0 if int(line["stake"]) else 0.0


def earned(db: Reading, rows: list[ScoreRow]) -> Earned | None:
    """Return how a wallet stands after the last of its epochs; None where it has none."""
    if not rows:
        return None
    last = rows[-1]
    params = results.params_of(db, [last.epoch])[last.epoch]
    found, work = Surplus.of(last.line, params), sum(r.line["comparisons"] for r in rows)
    more = next_payment(found.earned, int(last.line["payV"]), work, found.proven, params)
    return Earned(
        epoch=last.epoch, earned=str(found.earned), chance=str(found.chance), entry=str(found.entry),
        stands=str(found.stands), proven=str(found.proven), held_back=str(found.held_back), missing=str(found.missing),
        next_payment=None if more is None else more / 6, words=in_words(found, params),
    )  # fmt: skip


@router.get("/contributors/{wallet}/epochs/{epoch}", responses=NEXT)
def judgements(
    db: Reading,
    wallet: WalletPath,
    epoch: EpochPath,
    page: Paged,
) -> Judgements:
    """What came of each ranking of a wallet: where it agreed with gold and with the others, and what it earned.

    Only once the epoch is closed: before, what came out so far would tell the others what to say.
    """
    row = queries.epoch_row(db, epoch)
    if row is None or row.closed_at is None or row.style_bias is None:
        raise NotFoundError(f"epoch {epoch} is not closed; what came of its rankings is shown then")
    line = results.line_of(db, epoch, wallet)
    if line is None:
        raise NotFoundError(f"no ranking of {checksum(wallet)} counts in epoch {epoch}")
    (after,) = page.after(1) or (-1,)
    found = page.cut(results.judged_page(db, epoch, wallet, after, page.wanted), lambda x: (x[0].position,))
    return Judgements(
        epoch=epoch, wallet=checksum(wallet), earned=line["deltaG"], comparisons=line["comparisons"] / 6,
        reliability=line["a"] / 1e6, style_bias=row.style_bias,
        judgements=[_judgement(*one, line["a"], row.style_bias) for one in found],
    )  # fmt: skip


def _judgement(
    row: RankingRow, task: TaskRow, labels: LabelRow | None, reliability: int, style_bias: list[int]
) -> Judgement:
    said = Ranking.parse(row.message)
    letters = dict(zip(said.shown, "ABCDEF", strict=False))
    # Of a task that nobody ordered there is no label.
    known = [Known(*k) if k else None for k in labels.pairs] if labels else []
    found = verdicts(said, known, reliability, style_bias) if known else []
    return Judgement(
        task=row.task, position=row.position, method=said.method, prompt=task.prompt, said=said.summary, flag=said.flag,
        gold=bool(task.gold_ranks) and not task.retired, retired=task.retired,
        comparisons=sum(v.weight for v in found) / 6, surplus=str(sum(v.surplus for v in found)),
        pairs=[_pair(v, letters) for v in found],
    )  # fmt: skip


def _pair(v: Verdict, letters: Mapping[Hash32, str]) -> PairVerdict:
    names = {0: "", 1: letters[v.a], -1: letters[v.b]}
    return PairVerdict(
        first=names[1], second=names[-1], said=names[v.said], label=names[v.known.label],
        confidence=v.known.confidence / 1e6, gold=names[v.known.gold],
        agreed=v.agreed, surplus=str(v.surplus),
    )  # fmt: skip
