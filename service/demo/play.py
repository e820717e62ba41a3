"""The play: thirteen wallets, three epochs, two retrainings, revenue, claims, a stranger who checks all."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from rich.progress import Progress

from chain.contracts import Contract, call, creation
from chain.keys import address_of
from chain.rules import Rules
from chain.transactions import Courier, transact
from chain.types import Address
from service.answers import Proof
from service.client import Contributor
from service.demo import facts, report, stranger
from service.demo.cast import OWN_TASKS, ROLES, Player
from service.demo.stage import (
    DemoError,
    Stage,
    bars,
    close_and_pay,
    open_epoch,
    set_up,
    wait_for,
    working,
)
from service.devnet import COIN, DOLLAR
from service.terminal import out

EPOCH_LENGTH, WINDOW, LEAD = 3600, 600, 600
REVENUE = {0: 1_000 * DOLLAR, 1: 5_000 * DOLLAR, 2: 7_500 * DOLLAR}
"""What the provider pays, by run; 0 is revenue that names no run."""


def stake_all(stage: Stage, seed: int) -> list[Player]:
    """Make the wallets, give them tokens, and let each stake."""
    players = []
    vault = stage.site.deployment.stake_vault()
    token = Contract("HapticToken", stage.site.deployment.token)
    for n, role in enumerate(ROLES):
        account = stage.site.wallet(role.name, staking=role.stake * COIN)
        wallet = address_of(account)
        if role.signs == "contract":
            wallet = stake_by_contract(stage, account, role.stake * COIN)
        else:
            transact(stage.site.rpc, account, token, "approve", vault.address, role.stake * COIN)
            transact(stage.site.rpc, account, vault, "stake", role.stake * COIN)
        luck = random.Random(f"{seed}/{n}")  # noqa: S311  # a simulated judge, not a secret
        players.append(Player(role, account, wallet, luck))
    return players


def stake_by_contract(stage: Stage, owner: LocalAccount, amount: int) -> Address:
    """Deploy a wallet that is a contract, give it the owner's tokens, and let it stake; return its address."""
    rpc, vault = stage.site.rpc, stage.site.deployment.stake_vault()
    token = Contract("HapticToken", stage.site.deployment.token)
    made = Courier(rpc, owner).send(None, creation("DevnetWallet", address_of(owner))).contract_address
    if made is None:
        raise DemoError(f"{rpc.name} names no address for the new DevnetWallet")
    wallet = Contract("DevnetWallet", Address(made.lower()))
    transact(rpc, owner, token, "transfer", wallet.address, amount)
    for contract, function, args in (
        (token, "approve", (vault.address, amount)),
        (vault, "stake", (amount,)),
    ):
        transact(rpc, owner, wallet, "execute", contract.address, contract.encode(function, *args))
    return wallet.address


def enter(stage: Stage, player: Player, epoch: int, now: int) -> Contributor:
    """Log a player in, in the way of its role."""
    signs, domain = player.role.signs, stage.api.domain()
    me = Contributor(
        stage.api, player.account, domain, use_session_key=signs == "session", address=player.wallet
    )
    if signs == "wallet":
        me.sign_in()
    else:
        me.log_in(epoch=epoch, now=now, hours=1, judgements=1000)
    return me


def judge(stage: Stage, players: list[Player], epoch: int, effort: float) -> None:
    """Let everybody rank what the service hands out, each by its own method, and keep the receipts."""
    now = stage.now()

    def play(player: Player, progress: Progress, bar: Any) -> None:
        me, skips = enter(stage, player, epoch, now), player.role.skips
        for _ in range(round(player.role.work * effort)):
            task = me.next_task()
            while task is not None and skips:
                me.skip(task, "too_long")
                task, skips = me.next_task(), skips - 1
            if task is None:
                break
            ranks = player.rank(task.prompt, task.shown, task.method)
            marks = [8 - r for r in ranks] if task.method == "likert" else []
            player.send(me, me.ranking(task, ranks, now=now, likert=marks))
            progress.advance(bar)
        progress.update(bar, visible=False)

    with bars() as progress, ThreadPoolExecutor(4) as pool:
        bar = progress.add_task(
            f"epoch {epoch}: signed rankings", total=sum(round(p.role.work * effort) for p in players)
        )
        for done in [pool.submit(play, p, progress, bar) for p in players]:
            done.result()


def fund(stage: Stage, run: int, amount: int) -> None:
    """Let the provider pay for a run."""
    provider = stage.site.wallet("provider", dollars=amount)
    distributor = stage.site.deployment.revenue_distributor()
    dollar = Contract("DevnetDollar", stage.site.deployment.payment_token)
    transact(stage.site.rpc, provider, dollar, "approve", distributor.address, amount)
    transact(stage.site.rpc, provider, distributor, "fund", run, amount)
    what = f"for retraining run {run}" if run else "that names no run"
    out.print(f"[green]✓[/] the provider paid {amount / DOLLAR:,.0f} DUSD {what}")


