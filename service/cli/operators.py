"""Commands for operators: demo, devnet, deploy, serve, worker, epoch, verify."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from eth_account.signers.local import LocalAccount
from rich.table import Table
from sqlmodel import Session

from chain import ledger as chain_ledger
from chain import publisher
from chain.deploy import deploy as deploy_contracts
from chain.deployment import write_deployment
from chain.errors import HapticError
from chain.indexer import index
from chain.ledger import EpochReport
from chain.messages import checksum, parse_address
from chain.rpc import Rpc
from chain.transactions import transact
from chain.verify import NothingPostedError, bundle_source
from chain.verify import verify as verify_epochs
from service import epochs, jobs
from service.cli import shared
from service.cli.shared import RPC, DeploymentFile, DryRun, KeyFile, PasswordFile, RpcUrl, Yes
from service.context import Context, build
from service.database import open_database
from service.errors import NotFoundError
from service.ledger import queries
from service.settings import Settings, load
from service.terminal import out, show_wait
from service.training import ask_bootstrap, requeue
from service.worker import Worker

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
epoch_app = typer.Typer(
    no_args_is_help=True,
    help="An epoch step by step: list, close, post, activate, veto, reopen. Settings come from HAPTIC_* variables.",
)


EpochNumber = Annotated[int, typer.Option("--epoch", min=0, help="Number of the epoch")]
NOTHING_CHECKED = 2
"""Exit status of a verification that had nothing to verify; a script must not take it for OK."""
MAX_LEAD_S = 366 * 86_400
"""Furthest that epoch 0 may lie ahead; milliseconds given for seconds are further."""


def demo(
    rankings: Annotated[
        Path | None,
        typer.Option(help="Replay judgements of real people from this JSONL file, one wallet per annotator"),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where models, bundles, database and logs go")] = Path(
        ".haptic/demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the simulated judges")] = 1,
) -> None:
    """Run the whole loop on a devnet of its own: stake, rank, retrain, pay out, claim, verify (a few minutes)."""
    from service.demo import play, replay

    if rankings is None:
        play.run(folder, seed)
    else:
        replay.run(folder, rankings)


def devnet(
    port: Annotated[int, typer.Option(help="Port of the service")] = 8000,
    rpc_port: Annotated[int, typer.Option(help="Port of the chain")] = 8545,
    folder: Annotated[Path, typer.Option(help="Where everything goes; cleared at the start")] = Path(
        ".haptic/devnet"
    ),
    epoch_length: Annotated[int, typer.Option(help="Seconds of an epoch")] = 600,
) -> None:
    """Start a chain, contracts, wallets with tokens, the service and the worker, and leave them running until Ctrl-C."""
    from service.demo import stay

    stay.run(folder, port, rpc_port, epoch_length)


def deploy(
    genesis: Annotated[int, typer.Option(help="Start of epoch 0, Unix seconds of block time")],
    epoch_length: Annotated[int, typer.Option(help="Seconds of an epoch; a week is 604800")],
    challenge_window: Annotated[int, typer.Option(help="Seconds between a posted root and its activation")],
    cooldown: Annotated[int, typer.Option(help="Seconds that unstaked tokens wait; at least an epoch")],
    poster: Annotated[str, typer.Option(help="Address that posts roots")],
    guardian: Annotated[str, typer.Option(help="Address that can veto a pending root")],
    payment_token: Annotated[str, typer.Option(help="Token that revenue is paid in; empty only on a devnet")] = "",
    token: Annotated[str, typer.Option(help="Token that is staked; empty: deploy HapticToken, all of it yours")] = "",
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT, keyfile: KeyFile = shared.KEYFILE,
    password_file: PasswordFile = None, yes: Yes = False, dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Deploy the contracts and write their addresses to --deployment. Genesis and length can never be changed."""
    if challenge_window >= epoch_length:
        raise HapticError(
            f"challenge window {challenge_window} s is not shorter than an epoch ({epoch_length} s): only one root can "
            "wait, so payouts would lag further with every epoch"
        )
    if cooldown < epoch_length:
        raise HapticError(
            f"cooldown {cooldown} s is shorter than an epoch ({epoch_length} s): stake could leave before it is judged"
        )
    if deployment.exists():
        raise HapticError(f"{deployment} exists already: move it away, or choose another --deployment")
    roles = {"poster": parse_address(poster, "poster"), "guardian": parse_address(guardian, "guardian")}
    staked = parse_address(token, "token") if token else None
    paid = parse_address(payment_token, "payment_token") if payment_token else None
    node = Rpc(rpc)
    now = node.block("latest").timestamp
    if not -epoch_length <= genesis - now <= MAX_LEAD_S:
        raise HapticError(
            f"genesis {genesis} is far from now ({now} by the chain's clock): give Unix seconds of a time soon"
        )
    account = shared.open_wallet(keyfile, password_file)
    deployment.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        "Chain": str(node.chain_id()), "Owner": account.address, "Poster": poster, "Guardian": guardian,
        "Epochs": f"{epoch_length} s from {genesis}", "Window": f"{challenge_window} s", "Cooldown": f"{cooldown} s",
        "Staked token": token or "a new HapticToken", "Payment token": payment_token or "a new DevnetDollar",
    }  # fmt: skip
    if not shared.confirm("Deploy Haptic", rows, yes=yes, dry_run=dry_run):
        return
    found = deploy_contracts(
        node, account, genesis=genesis, epoch_length=epoch_length, challenge_window=challenge_window, cooldown=cooldown,
        echo=out.print, token=staked, payment_token=paid, **roles,
    )  # fmt: skip
    write_deployment(deployment, found)
    out.print(f"[green]✓[/] addresses written to {deployment}")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (HAPTIC_HOST)")] = None,
    port: Annotated[int | None, typer.Option(help="Port (HAPTIC_PORT)")] = None,
    clock: Annotated[bool, typer.Option(help="Run the jobs too: index, payout, retrain, arena")] = True,
) -> None:
    """Serve the API and run the clock. Settings come from HAPTIC_* variables; see README."""
    import uvicorn

    from service.app import create_app

    settings = load(host=host, port=port)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    for chatty in ("httpx", "apscheduler", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    shared.check_port(settings.host, settings.port)
    app = create_app(build(settings), clock=clock)
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning")


def worker(
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="First make a small model from scratch, if there is none")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Stop when no job waits")] = False,
    retry: Annotated[
        str, typer.Option(help="First put a failed job in the queue again, such as retrain/1; see /v1/jobs")
    ] = "",
) -> None:
    """Run training jobs as they come; start as many workers as you have machines for."""
    settings = load()
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    db = open_database(settings.database)
    with db.write() as session:
        if bootstrap and ask_bootstrap(session, settings).state == "failed":
            requeue(session, "bootstrap")
        if retry:
            requeue(session, retry)
        session.commit()
    found = Worker(db, settings.folder("logs"), settings.max_attempts)
    if once:
        while found.run_one():
            pass
        return
    stop = threading.Event()
    try:
        found.run_forever(stop)
    finally:
        stop.set()


