"""Commands for operators: demo, devnet, deploy, serve, worker, epoch; and verify, for anybody."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from chain.deploy import Terms, cost_of
from chain.deploy import deploy as deploy_contracts
from chain.deployment import write_deployment
from chain.errors import HapticError
from chain.messages import Receipt, checksum, parse_address
from chain.receipts import Finding, Kept, Unread, read_promises
from chain.rpc import Rpc
from chain.verify import Checked, NothingPostedError, Verified, bundle_source
from chain.verify import verify as verify_epochs
from service import logs
from service.cli import plan, shared
from service.cli.epoch import epoch_app
from service.cli.plan import MAX_FEE, MaxFee
from service.cli.shared import RPC, DeploymentFile, DryRun, KeyFile, PasswordFile, RpcUrl, Yes
from service.cluster import from_settings
from service.context import build
from service.database import open_database
from service.hostile import plain
from service.ledger.work import left_to_cluster
from service.settings import load
from service.terminal import out, show_date, show_span, show_wait, show_when
from service.training import ask_bootstrap, requeue
from service.worker import STALE_S, Worker

log = logging.getLogger(__name__)
NOTHING_CHECKED = 2
"""Exit status of a verification that had nothing to verify; a script must not take it for OK."""
MAX_LEAD_S = 366 * 86_400
"""Furthest that epoch 0 may lie ahead; milliseconds given for seconds are further."""
MAX_TIME = 2**64 - 1
MAX_EPOCH_LENGTH_S, MAX_WINDOW_S, MAX_COOLDOWN_S = 365 * 86_400, 30 * 86_400, 60 * 86_400
"""What the contracts take."""


def demo(
    rankings: Annotated[
        Path | None,
        typer.Option(help="Replay judgements of real people from this JSONL file, one wallet per annotator"),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where models, bundles, database and logs go")] = Path(
        ".haptic/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the simulated judges")] = 1,
) -> None:
    """Run the whole loop on a devnet of its own: stake, rank, retrain, pay out, claim, verify (a few minutes)."""
    from service.demo import play, replay

    if rankings is None:
        play.run(folder, seed)
    else:
        replay.run(folder, rankings)


def devnet(
    port: Annotated[int, typer.Option(min=1, max=shared.MAX_PORT, help="Port of the service")] = 8000,
    rpc_port: Annotated[int, typer.Option(min=1, max=shared.MAX_PORT, help="Port of the chain")] = 8545,
    folder: Annotated[
        Path,
        typer.Option(help="Where everything goes; what an earlier devnet left there is cleared at the start"),
    ] = Path(".haptic/devnet"),
    epoch_length: Annotated[int, typer.Option(min=60, max=MAX_COOLDOWN_S, help="Seconds of an epoch")] = 600,
) -> None:
    """Start a chain, contracts, wallets with tokens, the service and the worker, and leave them running until Ctrl-C.

    Its chain ends with it: it cannot be started again where it was, and the next one clears its folder.
    """
    from service.demo import stay

    stay.run(folder, port, rpc_port, epoch_length)


def deploy(
    genesis: Annotated[int, typer.Option(min=0, max=MAX_TIME, help="Start of epoch 0, Unix seconds of block time")],
    epoch_length: Annotated[int, typer.Option(min=1, max=MAX_EPOCH_LENGTH_S, help="Seconds of an epoch; a week is 604800")],
    challenge_window: Annotated[int, typer.Option(min=1, max=MAX_WINDOW_S, help="Seconds between a posted root and its activation")],
    cooldown: Annotated[int, typer.Option(min=1, max=MAX_COOLDOWN_S, help="Seconds that unstaked tokens wait; at least an epoch")],
    poster: Annotated[str, typer.Option(help="Address that posts roots")],
    guardian: Annotated[str, typer.Option(help="Address that can veto a pending root, and pause claims for a week")],
    bond: Annotated[str, typer.Option(help="Native coin that has to lie in the distributor for a post, and is paid to who proves the root wrong")] = "1",
    payment_token: Annotated[str, typer.Option(help="Token that revenue is paid in; empty only on a devnet")] = "",
    token: Annotated[str, typer.Option(help="Token that is staked; empty: deploy HapticToken, all of it yours")] = "",
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT, keyfile: KeyFile = shared.KEYFILE,
    password_file: PasswordFile = None, max_fee: MaxFee = MAX_FEE, yes: Yes = False, dry_run: DryRun = False,
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
    poster_address, guardian_address = parse_address(poster, "poster"), parse_address(guardian, "guardian")
    staked = parse_address(token, "token") if token else None
    paid = parse_address(payment_token, "payment_token") if payment_token else None
    node = Rpc(rpc)
    now = node.block("latest").timestamp
    if not -epoch_length <= genesis - now <= MAX_LEAD_S:
        raise HapticError(
            f"genesis {genesis} is far from now, {now} by the chain's clock ({show_date(now)}): give Unix seconds of a time soon"
        )
    at_stake = shared.parse_amount(bond, 18)
    signer = plan.payer(shared.open_wallet(keyfile, password_file, node.chain_id()), max_fee)
    terms = Terms(
        genesis=genesis, epoch_length=epoch_length, challenge_window=challenge_window, cooldown=cooldown, bond=at_stake,
        token=staked, payment_token=paid, poster=poster_address, guardian=guardian_address,
    )  # fmt: skip
    rows = {
        "Chain": str(node.chain_id()), "Owner": checksum(signer.address), "Poster": poster, "Guardian": guardian,
        "Epochs": f"each {show_span(epoch_length)}, the first from {show_when(genesis, now)}",
        "Window": show_span(challenge_window), "Cooldown": show_span(cooldown),
        "Bond": f"{bond} of the chain's own coin, which `haptic bond` adds later",
        "Staked token": token or "a new HapticToken", "Payment token": payment_token or "a new DevnetDollar",
    }  # fmt: skip
    if not plan.agree(
        "Deploy Haptic", rows, lambda: cost_of(node, signer, **terms), yes=yes, dry_run=dry_run
    ):
        return
    deployment.parent.mkdir(parents=True, exist_ok=True)
    found = deploy_contracts(node, signer, echo=out.print, **terms)
    write_deployment(deployment, found)
    out.print(f"[green]✓[/] addresses written to {deployment}")
    out.print(f"Nothing can be posted before its bond is there: [bold]haptic bond {bond}[/]")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (HAPTIC_HOST)")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=shared.MAX_PORT, help="Port (HAPTIC_PORT); 0: any that is free")
    ] = None,
    clock: Annotated[bool, typer.Option(help="Run the jobs too: index, payout, retrain, arena")] = True,
) -> None:
    """Serve the API and run the clock. Settings come from HAPTIC_* variables; see README."""
    from service import server
    from service.app import create_app

    settings = load(host=host, port=port)
    logs.configure(settings.log)
    shared.check_port(settings.host, settings.port)
    if clock:
        settings.check_arena()
    ctx = build(settings)
    app = create_app(ctx, clock=clock)
    logging.getLogger(__name__).info(
        "serving http://%s:%s for chain %s at %s, data in %s",
        settings.host, settings.port, ctx.deployment.chain_id, ctx.rpc.name, settings.data_dir,
    )  # fmt: skip
    server.run(app, settings.host, settings.port)


def worker(
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="First make a small model from scratch, if there is none")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Stop when no job waits")] = False,
    retry: Annotated[
        str,
        typer.Option(
            help="First put a failed job in the queue again, such as retrain/1 (see /v1/jobs), with the present "
            "HAPTIC_TRAINER_CONFIG, or where that is not set with its own: where it is another, the training begins "
            "anew. What a cluster may still have is followed with its own; without HAPTIC_RAY_ADDRESS, what a cluster "
            "had and has no more is forgotten there, and what of it did not fail goes on as it was"
        ),
    ] = "",
) -> None:
    """Run training jobs as they come; start as many workers as you have machines for."""
    settings = load()
    settings.check_trainer()
    logs.configure(settings.log)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    db = open_database(settings.database)
    cluster = from_settings(settings)
    with db.write() as session:
        left = [] if cluster else left_to_cluster(session, time.time(), STALE_S)
        again = {retry} if retry else set()
        if bootstrap and ask_bootstrap(session, settings).state == "failed":
            again.add("bootstrap")
        said = {name: requeue(session, settings, name, left) for name in sorted(again)}
        session.commit()
    for name, how in said.items():
        log.info("job %s is in the queue again: %s", name, how)
    for name in left:
        if name not in again:
            log.warning(
                "job %s may be running on a Ray cluster, and only a worker with HAPTIC_RAY_ADDRESS takes it; if the "
                "cluster is gone for good: haptic worker --retry %s", name, name,
            )  # fmt: skip
    if cluster:
        cluster.check()
    found = Worker(db, settings.folder("logs"), settings.max_attempts, cluster=cluster)
    where = f"the Ray cluster at {cluster.address}" if cluster else "this machine"
    log.info("the worker waits for jobs, and trains on %s; the progress of each is in %s", where, found.logs)
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
    epoch: Annotated[int | None, typer.Option(min=0, max=shared.MAX_EPOCH, help="Verify epochs 0 to this one; default: all that are posted")] = None,
    receipts: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="What `haptic rank` kept: is each ranking and each hand-out in the log as it was promised?")] = None,
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT,
) -> None:  # fmt: skip
    """Recompute every score and payout from the chain and the bundles; trusts nothing of the operator's.

    Exit status: 0 when all of it is right, 1 when something differs or cannot be read, or a ranking or hand-out is not in
    the log as it was promised, 2 when nothing was checked because no epoch has been posted yet.
    """
    kept, unread = _read_receipts(receipts)
    for line in unread:
        out.print(f"[bold red]line {line.line} of the receipts {plain(line.fault)}[/]", soft_wrap=True)
    node, d = shared.connect(rpc, deployment)
    coin = shared.read_coin(node, d.payment_token)
    try:
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
            bar = bars.add_task("reading the chain", total=1.0)
            found = verify_epochs(
                node, d, bundle_source(bundle), epoch,
                lambda what, part: bars.update(bar, description=what, completed=part), kept,
            )  # fmt: skip
    except NothingPostedError:
        left = d.epoch_end(0) - node.block("latest").timestamp
        when = f"ends in {show_wait(left)}" if left > 0 else "has ended"
        out.print(
            f"Nothing to verify yet: no epoch has been posted. Epoch 0 {when}; its root is posted soon after."
        )
        raise typer.Exit(1 if unread else NOTHING_CHECKED) from None
    for e in found:
        state = "active" if e.active else "posted"
        carried = f", {coin.show(e.carried)} carried to the next epoch" if e.carried else ""
        out.print(
            f"epoch {e.epoch}: {e.rankings} rankings, {e.wallets} wallets; by then {e.paid_to} are paid "
            f"{coin.show(e.sum)} in all{carried}, {state}"
        )
        out.print(f"  checked: {_checked(e, receipts=bool(kept))}", soft_wrap=True)
        for note in e.notes:
            out.print(f"[yellow]note:[/] {plain(note)}", soft_wrap=True)
    right = _show_faults(kept, found)
    if unread or not right:
        raise typer.Exit(1)
    out.print("[bold green]verify: OK[/]")


def _read_receipts(path: Path | None) -> tuple[list[Kept], list[Unread]]:
    """Return the promises in a file, and the lines that hold none; nothing without a file."""
    if path is None:
        return [], []
    # Only a newline ends a line, and bytes that are no text spoil no other line than theirs.
    found = list(read_promises(path.read_text(encoding="utf-8", errors="replace").split("\n")))
    return [k for k in found if isinstance(k, Kept)], [k for k in found if isinstance(k, Unread)]


def _checked(e: Verified, *, receipts: bool) -> str:
    """Return in words how much of what was held against what."""
    c = e.checked
    parts = [
        f"signatures {c.signatures:,} (of contract wallets, by their code {c.contract_signatures:,})",
        f"hand-outs replayed {c.handouts:,}, skips {c.skips:,}",
        _sealed(c),
    ]
    if receipts:
        rankings = [f for f in e.receipts if isinstance(f.kept.promise, Receipt)]
        handouts = [f for f in e.receipts if not isinstance(f.kept.promise, Receipt)]
        parts.append(f"receipts {len(rankings):,}, in the log as they promise {_right(rankings)}")
        parts.append(f"hand-outs promised {len(handouts):,}, in the log so {_right(handouts)}")
    return "; ".join(parts)


def _right(found: Sequence[Finding]) -> str:
    return f"{sum(not f.fault for f in found):,}"


def _sealed(c: Checked) -> str:
    """Return in words what the operator was held to on the chain."""
    if c.sealed is None:
        return "nothing sealed, for it was given up"
    if c.sealed.first_handout is None:
        before = "and nobody was asked"
    else:
        before = f"before the first hand-out ({c.sealed.first_handout - c.sealed.opened_at:,} s)"
    return (
        f"tasks {c.tasks:,} and gold {c.gold:,} committed to {before}; "
        f"bundle {c.sealed.data_hash[:10]}… anchored at the close"
    )


def _show_faults(kept: Sequence[Kept], found: Sequence[Verified]) -> bool:
    """Say of each promise that the log does not keep what is wrong; return whether there is none."""
    findings = [f for e in found for f in e.receipts]
    for finding in (f for f in findings if f.fault):
        kind = "receipt" if isinstance(finding.kept.promise, Receipt) else "hand-out"
        line = f"{kind} in line {finding.kept.line}, epoch {finding.kept.epoch}: "
        out.print(f"[bold red]{line}{plain(finding.fault)}[/]", soft_wrap=True)
    if waiting := len(kept) - len(findings):
        out.print(
            f"[yellow]note:[/] {waiting} receipts and hand-outs are of epochs that were not verified here: not posted yet?"
        )
    return not any(f.fault for f in findings)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    panel = "For operators"
    for command in (demo, devnet, deploy, serve, worker):
        app.command(rich_help_panel=panel)(command)
    app.command(rich_help_panel="For anybody who checks")(verify)
    app.add_typer(epoch_app, name="epoch", rich_help_panel=panel)