def wait_for_run(stage: Stage, run: int) -> dict[str, Any]:
    """Follow a retraining to its end and return it."""
    with bars() as progress:
        bar = progress.add_task(f"run {run}: waiting for the worker", total=1)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            found: dict[str, Any] | None = next(
                (r for r in stage.api.every("/runs") if r["run"] == run), None
            )
            if found and found["state"] == "failed":
                raise DemoError(f"run {run} failed: {found['error']}")
            if found and found["state"] == "done":
                return found
            if found and "of" in found["progress"]:
                p = found["progress"]
                progress.update(
                    bar, description=f"run {run}: {p['stage']}", completed=p["step"], total=p["of"]
                )
            time.sleep(0.3)
    raise DemoError(f"run {run} did not end in 300 s; its log is in {stage.site.folder / 'logs'}")


def claim_all(stage: Stage, players: list[Player]) -> dict[str, int]:
    """Let every wallet with a payout claim it, and return what each was paid."""
    paid: dict[str, int] = {}
    distributor = stage.site.deployment.revenue_distributor()
    for player in players:
        me = player.wallet
        if int(stage.api.get(f"/contributors/{me}")["claimable"]):
            p = Proof.parse(stage.api.get(f"/proofs/{me}"))
            transact(stage.site.rpc, player.account, distributor, "claim", me, p.cumulative, p.index, p.path)
        paid[player.role.name] = int(call(stage.site.rpc, distributor, "claimed", me))
    return paid


@dataclass(frozen=True, slots=True)
class Scenario:
    """How much is played."""

    epochs: int = 3
    tasks: int = 140
    """Tasks of an epoch."""
    effort: float = 1.0
    """Share of each role's work that is done."""
    retrain_after: int = 400
    gate_comparisons: int = 60
    """Votes that decide about a new model: fewer than one epoch gives, in which they have to come in."""
    trainer_config: Path | None = None
    """Settings of the trainer; None for its own."""

    def environ(self) -> dict[str, str]:
        """Return the settings of the service that this scenario needs."""
        found = {
            "HAPTIC_TASKS_PER_EPOCH": str(self.tasks), "HAPTIC_RETRAIN_AFTER": str(self.retrain_after),
            "HAPTIC_GATE_COMPARISONS": str(self.gate_comparisons), "HAPTIC_GATE_EPOCHS": "1",
        }  # fmt: skip
        return found | ({"HAPTIC_TRAINER_CONFIG": str(self.trainer_config)} if self.trainer_config else {})


def _one_epoch(stage: Stage, players: list[Player], epoch: int, scenario: Scenario) -> None:
    """Play an epoch until everybody has ranked; then, unless it is the last, close it and retrain."""
    what = (
        "published and new model answer, blind"
        if epoch
        else "the first model is made from scratch and answers"
    )
    opened = wait_for(f"epoch {epoch}: {what}", partial(open_epoch, stage, epoch), stage)
    fund(stage, epoch, REVENUE[epoch])
    judge(stage, players, epoch, scenario.effort)
    known = stage.api.get(f"/epochs/{epoch}")
    out.print(
        f"[green]✓[/] epoch {epoch}: {opened['tasks']} blind tasks, {known['judgements']} signed rankings, "
        f"{known['skips']} skips"
    )
    if epoch == scenario.epochs - 1:
        return
    close_and_pay(stage, epoch)
    out.print(f"[green]✓[/] epoch {epoch}: closed, root posted and active")
    found = wait_for_run(stage, epoch + 1)
    out.print(f"[green]✓[/] run {found['run']}: {found['model']} trained on epoch {epoch}")


def run(folder: Path, seed: int, scenario: Scenario = Scenario()) -> None:
    """Play all of it; DemoError when anything does not add up."""
    began, last = time.monotonic(), scenario.epochs - 1
    out.print(
        "[bold]Haptic demo[/] · judges are simulated; all answers, signatures, blocks and gradients are real"
    )
    rules = Rules()
    with set_up(
        folder,
        epoch_length=EPOCH_LENGTH,
        window=WINDOW,
        lead=LEAD,
        rules=rules,
        extra=scenario.environ(),
        tasks=OWN_TASKS,
    ) as stage:
        players = stake_all(stage, seed)
        out.print(f"[green]✓[/] chain, contracts and service run; {len(players)} wallets have staked")
        stage.go_to(stage.start(0) + 1)
        with working(stage, "--bootstrap"):
            for epoch in range(scenario.epochs):
                _one_epoch(stage, players, epoch, scenario)
        close_and_pay(stage, last)
        out.print(f"[green]✓[/] epoch {last}: closed, root posted and active")
        paid = claim_all(stage, players)
        stage.go_to(stage.now() + 1)
        report.people(stage, players, paid)
        report.models(stage)
        report.balances(stage, players, {r: REVENUE[r] for r in range(scenario.epochs)})
        facts.tell(stage, players, scenario.epochs)
        stranger.check_inclusion(stage, players[0])
        stranger.export(stage)
        stranger.verify(stage, players, last)
    out.print(f"[bold]Done[/] in {time.monotonic() - began:.0f} s. Everything it made is in {folder}.")
