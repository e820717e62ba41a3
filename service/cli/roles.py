"""What the contracts' owner and guardian do: with a wallet and a node, and nothing of the operator's."""

from __future__ import annotations

from typing import Annotated

import typer

from chain.contracts import call
from chain.errors import HapticError
from chain.messages import checksum
from service.cli import plan, shared
from service.cli.plan import MAX_FEE, MaxFee, Move
from service.cli.shared import KEYFILE, RPC, DeploymentFile, DryRun, KeyFile, PasswordFile, RpcUrl, Yes
from service.terminal import out, show_date


def bond(
    amount: Annotated[str, typer.Argument(help="How much of the chain's own coin, such as 1.5; nothing: only show")] = "",
    take_back: Annotated[bool, typer.Option("--take-back", help="Take it out again, as the owner, while no root is pending")] = False,
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT, keyfile: KeyFile = KEYFILE,
    password_file: PasswordFile = None, max_fee: MaxFee = MAX_FEE, yes: Yes = False, dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Put up the bond that answers for posted roots: whoever proves one wrong is paid it, and only the owner can take it back."""
    node, d = shared.connect(rpc, deployment)
    distributor = d.revenue_distributor()
    held, needed = (int(call(node, distributor, name)) for name in ("bond", "bondRequired"))
    said = f"{shared.show_native(held)} in the distributor; a post needs {shared.show_native(needed)}"
    if not amount:
        if take_back:
            raise HapticError(
                f"how much is to be taken back? {said}; for example `haptic bond 0.5 --take-back`"
            )
        out.print(said)
        return
    units = shared.parse_amount(amount, shared.NATIVE_DECIMALS)
    signer = plan.payer(shared.open_wallet(keyfile, password_file, d.chain_id), max_fee)
    rows = {
        "Bond now": said,
        "Wallet": checksum(signer.address),
        "Note": "only the contracts' owner can take bond back",
    }
    coin = shared.show_native(units)
    if take_back:
        if units > held:
            raise HapticError(f"{said}: {coin} cannot be taken out")
        title, done = f"Take back {coin} of the bond", f"{coin} of the bond taken back"
        moves = [Move(distributor, "withdrawBond", (signer.address, units), done)]
    else:
        title = f"Add {coin} to the bond"
        moves = [Move(distributor, "addBond", (), f"{coin} added to the bond", value=units)]
    plan.run(node, signer, title, rows, moves, yes=yes, dry_run=dry_run)


def pause(
    staking: Annotated[bool, typer.Option("--staking", help="Refuse new stake instead; everyone can still leave")] = False,
    end: Annotated[bool, typer.Option("--end", help="End the pause")] = False,
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT, keyfile: KeyFile = KEYFILE,
    password_file: PasswordFile = None, max_fee: MaxFee = MAX_FEE, yes: Yes = False, dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Pause claims for a week at most, as the guardian, and then not again for three; or end the pause."""
    node, d = shared.connect(rpc, deployment)
    vault, distributor = d.stake_vault(), d.revenue_distributor()
    until = int(call(node, distributor, "pausedUntil"))
    claims = f"paused until {show_date(until)}" if until else "paid"
    stake = "refused" if call(node, vault, "paused") else "taken"
    signer = plan.payer(shared.open_wallet(keyfile, password_file, d.chain_id), max_fee)
    what = f"{'End the pause of' if end else 'Pause'} {'new stake' if staking else 'claims'}"
    rows = {"Claims": claims, "New stake": stake, "Guardian": checksum(signer.address)}
    if staking:
        moves = [Move(vault, "setPaused", (not end,), what.lower())]
    else:
        moves = [Move(distributor, "unpause" if end else "pause", (), what.lower())]
    plan.run(node, signer, what, rows, moves, yes=yes, dry_run=dry_run)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (bond, pause):
        app.command(rich_help_panel="For owner and guardian")(command)