def verify(
    bundle: Annotated[str, typer.Option(envvar="HAPTIC_SERVICE", help="URL of a service, a URL with {epoch}, a folder of bundles, or one bundle file beside its elders")] = shared.SERVICE,
    epoch: Annotated[int | None, typer.Option(min=0, help="Verify epochs 0 to this one; default: all that are posted")] = None,
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT,
) -> None:  # fmt: skip
    """Recompute every score and payout from the chain and the bundles; trusts nothing of the operator's.

    Exit status: 0 when all of it is right, 1 when something differs or cannot be read, 2 when nothing was checked
    because no epoch has been posted yet.
    """
    node, d = shared.connect(rpc, deployment)
    coin = shared.read_coin(node, d.payment_token)
    try:
        with out.status("reading the chain") as status:
            found = verify_epochs(node, d, bundle_source(bundle), epoch, status.update)
    except NothingPostedError:
        left = d.epoch_end(0) - node.block("latest").timestamp
        when = f"ends in {show_wait(left)}" if left > 0 else "has ended"
        out.print(
            f"Nothing to verify yet: no epoch has been posted. Epoch 0 {when}; its root is posted soon after."
        )
        raise typer.Exit(NOTHING_CHECKED) from None
    for e in found:
        state = "active" if e.active else "posted"
        carried = f", {coin.show(e.carried)} carried to the next epoch" if e.carried else ""
        out.print(
            f"epoch {e.epoch}: {e.rankings} rankings, {e.wallets} wallets, {e.paid_to} paid, "
            f"{coin.show(e.sum)} in all{carried}, {state}"
        )
    out.print("[bold green]verify: OK[/]")


def _context(settings: Settings) -> Context:
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    return build(settings)


@epoch_app.command("list")
def list_epochs() -> None:
    """Show all epochs: judgements, state, root, sum."""
    settings = load()
    db = open_database(settings.database)
    table = Table("epoch", "state", "judgements", "tasks", "sum", "root")
    with db.read() as session:
        for row in queries.epochs(session):
            report = chain_ledger.epoch_report(session, row.epoch)
            table.add_row(
                str(row.epoch), report.status if report else "open", str(queries.judgement_count(session, row.epoch)),
                str(queries.task_count(session, row.epoch)), str(report.sum) if report else "", report.root if report else "",
            )  # fmt: skip
    out.print(table)


