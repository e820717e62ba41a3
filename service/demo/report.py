"""What the demo prints at its end: people, models, balances; and it fails when they do not add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from chain.contracts import Contract, call
from chain.messages import checksum
from service.demo.cast import Player
from service.demo.stage import DemoError, Stage
from service.devnet import COIN, DOLLAR
from service.hostile import plain
from service.terminal import out, show_score


def money(units: int) -> str:
    """Return devnet dollars with all six decimals."""
    return f"{units // DOLLAR:,}.{units % DOLLAR:06d}"


def table(title: str, *columns: str) -> Table:
    """Return an empty table; the first column is left-aligned."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for i, name in enumerate(columns):
        made.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
    return made


def people(stage: Stage, players: Sequence[Player], paid: Mapping[str, int]) -> None:
    """Print a row per wallet: what it put in, how good it really was, how good it was found, what it got."""
    shown = table(
        "Who ranked, how well, and what it paid", "wallet", "stake", "judged", "true rel.", "est. rel.",
        "HapticScore", "allotted DUSD", "claimed DUSD", "per task",
    )  # fmt: skip
    for p in players:
        found = stage.api.get(f"/contributors/{p.wallet}")
        epochs = list(stage.api.every(f"/contributors/{p.wallet}/epochs"))
        score = sum(int(e["score"]) for e in epochs)
        estimated = epochs[0]["reliability"] if epochs else 0.0
        allotted = int(found["allotted"])
        shown.add_row(
            p.role.name, f"{p.role.stake:,}", str(p.judged), f"{p.reliability:.3f}", f"{estimated:.3f}",
            show_score(score), money(allotted), money(paid[p.role.name]),
            f"{allotted / DOLLAR / max(p.judged, 1):.2f}",
        )  # fmt: skip
        if allotted != paid[p.role.name]:
            raise DemoError(f"{p.role.name} was allotted {allotted} but claimed {paid[p.role.name]}")
    out.print(shown)


def models(stage: Stage) -> None:
    """Print what the retrainings achieved: by measurement, and by the people in the arena."""
    runs: list[dict[str, Any]] = list(stage.api.every("/runs"))[::-1]
    shown = table(
        "Retraining (measured by the gold reward, which training never sees)", "model", "learned from",
        "reward model, held-out pairs", "wins against SFT", "wins against predecessor", "KL, nats",
    )  # fmt: skip
    for r in runs:
        if r["state"] == "done":
            m = r["metrics"]
            shown.add_row(
                plain(r["model"]), _epochs(r["first_epoch"], r["last_epoch"]), _interval(m, "reward_accuracy"),
                _interval(m, "win_rate_sft"), _interval(m, "win_rate_parent"), f"{m['kl']:.1f}",
            )  # fmt: skip
    out.print(shown)
    _gate(stage, runs)
    arena = table(
        "The arena (judged blind, Bradley-Terry over tasks on the Elo scale)",
        "model",
        "rating",
        "95 % interval",
        "won",
        "lost",
    )
    for a in stage.api.get("/models"):
        arena.add_row(
            plain(a["model"]),
            f"{a['rating']:.0f}",
            f"{a['low']:.0f} to {a['high']:.0f}",
            str(a["wins"]),
            str(a["losses"]),
        )
    out.print(arena)


def _gate(stage: Stage, runs: Sequence[Mapping[str, Any]]) -> None:
    """Print what the people decided about each new model; DemoError where one was left undecided."""
    shown = table(
        "The gate (one vote a task, by the labels; published is what they show to be better)",
        "model", "against", "votes for", "against it", "needed", "a coin does so well", "decision",
    )  # fmt: skip
    for r in runs:
        if (g := r["gate"]) is not None:
            counts = (str(g[name]) for name in ("won", "lost", "needed"))
            shown.add_row(plain(r["model"]), plain(g["parent"]), *counts, f"{g['chance']:.2g}", g["decision"])
            if g["decision"] == "waiting":
                raise DemoError(f"the gate left {r['model']} undecided: {g['said']}")
    out.print(shown)
    out.print(f"[green]✓[/] {plain(stage.api.get('/status')['models'])}", soft_wrap=True)


def _epochs(first: int, last: int) -> str:
    return f"epoch {first}" if first == last else f"epochs {first} to {last}"


def _interval(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f} ({metrics[name + '_low']:.2f}-{metrics[name + '_high']:.2f})"


def balances(stage: Stage, players: Sequence[Player], revenue: Mapping[int, int]) -> None:
    """Print where every token is, and raise DemoError if one is missing."""
    d, rpc = stage.site.deployment, stage.site.rpc
    distributor, vault = d.revenue_distributor(), d.stake_vault()
    funded, claimed = int(call(rpc, distributor, "funded")), int(call(rpc, distributor, "claimedTotal"))
    _, active_sum, _ = call(rpc, distributor, "active")
    money_token = Contract("DevnetDollar", d.payment_token)
    held = int(call(rpc, money_token, "balanceOf", d.distributor))
    staked, vaulted = (
        sum(p.role.stake for p in players) * COIN,
        int(call(rpc, Contract("HapticToken", d.token), "balanceOf", vault.address)),
    )
    got = sum(int(call(rpc, money_token, "balanceOf", p.wallet)) for p in players)
    shown = table("Balances, to the last unit", "what", "DUSD")
    for name, value in (
        ("paid in by the provider", funded), ("allotted to wallets", active_sum),
        ("carried to the next epoch", funded - active_sum),
        ("claimed by wallets", claimed), ("in the wallets", got), ("still in the distributor", held),
    ):  # fmt: skip
        shown.add_row(name, money(value))
    out.print(shown)
    laws = {
        "paid in = what was funded": funded == sum(revenue.values()),
        "paid in = claimed + still there": funded == claimed + held,
        "claimed = in the wallets": claimed == got,
        "nobody is owed more than was allotted": claimed <= active_sum <= funded,
        "the vault holds exactly what is staked": vaulted == staked == int(call(rpc, vault, "totalStaked")),
    }
    for law, holds in laws.items():
        out.print(f"{'[green]✓[/]' if holds else '[red]✗[/]'} {law}")
    if not all(laws.values()):
        raise DemoError("the balances do not add up; see the lines marked ✗")
    out.print(f"distributor {checksum(d.distributor)}, vault {checksum(d.vault)}")
