"""The command `watch`: follows posted roots, and challenges or vetoes the one that is wrong."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from chain.deployment import Deployment
from chain.errors import HapticError
from chain.fees import GWEI
from chain.keys import keyfile_address
from chain.messages import checksum
from chain.types import Wei
from chain.verify import bundle_source
from chain.watch import Finding, Verdict, Watcher
from service.cli import plan, shared
from service.cli.plan import MAX_FEE, MaxFee
from service.cli.shared import RPC, DeploymentFile, PasswordFile, RpcUrl
from service.hostile import plain
from service.terminal import out, show_date, show_time, show_wait

STYLES: Final = {
    Verdict.IDLE: "dim", Verdict.RIGHT: "green", Verdict.CHALLENGED: "bold green", Verdict.VETOED: "bold green",
    Verdict.GONE: "green", Verdict.PLANNED: "bold red", Verdict.ALARM: "bold red",
}  # fmt: skip
MEMORY: Final = Path(".haptic/watch")
WITHOUT_KEY: Final = "Whoever proves it with a key of their own (--keyfile) is paid it"


def watch(
    bundle: Annotated[str, typer.Option(envvar="HAPTIC_SERVICE", help="Where the bundles are, as for `haptic verify`: URL of a service, a URL with {epoch}, a folder, or one file beside its elders")] = shared.SERVICE,
    keyfile: Annotated[Path | None, typer.Option(envvar="HAPTIC_KEYFILE", help="Wallet that challenges, and pays the gas; the guardian's also vetoes. Without one, wrong roots are only told")] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once; exit status 1 if a wrong or unchecked root is left waiting")] = False,
    interval: Annotated[int, typer.Option(min=1, max=86_400, help="Seconds between two looks")] = 15,
    memory: Annotated[Path, typer.Option(help="Folder that keeps the last two payout trees, so that who is robbed can be proven robbed even where older bundles are withheld")] = MEMORY,
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT, password_file: PasswordFile = None,
    max_fee: MaxFee = MAX_FEE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing: say what would be sent, and what it costs")] = False,
) -> None:  # fmt: skip
    """Follow posted roots, recompute each, and stop the wrong ones: by a challenge, which is paid the poster's bond.

    What is wrong but cannot be proven to the contract is vetoed with the guardian's wallet, and an alarm without.
    A bundle or a node that cannot be read is an alarm too. Alarms are repeated; it can be started again at any time.
    """
    node, d = shared.connect(rpc, deployment)
    with node:
        if interval >= d.challenge_window:
            raise HapticError(
                f"a look every {interval} s may miss a root, which waits for {d.challenge_window} s: give an --interval "
                f"of at most {max(1, d.challenge_window // 4)}"
            )
        show = shared.read_coin(node, d.payment_token).show
        signer, sender = None, None
        if keyfile is not None and not dry_run:
            signer = plan.payer(shared.open_wallet(keyfile, password_file, d.chain_id), max_fee)
            sender = signer.address
        elif keyfile is not None:
            sender = keyfile_address(keyfile)
        source, limit = bundle_source(bundle), Wei(max_fee * GWEI)
        watcher = Watcher(node, d, source, sender, signer, show=show, memory=memory, max_fee=limit)
        _begin(d, bundle, watcher)
        if not once:
            _follow(watcher, interval)
        found = watcher.look()
        _tell(found)
    raise typer.Exit(0 if found.is_well else 1)


def _follow(watcher: Watcher, interval: int) -> NoReturn:
    """Look again and again; what is well is said once, what is not at every look."""
    said = "", ""
    while True:
        found = watcher.look()
        if (found.said, found.warning) != said or not found.is_well:
            _tell(found)
        said = found.said, found.warning
        time.sleep(interval)


def _begin(d: Deployment, bundle: str, watcher: Watcher) -> None:
    who = "without a key" if watcher.sender is None else f"as {checksum(watcher.sender)}"
    out.print(
        f"Watching the distributor {checksum(d.distributor)} on chain {d.chain_id} {who}, by the bundles of {plain(bundle)}",
        soft_wrap=True,
    )


def _tell(found: Finding) -> None:
    """Print what a look came to, with the time that is left and the money that moved."""
    label = "" if found.verdict in {Verdict.IDLE, Verdict.RIGHT} else f"{found.verdict.upper()}: "
    parts = [f"[{STYLES[found.verdict]}]{label}{plain(found.said)}[/]"]
    if found.warning:
        parts.append(f"[bold yellow]WARNING: {plain(found.warning)}[/]")
    if found.verdict is Verdict.PLANNED and found.reward and not found.cost:
        parts.append(f"The bond is {shared.show_native(found.reward)}. {WITHOUT_KEY}")
    elif found.reward or found.cost:
        would = "would be " if found.verdict is Verdict.PLANNED else ""
        least = " at most" if would else ""
        parts.append(
            f"Gas {would}{shared.show_native(found.cost)}{least}, bond {would}{shared.show_native(found.reward)}"
        )
    if found.missing:
        parts.append(f"The account cannot pay for it: {shared.show_native(found.missing)} are missing")
    if found.pending is not None and not found.is_well:
        left = found.pending.active_at - found.time
        parts.append(
            f"It can be activated in {show_wait(left)}, from {show_date(found.pending.active_at)}"
            if left > 0
            else "It can be activated at any moment"
        )
    if found.transaction is not None:
        parts.append(f"Transaction {found.transaction}")
    out.print(f"{show_time(int(time.time()))} {'. '.join(parts)}", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(rich_help_panel="For anybody who checks")(watch)
