"""Commands for people with a wallet: stake, unstake, withdraw, rank, score, claim, fund."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from chain.contracts import call
from chain.errors import HapticError
from chain.keys import create_keyfile, read_password
from chain.messages import checksum, parse_address
from chain.tree import verify_proof
from chain.types import Address
from service.answers import ApiError, Proof, legible
from service.api import Api
from service.cli import plan, score, shared
from service.cli.plan import MAX_FEE, MaxFee, Move
from service.cli.score import later_of
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
from service.terminal import out, show_date, show_span, show_when

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
    with Api(service) as api, legible(service):
        later = later_of(api.get(f"/contributors/{me}"), coin, now)
        try:
            return Proof.parse(api.get(f"/proofs/{me}")), later
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            raise HapticError(f"{error}. {later or '`haptic score` says what it earned, and why'}") from error


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
    with Api(service) as api, legible(service):
        known = sorted(r["run"] for r in api.every("/runs"))
    if run not in known:
        raise HapticError(
            f"run {run} is not known to {service} (it knows {known or 'none'}): revenue for a run that never comes "
            "is carried from epoch to epoch and paid to nobody; --force pays all the same"
        )


def rank(
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Stop after so many tasks")] = 1000,
    correct: Annotated[bool, typer.Option("--correct", help="List what you ranked in this epoch, and correct it, instead of asking for tasks")] = False,
    service: ServiceUrl = SERVICE, rpc: RpcUrl = "", deployment: DeploymentFile = shared.DEFAULT_DEPLOYMENT,
    keyfile: KeyFile = KEYFILE, password_file: PasswordFile = None,
) -> None:  # fmt: skip
    """Rank answers of models that you cannot tell apart, and sign each ranking with your wallet's session key.

    What you type after # is a comment for the operator, such as A > B # B is out of date: it is signed with the ranking,
    and only its hash is published. Until the epoch ends a ranking can be corrected, by c or --correct: what you said last
    counts, and every order that you gave is published. What the service promises of each task and ranking is kept beside
    the wallet, in *.receipts.jsonl, for `haptic verify --receipts`.

    With --rpc, or HAPTIC_RPC_URL, nothing is signed for another chain, contract or epoch than your node says; without it,
    the service is believed in that.
    """
    chain = shared.connect(rpc, deployment) if rpc else None
    with Api(service) as api:
        account = shared.open_wallet(
            keyfile, password_file, chain[1].chain_id if chain else api.domain().chain_id
        )
        sitting = Sitting(api, account, keyfile.with_suffix(".receipts.jsonl"), chain)
        if correct:
            sitting.correct()
        else:
            sitting.run(count)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (wallet, stake, unstake, withdraw, rank, score.score, claim, fund):
        app.command(rich_help_panel="For people with a wallet")(command)
