"""An epoch step by step, as its operator takes it by hand: list, commit, close, post, activate, veto, reopen, abandon."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Annotated

import typer
from rich.table import Table
from sqlmodel import Session

from chain import committer, publisher
from chain import ledger as chain_ledger
from chain.errors import HapticError
from chain.ledger import EpochReport
from chain.messages import checksum
from chain.rpc import Rpc
from chain.step import Outcome
from service import corrections, epochs, jobs, logs
from service.cli import plan, shared
from service.cli.plan import MAX_FEE, MaxFee, Move
from service.cli.shared import RPC, DeploymentFile, DryRun, KeyFile, PasswordFile, RpcUrl, Yes
from service.context import Context, build
from service.database import open_database
from service.errors import NotFoundError
from service.ledger import queries
from service.ledger.tables import EpochRow
from service.settings import Settings, load
from service.terminal import out, show_when

EpochNumber = Annotated[int, typer.Option("--epoch", min=0, max=shared.MAX_EPOCH, help="Number of the epoch")]
epoch_app = typer.Typer(
    no_args_is_help=True,
    help="An epoch step by step: list, commit, close, post, activate, veto, reopen, abandon. Settings come from HAPTIC_* variables.",
)


@epoch_app.command("list")
def list_epochs() -> None:
    """Show all epochs: state, judgements, tasks, root, and what is allotted in all up to each."""
    settings = load()
    db = open_database(settings.database)
    table = Table("epoch", "state", "judgements", "tasks", "allotted in all")
    table.add_column("root", overflow="fold")  # whole: it is there to be compared
    with db.read() as session:
        counts, rows = queries.counts(session), list(queries.epochs(session))
        reports = {report.epoch: report for report in chain_ledger.epoch_reports(session)}
    coin = _payment(settings) if reports else None
    for row in rows:
        report, (tasks, judgements, _) = reports.get(row.epoch), counts[row.epoch]
        allotted = coin.show(report.sum) if coin and report else ""
        table.add_row(
            str(row.epoch), _state(row, report), str(judgements), str(tasks), allotted, report.root if report else "",
        )  # fmt: skip
    if table.row_count:
        out.print(table)
        return
    out.print(
        f"No epoch was opened yet, as far as the database in {settings.data_dir} knows. Where the service has another, "
        "HAPTIC_DATA_DIR or HAPTIC_DATABASE_URL must name that one."
    )


def _payment(settings: Settings) -> shared.Coin:
    """Return the payment token, asked of the node: the database knows amounts in its smallest units only."""
    with Rpc(settings.rpc_url) as rpc:
        return shared.read_coin(rpc, settings.load_deployment().payment_token)


def _state(row: EpochRow, report: EpochReport | None) -> str:
    state = report.status if report else "open"
    return state if row.abandoned_at is None else f"{state}, abandoned"


@epoch_app.command("close")
def close(epoch: EpochNumber, dry_run: DryRun = False) -> None:
    """Close an ended epoch: score, allocate, build tree and bundle. With --dry-run only say what it comes to."""
    ctx = _context()
    shared.index_beside(ctx.rpc, ctx.db, ctx.deployment)
    if not dry_run:
        item = jobs.close_epoch(ctx, epoch)
    else:
        with ctx.db.read() as session:
            item = epochs.draft(session, ctx.rpc, ctx.place, epoch)
    if item is None:
        raise HapticError(_unclosed(ctx, epoch))
    tree = item.closed.tree
    out.print(
        f"epoch {epoch}: {len(item.closed.scores)} wallets, {_money(ctx, tree.sum)} in all, "
        f"root {tree.root_hash}, data {item.closed.data_hash}"
    )
    for wallet, value in sorted(item.closed.scores.items(), key=lambda x: -x[1]):
        out.print(f"  {checksum(wallet)}  HapticScore {value:,}")
    out.print(
        "Dry run: nothing was written. It costs nothing; what telling the chain costs says `haptic epoch commit --dry-run`."
        if dry_run
        else "[green]✓[/] closed"
    )


def _money(ctx: Context, units: int) -> str:
    return f"{shared.show_amount(units, ctx.payment.decimals)} {ctx.payment.symbol}"


def _unclosed(ctx: Context, epoch: int) -> str:
    """Return why an epoch cannot be closed yet; NotFoundError where it was not opened."""
    _opened(ctx, epoch)
    end, now = ctx.place.start(epoch + 1), ctx.clock.now()
    if now < end:
        return f"epoch {epoch} cannot be closed yet: it ends at {show_when(end, now)}"
    return f"epoch {epoch} has ended, and the block after its end is not final yet: close it in a moment"


def _opened(ctx: Context, epoch: int) -> EpochRow:
    """Return an epoch; NotFoundError where it was not opened."""
    with ctx.db.read() as session:
        row, newest = queries.epoch_row(session, epoch), queries.newest_epochs(session, 1)
    if row is None:
        last = f"the newest is {newest[0].epoch}" if newest else "none is yet"
        raise NotFoundError(f"epoch {epoch} was not opened ({last})")
    return row


@epoch_app.command("reopen")
def reopen(epoch: EpochNumber, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Take back the results of an epoch that is not active, and of all after it, so that they are computed anew."""
    ctx = _context()
    _check_reopened(ctx, epoch)
    with ctx.db.read() as session:
        last, newest = queries.last_closed(session), queries.newest_epochs(session, 1)
        row = queries.epoch_row(session, epoch)
    if row is None or (row.closed_at is None and row.abandoned_at is None):
        raise HapticError(
            f"epoch {epoch} is not closed: there is nothing to take back; the last closed one is {last}"
        )
    what = {"Epochs": f"{epoch} to {last}", "Kept": "every ranking, receipt and commitment"}
    if newest and newest[0].epoch > epoch:
        what["Note"] = (
            f"epochs {epoch + 1} to {newest[0].epoch} were opened with a price of stake that may follow no more: they are "
            "scored by the one that does, and `haptic verify` says so"
        )
    if plan.agree("Take back scores, payouts and reports", what, None, yes=yes, dry_run=dry_run):
        # While the question stood, the service may have posted it.
        _check_reopened(ctx, epoch)
        with ctx.db.write() as session:
            corrections.reopen(session, ctx.place, epoch)
            session.commit()
        out.print("[green]✓[/] the running service, or `haptic epoch close`, computes them anew")


