"""Commands for people with a wallet: stake, unstake, withdraw, rank, score, claim, fund."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from chain.contracts import call
from chain.errors import HapticError
from chain.keys import create_keyfile, keyfile_address, read_password
from chain.messages import checksum, parse_address
from chain.tree import verify_proof
from chain.types import Address
from service.cli import plan, shared
from service.cli.plan import MAX_FEE, MaxFee, Move
from service.cli.shared import (
    KEYFILE,
    RPC,
    SERVICE,
    DeploymentFile,
    DryRun,
    KeyFile,
    PasswordFile,
    RpcUrl,
    ServiceUrl,
    Yes,
)
from service.cli.sitting import Sitting
from service.client import Api, ApiError, Proof
from service.hostile import plain
from service.terminal import out, show_date, show_score, show_span, show_wait, show_when

MAX_RUN = 2**64 - 1
"""Largest run that the distributor takes."""
NOT_FOUND = 404


def wallet(
    path: Annotated[Path, typer.Argument(help="File to make")] = KEYFILE, password_file: PasswordFile = None
) -> None:
    """Make a new wallet: an encrypted keystore file that only its password opens."""
    if password_file is not None or "HAPTIC_PASSWORD" in os.environ:
        password = read_password(password_file, os.environ)
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    account = create_keyfile(path, password)
    out.print(
        f"[green]✓[/] {path} holds the wallet {account.address}. Keep the file and its password: nobody can restore them."
    )


def stake(
    amount: Annotated[str, typer.Argument(help="Tokens to stake, such as 250 or 12.5")],
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT, keyfile: KeyFile = KEYFILE,
    password_file: PasswordFile = None, max_fee: MaxFee = MAX_FEE, yes: Yes = False, dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Stake tokens: feedback counts by how much stake stood behind it, for how long."""
    node, d = shared.connect(rpc, deployment)
    signer = plan.payer(shared.open_wallet(keyfile, password_file, d.chain_id), max_fee)
    me, vault, coin = signer.address, d.stake_vault(), shared.read_coin(node, d.token)
    units = shared.parse_amount(amount, coin.decimals)
    balance = shared.check_balance(node, coin, me, units)
    staked, cooldown = int(call(node, vault, "stakedOf", me)), int(call(node, vault, "cooldown"))
    rows = {
        "Wallet": checksum(me), "Stake now": coin.show(staked), "Stake after": coin.show(staked + units),
        "Left in the wallet": coin.show(balance - units), "Getting it back": f"haptic unstake, then {show_span(cooldown)} of waiting",
    }  # fmt: skip
    moves = plan.spending(node, coin, me, units, Move(vault, "stake", (units,), f"{coin.show(units)} staked"))
    plan.run(node, signer, f"Stake {coin.show(units)}", rows, moves, yes=yes, dry_run=dry_run)


