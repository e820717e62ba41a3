"""What closed epochs came to, as functions of a session; forgotten where one is closed anew."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Float, and_, cast, delete, func, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from chain.lines import Line
from chain.rules import Rules
from chain.types import Address, Params, WalletState, Wei
from service.leaderboard import Merit
from service.ledger.queries import streamed
from service.ledger.tables import (
    EpochRow,
    LabelRow,
    LeafRow,
    MatchRow,
    MeritRow,
    PoolRow,
    RankingRow,
    RunRow,
    ScoreRow,
    ShareRow,
    TallyRow,
    TaskRow,
)


def scores(session: Session, epoch: int, after: int, limit: int) -> Sequence[ScoreRow]:
    """Return the wallets of an epoch by their place in it, those after a place, at most so many."""
    beyond = (ScoreRow.epoch == epoch, ScoreRow.place > after)
    return session.exec(select(ScoreRow).where(*beyond).order_by(col(ScoreRow.place)).limit(limit)).all()


def score_count(session: Session, epoch: int) -> int:
    """Return how many wallets have a place in an epoch."""
    # They are numbered from 1 without a gap: the last number is found at once.
    return session.exec(select(func.max(ScoreRow.place)).where(ScoreRow.epoch == epoch)).one() or 0


def scores_among(session: Session, epoch: int, wallets: Collection[str]) -> dict[str, str]:
    """Return the HapticScores that some wallets have in an epoch; who took no part has none."""
    among = select(ScoreRow).where(ScoreRow.epoch == epoch, col(ScoreRow.wallet).in_(wallets))
    return {row.wallet: row.line["score"] for row in session.exec(among)}


def scores_of(session: Session, wallet: str, after: int = -1, limit: int | None = None) -> Sequence[ScoreRow]:
    """Return a wallet's epochs, ascending: those after one, at most so many."""
    mine = select(ScoreRow).where(ScoreRow.wallet == wallet, ScoreRow.epoch > after)
    return session.exec(mine.order_by(col(ScoreRow.epoch)).limit(limit)).all()


def line_of(session: Session, epoch: int, wallet: str) -> Line | None:
    """Return a wallet's bundle line of an epoch."""
    found = session.get(ScoreRow, (epoch, wallet))
    return None if found is None else found.line


def params_of(session: Session, epochs: Collection[int]) -> dict[int, Params]:
    """Return the parameters that some epochs were scored by."""
    found = session.exec(
        select(EpochRow.epoch, EpochRow.rules_hash, EpochRow.rules).where(col(EpochRow.epoch).in_(epochs))
    )
    read: dict[str, Params] = {}
    known: dict[int, Params] = {}
    for epoch, name, rules in found:
        if name not in read:
            read[name] = Rules.from_json(dict(rules)).params
        known[epoch] = read[name]
    return known


def merits(
    session: Session, first: int, last: int, wallets: Collection[str] | None = None
) -> Iterator[Merit]:
    """Yield what work came to in some epochs, of each wallet that took part in one, or of some wallets."""
    # As floating-point numbers: SQLite's integers end at 64 bits, and a leaderboard is for show.
    sums = (func.sum(cast(c, Float)) for c in (MeritRow.delta_g, MeritRow.delta_v))
    wanted = select(MeritRow.wallet, func.count(), func.sum(MeritRow.comparisons), *sums)
    wanted = wanted.where(MeritRow.epoch >= first, MeritRow.epoch <= last).group_by(col(MeritRow.wallet))
    if wallets is not None:
        wanted = wanted.where(col(MeritRow.wallet).in_(wallets))
    for wallet, epochs_in, comparisons, surplus, variance in streamed(session, wanted):
        yield Merit(wallet, epochs_in, int(comparisons), surplus, variance)


def judged_page(
    session: Session, epoch: int, wallet: str, after: int, limit: int
) -> list[tuple[RankingRow, TaskRow, LabelRow | None]]:
    """Return a wallet's last rankings of an epoch's tasks by position, with each task and what came out of it."""
    later = aliased(RankingRow)
    revised = select(later.position).where(
        later.epoch == epoch, later.wallet == wallet, later.task == RankingRow.task,
        later.revision > RankingRow.revision,
    )  # fmt: skip
    mine = (RankingRow.epoch == epoch, RankingRow.wallet == wallet, RankingRow.position > after)
    task = and_(col(TaskRow.epoch) == RankingRow.epoch, col(TaskRow.task) == RankingRow.task)
    label = and_(col(LabelRow.epoch) == RankingRow.epoch, col(LabelRow.task) == RankingRow.task)
    wanted = select(RankingRow, TaskRow, LabelRow).join(TaskRow, task).outerjoin(LabelRow, label)
    found = wanted.where(*mine, ~revised.exists()).order_by(col(RankingRow.position)).limit(limit)
    return [(ranking, asked, known) for ranking, asked, known in session.exec(found)]