@epoch_app.command("close")
def close(epoch: EpochNumber, dry_run: DryRun = False) -> None:
    """Close an ended epoch: score, allocate, build tree and bundle. With --dry-run only say what it comes to."""
    ctx = _context(load())
    index(ctx.rpc, ctx.db.write, ctx.deployment)
    if not dry_run:
        item = jobs.close_epoch(ctx, epoch)
    else:
        with ctx.db.read() as session:
            item = epochs.draft(session, ctx.rpc, ctx.place, epoch)
    if item is None:
        raise HapticError(
            f"epoch {epoch} cannot be closed: it was not opened, or the block after its end is not finalized yet"
        )
    tree = item.closed.tree
    out.print(
        f"epoch {epoch}: {len(item.closed.scores)} wallets, sum {tree.sum}, root {tree.root_hash}, data {item.closed.data_hash}"
    )
    for wallet, value in sorted(item.closed.scores.items(), key=lambda x: -x[1]):
        out.print(f"  {checksum(wallet)}  HapticScore {value:,}")
    out.print("Dry run: nothing was written." if dry_run else "[green]✓[/] closed")


@epoch_app.command("reopen")
def reopen(epoch: EpochNumber, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Take back the results of an epoch that is not active, and of all after it, so that they are computed anew."""
    ctx = _context(load())
    state = publisher.chain_state(ctx.rpc, ctx.deployment)
    if epoch < state.next_epoch or state.pending_epoch is not None:
        waits = "none" if state.pending_epoch is None else str(state.pending_epoch)
        raise HapticError(
            f"epoch {epoch} cannot be reopened: epochs below {state.next_epoch} pay already, and the pending one "
            f"is {waits}; the guardian's veto comes first"
        )
    with ctx.db.read() as session:
        last = queries.last_closed(session)
    what = {"Epochs": f"{epoch} to {last}", "Kept": "every ranking, receipt and commitment"}
    if shared.confirm("Take back scores, payouts and reports", what, yes=yes, dry_run=dry_run):
        with ctx.db.write() as session:
            epochs.reopen(session, epoch)
            session.commit()
        out.print("[green]✓[/] the running service, or `haptic epoch close`, computes them anew")


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

    def step(session: Session, *, dry: bool) -> publisher.Outcome:
        report = publisher.report_of(row)
        return publisher.publish(
            ctx.rpc, session, ctx.deployment, _poster(ctx), report, again=again, dry_run=dry
        )

    _on_chain(ctx, step, dry_run=dry_run, yes=yes)


@epoch_app.command("activate")
def activate(epoch: EpochNumber, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Activate a posted root after its window, so that it pays."""
    ctx, _ = _posting(epoch)

    def step(session: Session, *, dry: bool) -> publisher.Outcome:
        return publisher.activate(ctx.rpc, session, ctx.deployment, _poster(ctx), epoch, dry_run=dry)

    _on_chain(ctx, step, dry_run=dry_run, yes=yes)


@epoch_app.command("veto")
def veto(
    epoch: EpochNumber, rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT,
    keyfile: KeyFile = shared.KEYFILE, password_file: PasswordFile = None, dry_run: DryRun = False, yes: Yes = False,
) -> None:  # fmt: skip
    """Throw out a pending root, as the guardian; needs a node and the guardian's wallet, nothing of the operator's."""
    node, d = shared.connect(rpc, deployment)
    state = publisher.chain_state(node, d)
    if state.pending_epoch != epoch:
        raise HapticError(f"no root of epoch {epoch} is pending; the pending epoch is {state.pending_epoch}")
    guardian = shared.open_wallet(keyfile, password_file)
    rows = {
        "Root": state.pending_root,
        "After": "it can be posted again; its window starts anew",
    }
    if shared.confirm(f"Veto epoch {epoch}", rows, yes=yes, dry_run=dry_run):
        shared.print_transaction(
            transact(node, guardian, d.revenue_distributor(), "veto"), f"epoch {epoch} vetoed"
        )


def _posting(epoch: int) -> tuple[Context, EpochReport]:
    """Return the context and the report of a closed epoch."""
    ctx = _context(load())
    with ctx.db.read() as session:
        row = chain_ledger.epoch_report(session, epoch)
    if row is None:
        raise NotFoundError(f"epoch {epoch} is not closed; `haptic epoch close --epoch {epoch}` first")
    return ctx, row


def _poster(ctx: Context) -> LocalAccount:
    if ctx.poster is None:
        raise HapticError("this needs the poster's key: set HAPTIC_POSTER_KEYFILE")
    return ctx.poster


def _on_chain(ctx: Context, step: Callable[..., publisher.Outcome], *, dry_run: bool, yes: bool) -> None:
    """Say what a step costs, ask, do it; the database is not locked while a person or the chain is waited for."""
    with ctx.db.stepwise() as session:
        plan = step(session, dry=True)
        if plan.done:
            out.print(f"{plan.what}: the chain has it already")
            return
        cost = {"Gas": str(plan.gas), "Cost at most": f"{plan.cost} wei"}
        if shared.confirm(plan.what, cost, yes=yes, dry_run=dry_run):
            out.print(f"[green]✓[/] {step(session, dry=False).what}")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    panel = "For operators"
    for command in (demo, devnet, deploy, serve, worker, verify):
        app.command(rich_help_panel=panel)(command)
    app.add_typer(epoch_app, name="epoch", rich_help_panel=panel)