def unstake(
    amount: Annotated[str, typer.Argument(help="Tokens to take back, or `all`")],
    cancel: Annotated[bool, typer.Option("--cancel", help="Stake again what was asked back and not withdrawn")] = False,
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT, keyfile: KeyFile = KEYFILE,
    password_file: PasswordFile = None, max_fee: MaxFee = MAX_FEE, yes: Yes = False, dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Ask for stake back; it counts no more from now, and can be withdrawn after the cooldown."""
    node, d = shared.connect(rpc, deployment)
    signer = plan.payer(shared.open_wallet(keyfile, password_file, d.chain_id), max_fee)
    me, vault, coin = signer.address, d.stake_vault(), shared.read_coin(node, d.token)
    staked, (pending, available_at) = (
        int(call(node, vault, "stakedOf", me)),
        call(node, vault, "pendingOf", me),
    )
    if cancel:
        units = pending if amount == "all" else shared.parse_amount(amount, coin.decimals)
        if not 0 < units <= pending:
            raise shared.AmountError(
                f"{checksum(me)} has asked {coin.show(pending)} back; {coin.show(units)} cannot be staked again"
            )
        rows = {"Stake after": coin.show(staked + units), "Waiting after": coin.show(pending - units)}
        moves = [Move(vault, "cancelUnstake", (units,), f"{coin.show(units)} staked again")]
        plan.run(node, signer, f"Stake {coin.show(units)} again", rows, moves, yes=yes, dry_run=dry_run)
        return
    units = staked if amount == "all" else shared.parse_amount(amount, coin.decimals)
    if not 0 < units <= staked:
        raise shared.AmountError(
            f"{checksum(me)} has {coin.show(staked)} staked; {coin.show(units)} cannot be asked back"
        )
    # A clock that runs already is never shortened: the cooldown may have been lowered since.
    left = max(
        int(call(node, vault, "cooldown")),
        int(available_at) - node.block("latest").timestamp if pending else 0,
    )
    rows = {
        "Wallet": checksum(me), "Stake after": coin.show(staked - units), "Waiting after": coin.show(pending + units),
        "Withdrawable in": show_span(left) + (" (also what already waits)" if pending else ""),
    }  # fmt: skip
    moves = [Move(vault, "requestUnstake", (units,), f"{coin.show(units)} asked back")]
    plan.run(node, signer, f"Ask back {coin.show(units)}", rows, moves, yes=yes, dry_run=dry_run)


def withdraw(
    to: Annotated[str, typer.Option(help="Address that is paid; default: the wallet's own")] = "",
    rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT, keyfile: KeyFile = KEYFILE,
    password_file: PasswordFile = None, max_fee: MaxFee = MAX_FEE, yes: Yes = False, dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Take out what was asked back, once its cooldown is over."""
    node, d = shared.connect(rpc, deployment)
    signer = plan.payer(shared.open_wallet(keyfile, password_file, d.chain_id), max_fee)
    me, vault, coin = signer.address, d.stake_vault(), shared.read_coin(node, d.token)
    pending, available_at = call(node, vault, "pendingOf", me)
    now = node.block("latest").timestamp
    if not pending:
        raise shared.AmountError(f"{checksum(me)} has asked nothing back; use `haptic unstake AMOUNT` first")
    if now < available_at:
        raise shared.AmountError(
            f"{coin.show(pending)} can be withdrawn from {show_when(int(available_at), now)}; try again then"
        )
    receiver = parse_address(to, "to") if to else me
    rows, done = {"To": checksum(receiver)}, f"{coin.show(pending)} withdrawn to {checksum(receiver)}"
    moves = [Move(vault, "withdrawTo", (receiver,), done)]
    plan.run(node, signer, f"Withdraw {coin.show(pending)}", rows, moves, yes=yes, dry_run=dry_run)


def claim(
    to: Annotated[str, typer.Option(help="Address that is paid; default: the wallet's own")] = "",
    service: ServiceUrl = SERVICE, rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT,
    keyfile: KeyFile = KEYFILE, password_file: PasswordFile = None, max_fee: MaxFee = MAX_FEE, yes: Yes = False,
    dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Claim your share of the revenue; the proof is checked here before it is sent."""
    node, d = shared.connect(rpc, deployment)
    signer = plan.payer(shared.open_wallet(keyfile, password_file, d.chain_id), max_fee)
    me, distributor, coin = (
        signer.address,
        d.revenue_distributor(),
        shared.read_coin(node, d.payment_token),
    )
    receiver = parse_address(to, "to") if to else me
    proof, later = _proof(service, me, coin, node.block("latest").timestamp)
    if paused := int(call(node, distributor, "pausedUntil")):
        raise HapticError(
            f"the guardian has paused claims: they go on at {show_date(paused)} at the latest; nothing is lost"
        )
    commitment = call(node, distributor, "activeCommitment")
    if proof.account != me or not verify_proof(commitment, me, proof.cumulative, proof.index, proof.nodes):
        raise HapticError(
            "the service's proof does not lead to the active root on the chain: do not claim by it; run `haptic verify`"
        )
    claimed = int(call(node, distributor, "claimed", me))
    if proof.cumulative <= claimed:
        out.print(
            f"Nothing new to claim: {coin.show(claimed)} have been paid to {checksum(me)} already. {later}".rstrip()
        )
        return
    rows = {"To": checksum(receiver), "Paid so far": coin.show(claimed), "Root of epoch": str(proof.epoch)}
    if later:
        rows["Later"] = later
    new = coin.show(proof.cumulative - claimed)
    given, done = (proof.cumulative, proof.index, proof.path, receiver), f"{new} paid to {checksum(receiver)}"
    moves = [Move(distributor, "claimTo", given, done)]
    plan.run(node, signer, f"Claim {new}", rows, moves, yes=yes, dry_run=dry_run)


def _proof(service: str, me: Address, coin: shared.Coin, now: int) -> tuple[Proof, str]:
    """Return the proof to claim by, and what comes later; a HapticError with when to come back where there is none."""
    with Api(service) as api:
        later = _later(api.get(f"/contributors/{me}"), coin, now)
        try:
            return Proof.parse(api.get(f"/proofs/{me}")), later
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            raise HapticError(f"{error}. {later or '`haptic score` says what it earned, and why'}") from error


def _later(found: Mapping[str, Any], coin: shared.Coin, now: int) -> str:
    """Return what a wallet was allotted and cannot claim yet, and when it can, in words; nothing where that is all."""
    pending, claimable = found["pending"], int(found["claimable"])
    if pending is not None and int(pending["claimable"]) > claimable:
        active_at = int(pending["active_at"])
        when = (
            f"at {show_when(active_at, now)}, after its challenge window"
            if active_at > now
            else "any moment now"
        )
        return f"The root of epoch {pending['epoch']} becomes active {when}: then {coin.show(int(pending['claimable']))} can be claimed."
    waits = int(found["allotted"]) - int(found["claimed"]) - claimable
    return f"{coin.show(waits)} more are allotted by a root that is not posted yet." if waits > 0 else ""


def fund(
    amount: Annotated[str, typer.Argument(help="Revenue in the payment token, such as 5000")],
    run: Annotated[int, typer.Option(min=0, max=MAX_RUN, help="The retraining it is for; 0: none, shared by the running epoch's score")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Pay for a run that the service does not know")] = False,
    service: ServiceUrl = SERVICE, rpc: RpcUrl = RPC, deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT,
    keyfile: KeyFile = KEYFILE, password_file: PasswordFile = None, max_fee: MaxFee = MAX_FEE, yes: Yes = False,
    dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Pay revenue for a retraining; it goes to the wallets whose rankings it learned from."""
    node, d = shared.connect(rpc, deployment)
    signer = plan.payer(shared.open_wallet(keyfile, password_file, d.chain_id), max_fee)
    me, distributor, coin = (
        signer.address,
        d.revenue_distributor(),
        shared.read_coin(node, d.payment_token),
    )
    units = shared.parse_amount(amount, coin.decimals)
    balance = shared.check_balance(node, coin, me, units)
    if run and not force:
        _check_run(service, run)
    rows = {
        "From": checksum(me), "For": f"retraining run {run}" if run else "no run: by HapticScore of the running epoch",
        "Left in the wallet": coin.show(balance - units), "Note": "revenue cannot be taken back",
    }  # fmt: skip
    move = Move(distributor, "fund", (run, units), f"{coin.show(units)} funded")
    moves = plan.spending(node, coin, me, units, move)
    plan.run(node, signer, f"Fund {coin.show(units)}", rows, moves, yes=yes, dry_run=dry_run)


def _check_run(service: str, run: int) -> None:
    """Raise unless the service knows the run: revenue for one that never comes waits forever."""
    with Api(service) as api:
        known = sorted(r["run"] for r in api.every("/runs"))
    if run not in known:
        raise HapticError(
            f"run {run} is not known to {service} (it knows {known or 'none'}): revenue for a run that never comes "
            "is carried from epoch to epoch and paid to nobody; --force pays all the same"
        )


def score(
    address: Annotated[str, typer.Argument(help="A wallet's address; empty: that of --keyfile")] = "",
    service: ServiceUrl = SERVICE, keyfile: KeyFile = KEYFILE,
) -> None:  # fmt: skip
    """Show a wallet's HapticScore: contribution, quality, reputation, and what it earned."""
    me = parse_address(address) if address else keyfile_address(keyfile)
    with Api(service) as api:
        found, info = api.get(f"/contributors/{me}"), api.get("/info")
        epochs = list(api.every(f"/contributors/{me}/epochs"))[::-1]
    staked, paid = shared.coin_of(info, "token"), shared.coin_of(info, "payment")
    table = Table(
        title=f"{plain(found['wallet'])} · staked {staked.show(int(found['staked']))}",
        title_justify="left",
    )
    for name in ("epoch", "comparisons", "reliability", "quality", "mean stake", "HapticScore"):
        table.add_column(name, justify="right")
    for e in epochs:
        row = (
            f"{e['comparisons']:.1f}",
            f"{e['reliability']:.3f}",
            f"{e['quality']:.3f}",
            f"{int(e['stake']) / 10**staked.decimals:,.2f}",
            show_score(int(e["score"])),
        )
        table.add_row(plain(e["epoch"]), *row)
    out.print(table if epochs else table.title)
    allotted, claimed, claimable = (paid.show(int(found[n])) for n in ("allotted", "claimed", "claimable"))
    for e in epochs:
        if e["reason"]:
            out.print(f"Epoch {plain(e['epoch'])} scored 0: {plain(e['reason'])}.")
    for number in found["abandoned"]:
        out.print(f"Epoch {plain(number)} was given up by its operator: no ranking of it counts.")
    out.print(f"allotted {allotted} · claimed {claimed} · claimable now {claimable}")
    if later := _later(found, paid, info["now"]):
        out.print(later)
    if said := _waiting(found["waiting"], info["now"], scored=bool(epochs)):
        out.print(said)


def _waiting(epoch: Mapping[str, Any] | None, now: int, *, scored: bool) -> str:
    """Return what of a wallet's is not scored yet and when it will be, in words; nothing where there is nothing."""
    if epoch is None:
        return "" if scored else "No ranking by this wallet yet, and no epoch is open: look again later."
    left, count = epoch["ends"] - now, epoch["rankings"]
    when = f"closes in {show_wait(left)}" if left > 0 else "has ended and is being closed"
    if count:
        rankings = "1 ranking" if count == 1 else f"{count} rankings"
        return f"Waiting for a score: {rankings} in epoch {epoch['epoch']}, which {when}."
    said = f"No ranking by this wallet yet: `haptic rank` makes the first. Epoch {epoch['epoch']} {when}."
    return "" if scored else said


def rank(
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Stop after so many tasks")] = 1000,
    service: ServiceUrl = SERVICE, keyfile: KeyFile = KEYFILE, password_file: PasswordFile = None,
) -> None:  # fmt: skip
    """Rank answers of models that you cannot tell apart, and sign each ranking with your wallet's session key."""
    with Api(service) as api:
        account = shared.open_wallet(keyfile, password_file, api.domain().chain_id)
        Sitting(api, account, keyfile.with_suffix(".receipts.jsonl")).run(count)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (wallet, stake, unstake, withdraw, rank, score, claim, fund):
        app.command(rich_help_panel="For people with a wallet")(command)