def scores_before(session: Session, wallet: str, before: int | None, limit: int) -> Sequence[ScoreRow]:
    """Return a wallet's epochs, or those before one, the newest first, at most so many."""
    found = select(ScoreRow).where(ScoreRow.wallet == wallet)
    if before is not None:
        found = found.where(ScoreRow.epoch < before)
    return session.exec(found.order_by(col(ScoreRow.epoch).desc()).limit(limit)).all()


def wallet_states(session: Session) -> dict[Address, WalletState]:
    """Return the state of every wallet after the last epoch it took part in."""
    last = (
        select(ScoreRow.wallet, func.max(ScoreRow.epoch).label("epoch")).group_by(ScoreRow.wallet).subquery()
    )
    on = and_(col(ScoreRow.wallet) == last.c.wallet, col(ScoreRow.epoch) == last.c.epoch)
    return {
        Address(r.wallet): WalletState(
            int(r.line["labelN"]), int(r.line["labelD"]),
            int(r.line["payG"]), int(r.line["payV"]), int(r.line["payHmax"]),
        )
        for r in streamed(session, select(ScoreRow.wallet, ScoreRow.line).join(last, on))
    }  # fmt: skip


def lines(session: Session, epoch: int) -> Iterator[Any]:
    """Yield every wallet of an epoch with its bundle line."""
    wanted = select(ScoreRow.wallet, ScoreRow.line).where(ScoreRow.epoch == epoch)
    return streamed(session, wanted.order_by(col(ScoreRow.wallet)))


def cumulative(session: Session, until: int) -> dict[Address, Wei]:
    """Return every account's cumulative payout after epoch `until`: the leaves of that epoch's tree."""
    last = (
        select(LeafRow.account, func.max(LeafRow.epoch).label("epoch"))
        .where(LeafRow.epoch <= until)
        .group_by(LeafRow.account)
        .subquery()
    )
    on = and_(col(LeafRow.account) == last.c.account, col(LeafRow.epoch) == last.c.epoch)
    wanted = select(LeafRow.account, LeafRow.cumulative).join(last, on)
    return {Address(a): Wei(int(v)) for a, v in streamed(session, wanted)}


def cumulative_of(session: Session, account: str, until: int) -> Wei:
    """Return one account's cumulative payout after epoch `until`."""
    mine = select(LeafRow.cumulative).where(LeafRow.account == account, LeafRow.epoch <= until)
    found = session.exec(mine.order_by(col(LeafRow.epoch).desc()).limit(1)).first()
    return Wei(int(found or 0))


def pools(session: Session, epoch: int) -> Sequence[PoolRow]:
    """Return an epoch's pools by run."""
    return session.exec(select(PoolRow).where(PoolRow.epoch == epoch).order_by(col(PoolRow.run))).all()


def carried(session: Session, epoch: int) -> dict[int, Wei]:
    """Return what the pools of an epoch carried on, by run."""
    return {p.run: Wei(int(p.carried_out)) for p in pools(session, epoch) if int(p.carried_out)}


def shares_of(session: Session, wallet: str) -> Sequence[ShareRow]:
    """Return what a wallet was allotted, by epoch and run."""
    found = select(ShareRow).where(ShareRow.wallet == wallet)
    return session.exec(found.order_by(col(ShareRow.epoch), col(ShareRow.run))).all()


def matches(session: Session) -> Sequence[MatchRow]:
    """Return how the models did against each other in all closed epochs."""
    return session.exec(select(MatchRow)).all()


def forget_results(session: Session, epoch: int) -> None:
    """Delete what was computed for `epoch` and later ones, so that they can be closed anew.

    Runs that learned from them and stand in no bundle go too: they learn again from what it comes to.
    """
    run = session.connection().execute
    for table in (ScoreRow, MeritRow, LabelRow, PoolRow, ShareRow, LeafRow, MatchRow):
        run(delete(table).where(col(table.epoch) >= epoch))
    later = col(EpochRow.epoch) >= epoch
    # What was given up here, and is not on the chain, may be taken back.
    run(update(EpochRow).where(later, col(EpochRow.anchored_at).is_(None)).values(abandoned_at=None))
    nothing = dict.fromkeys(("closed_at", "anchored_at", "next_num", "next_den"))
    run(update(EpochRow).where(later).values(**nothing, retired=0, style_bias=None))
    run(update(RunRow).where(col(RunRow.declared_in) >= epoch).values(declared_in=None))
    run(delete(RunRow).where(col(RunRow.declared_in).is_(None), col(RunRow.last) >= epoch))
    run(update(TaskRow).where(col(TaskRow.epoch) >= epoch).values(retired=False))
    session.expire_all()


def forget_uncommitted(session: Session, epoch: int) -> None:
    """Delete the epochs after `epoch` of which the chain does not know the opening, with their tasks."""
    later = col(EpochRow.epoch) > epoch, col(EpochRow.committed_at).is_(None)
    numbers = session.exec(select(EpochRow.epoch).where(*later)).all()
    for table in (TaskRow, TallyRow):
        session.connection().execute(delete(table).where(col(table.epoch).in_(numbers)))
    session.connection().execute(delete(EpochRow).where(*later))