def _check_reopened(ctx: Context, epoch: int) -> None:
    """Raise where a root of the epoch pays or waits on the chain."""
    state = publisher.chain_state(ctx.rpc, ctx.deployment)
    if epoch < state.next_epoch:
        raise HapticError(
            f"epoch {epoch} pays already, as all below {state.next_epoch} do: it stays as it is"
        )
    if epoch == state.pending_epoch:
        raise HapticError(f"a root of epoch {epoch} waits on the chain: the guardian's veto comes first")


@epoch_app.command("abandon")
def abandon(epoch: EpochNumber, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Give up an ended epoch whose secret is lost, or that a thief opened or closed: no ranking of it counts.

    Revenue that named no run is carried on. Everybody sees it on the chain, and contributors hold receipts of what they
    ranked. Until the chain knows it, `haptic epoch reopen` takes it back.
    """
    ctx = _context(secret_is_lost=True)
    known = committer.epoch_record(ctx.rpc, ctx.deployment, epoch)
    with ctx.db.read() as session:
        corrections.check_abandoned(session, ctx.place, epoch, known, ctx.clock.now())
        count = queries.judgement_count(session, epoch)
    rows = {
        "Lost": f"{count} rankings, which earn nothing",
        "Revenue": "what named no run is carried on to the next epoch",
        "After": "the chain is told by a transaction, whose cost `haptic epoch commit --dry-run` names",
    }
    if not plan.agree(f"Give up epoch {epoch}", rows, None, yes=yes, dry_run=dry_run):
        return
    # While the question stood, the service may have told the chain what it had come to.
    _check_reopened(ctx, epoch)
    known = committer.epoch_record(ctx.rpc, ctx.deployment, epoch)
    with ctx.db.write() as session:
        corrections.abandon(session, ctx.place, epoch, known, ctx.clock.now())
        session.commit()
    out.print(
        f"[green]✓[/] epoch {epoch} is given up; the running service, or `haptic epoch close` and `haptic epoch commit`, "
        "closes it and tells the chain"
    )


@epoch_app.command("commit")
def commit(epoch: EpochNumber, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Tell the chain what an epoch was opened with or, once it is closed, what came of it; the service does it too."""
    # What is committed to is known without the secret; a close that needs it is refused by the chain.
    ctx = _context(secret_is_lost=True)
    row = _unwritten(ctx).get(epoch)
    if row is None:
        out.print(f"epoch {epoch}: {_written(ctx, epoch)}")
        return
    write = jobs.write_opening if row.committed_at is None else jobs.write_close
    found = write(ctx, row, dry_run=True)
    if found.done or _agreed(found, {}, yes=yes, dry_run=dry_run):
        out.print(f"[green]✓[/] {write(ctx, row).what}")


def _written(ctx: Context, epoch: int) -> str:
    """Return what the chain has of an epoch of which nothing is left to write; NotFoundError where it was not opened."""
    if _opened(ctx, epoch).closed_at is None:
        return "the chain has its opening already; its close is written once it is closed"
    return "the chain has it already, opening and close"


def _unwritten(ctx: Context) -> dict[int, EpochRow]:
    """Return the epochs of which the chain does not know the opening, or the close."""
    with ctx.db.read() as session:
        return {row.epoch: row for row in queries.unwritten_epochs(session)}


@epoch_app.command("post")
def post(
    epoch: EpochNumber,
    again: Annotated[
        bool, typer.Option("--again", help="Post once more what the guardian has vetoed")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Post a closed epoch's root to the distributor; posting it again does nothing."""
    ctx, row = _posting(epoch)
    if epoch in _unwritten(ctx):
        raise HapticError(
            f"epoch {epoch} is not closed on the chain yet: `haptic epoch commit --epoch {epoch}` comes first"
        )

    def step(session: Session, *, dry: bool) -> Outcome:
        report = publisher.report_of(row)
        return publisher.publish(
            ctx.rpc, session, ctx.deployment, ctx.payer(), report, again=again, dry_run=dry
        )

    rows = {"Allotted": f"{_money(ctx, row.sum)} in all, cumulative over all epochs so far"}
    _on_chain(ctx, step, rows, dry_run=dry_run, yes=yes)


@epoch_app.command("activate")
def activate(epoch: EpochNumber, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Activate a posted root after its window, so that it pays."""
    ctx, _ = _posting(epoch)

    def step(session: Session, *, dry: bool) -> Outcome:
        return publisher.activate(ctx.rpc, session, ctx.deployment, ctx.payer(), epoch, dry_run=dry)

    _on_chain(ctx, step, {}, dry_run=dry_run, yes=yes)


@epoch_app.command("veto")
def veto(
    epoch: EpochNumber, rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT,
    keyfile: KeyFile = shared.KEYFILE, password_file: PasswordFile = None, max_fee: MaxFee = MAX_FEE,
    dry_run: DryRun = False, yes: Yes = False,
) -> None:  # fmt: skip
    """Throw out a pending root, as the guardian; needs a node and the guardian's wallet, nothing of the operator's."""
    node, d = shared.connect(rpc, deployment)
    state = publisher.chain_state(node, d)
    if state.pending_epoch != epoch:
        waits = "nothing" if state.pending_epoch is None else f"the root of epoch {state.pending_epoch}"
        raise HapticError(f"no root of epoch {epoch} is pending: {waits} is")
    guardian = plan.payer(shared.open_wallet(keyfile, password_file, d.chain_id), max_fee)
    rows = {
        "Root": state.pending_root,
        "After": "it can be posted again; its window starts anew",
    }
    # By its name, so that an honest root that took its place meanwhile is left alone.
    moves = [Move(d.revenue_distributor(), "veto", (state.pending_root,), f"epoch {epoch} vetoed")]
    plan.run(node, guardian, f"Veto epoch {epoch}", rows, moves, yes=yes, dry_run=dry_run)


def _posting(epoch: int) -> tuple[Context, EpochReport]:
    """Return the context and the report of a closed epoch."""
    ctx = _context()
    with ctx.db.read() as session:
        row = chain_ledger.epoch_report(session, epoch)
    if row is None:
        raise NotFoundError(f"epoch {epoch} is not closed; `haptic epoch close --epoch {epoch}` first")
    return ctx, row


def _on_chain(
    ctx: Context, step: Callable[..., Outcome], rows: Mapping[str, str], *, dry_run: bool, yes: bool
) -> None:
    """Say what a step costs, ask, do it; the database is not locked while a person or the chain is waited for."""
    with ctx.db.stepwise() as session:
        found = step(session, dry=True)
        if found.done:
            out.print(f"{found.what}: the chain has it already")
        elif _agreed(found, rows, yes=yes, dry_run=dry_run):
            out.print(f"[green]✓[/] {step(session, dry=False).what}")


def _agreed(found: Outcome, rows: Mapping[str, str], *, yes: bool, dry_run: bool) -> bool:
    """Show what a step was found to do and to cost, and ask."""
    quoted = found.quote
    return plan.agree(found.what, rows, None if quoted is None else lambda: quoted, yes=yes, dry_run=dry_run)


def _context(*, secret_is_lost: bool = False) -> Context:
    """Return what the settings give, with only warnings in the log: the command says itself what it does."""
    settings = load()
    logs.configure(settings.log, logging.WARNING)
    return build(settings, secret_is_lost=secret_is_lost)
