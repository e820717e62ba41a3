"""The command `score`: what a wallet's work was worth epoch by epoch, why, and what of it can be claimed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from chain.keys import keyfile_address
from chain.messages import parse_address
from chain.reason import COMPARISON, HUNDREDTH, shown
from chain.types import Address
from service.answers import legible
from service.api import PAGE, Api
from service.cli import shared
from service.cli.shared import KEYFILE, SERVICE, KeyFile, ServiceUrl
from service.terminal import out, show_score, show_wait, show_when


def score(
    address: Annotated[str, typer.Argument(help="A wallet's address; empty: that of --keyfile")] = "",
    history: Annotated[bool, typer.Option("--history", help="Show how what was earned and proven grew, too")] = False,
    epoch: Annotated[int | None, typer.Option(min=0, max=shared.MAX_EPOCH, help="Show what came of each ranking of a closed epoch instead")] = None,
    service: ServiceUrl = SERVICE, keyfile: KeyFile = KEYFILE,
) -> None:  # fmt: skip
    """Show a wallet's HapticScore: contribution, quality, reputation, what it earned and what of that is proven."""
    me = parse_address(address) if address else keyfile_address(keyfile)
    with Api(service) as api, legible(service):
        if epoch is not None:
            _show_judgements(list(api.pages(f"/contributors/{me}/epochs/{epoch}", limit=PAGE)))
        else:
            _show_wallet(api, me, history=history)


def _show_wallet(api: Api, me: Address, *, history: bool) -> None:
    """Print what a wallet earned epoch by epoch, what of it is proven, and what it can claim."""
    found, info = api.get(f"/contributors/{me}"), api.get("/info")
    points = list(api.every(f"/contributors/{me}/history", limit=PAGE)) if history else []
    epochs = list(api.every(f"/contributors/{me}/epochs", limit=PAGE))[::-1]
    staked, paid = shared.coin_of(info, "token"), shared.coin_of(info, "payment")
    _show_epochs(found, epochs, staked)
    if points:
        out.print(_history(points, paid))
    if found["earned"]:
        out.print(_sentence(found["earned"]))
    for e in epochs:
        if e["reason"]:
            out.print(f"Epoch {e['epoch']} scored 0: {e['reason']}.")
    for number in found["abandoned"]:
        out.print(f"Epoch {number} was given up by its operator: no ranking of it counts.")
    allotted, claimed, claimable = (paid.show(int(found[n])) for n in ("allotted", "claimed", "claimable"))
    out.print(f"allotted {allotted} · claimed {claimed} · claimable now {claimable}")
    if later := later_of(found, paid, info["now"]):
        out.print(later)
    if said := _waiting(found["waiting"], info["now"], scored=bool(epochs)):
        out.print(said)


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, justify="right")
    return table


def _show_epochs(found: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]], staked: shared.Coin) -> None:
    """Print a row per epoch: contribution x quality x reputation is the score."""
    table = _table(
        f"{found['wallet']} · staked {staked.show(int(found['staked']))}", "epoch", "comparisons", "reliability",
        "earned", "quality", "mean stake", "reputation", "HapticScore",
    )  # fmt: skip
    for e in epochs:
        table.add_row(
            str(e["epoch"]), f"{e['comparisons']:.1f}", f"{e['reliability']:.3f}", show_score(int(e["earned"])),
            f"{e['quality']:.3f}", f"{int(e['stake']) / 10**staked.decimals:,.2f}", f"{e['reputation']:.3f}",
            show_score(int(e["score"])),
        )  # fmt: skip
    out.print(table if epochs else table.title)


def _comparisons(count: int) -> str:
    return "1 comparison" if count == 1 else f"{count:,} comparisons"


def _sentence(earned: Mapping[str, Any]) -> str:
    """Return what is proven and what the next payment takes, in words."""
    more = earned["next_payment"]
    if more is None:
        said = "it is not paid again"
    elif int(earned["proven"]) and not int(earned["missing"]):
        said = "every epoch pays it"
    else:
        said = f"it is paid again after about {_comparisons(max(1, round(more)))} more"
    return f"Over all epochs {earned['words']}; going on like this, {said}."


def _history(points: list[Mapping[str, Any]], paid: shared.Coin) -> Table:
    """Return what grew from epoch to epoch, in comparisons."""
    table = _table(
        "in comparisons", "epoch", "place", "surplus per comparison", "surplus", "chance", "entry", "stands", "proven",
        "allotted",
    )  # fmt: skip
    for p in points:
        surplus, entry, stands, proven = (
            round(p[n] * COMPARISON) // HUNDREDTH for n in ("surplus", "entry", "stands", "proven")
        )
        # What chance may explain is what the others leave, as in the sentence, so that the row adds up.
        numbers = map(shown, (surplus, surplus - entry - stands, entry, stands, proven))
        quality = f"{p['quality']:.2f} ({p['low']:.2f} to {p['high']:.2f})"
        table.add_row(str(p["epoch"]), str(p["place"]), quality, *numbers, paid.show(int(p["allotted"])))
    return table


def _show_judgements(pages: list[Mapping[str, Any]]) -> None:
    """Print a row per task, and how often it was agreed with gold and with the others."""
    first, judged = pages[0], [j for page in pages for j in page["judgements"]]
    table = _table(
        f"{first['wallet']} · epoch {first['epoch']}", "task", "said", "came out", "gold", "agreed", "earned"
    )
    for j in judged:
        verdicts = [p["agreed"] for p in j["pairs"] if p["agreed"] is not None]
        table.add_row(
            j["task"][:10], f"({j['flag']})" if j["flag"] else j["said"], _came_out(j["pairs"]),
            "proved wrong" if j["retired"] else "gold" if j["gold"] else "",
            f"{sum(verdicts)} of {len(verdicts)}" if verdicts else "", show_score(int(j["surplus"])),
        )  # fmt: skip
    out.print(table)
    for name, kind in (("gold", True), ("the others", False)):
        pairs = [p for j in judged for p in j["pairs"] if bool(p["gold"]) is kind and p["agreed"] is not None]
        if pairs:
            out.print(f"Agreed with {name} in {sum(p['agreed'] for p in pairs)} of {len(pairs)} pairs.")
    out.print(
        f"Earned {show_score(int(first['earned']))} comparisons before chance and the price of entry are taken off."
    )


def _came_out(pairs: list[Mapping[str, Any]]) -> str:
    """Return the labels as one order with the least confidence in it, or pair by pair where they are none."""
    won = Counter(p["label"] for p in pairs)
    letters = sorted({p[side] for p in pairs for side in ("first", "second")}, key=lambda x: (-won[x], x))
    if [won[x] for x in letters] == list(reversed(range(len(letters)))):
        least = min((p["confidence"] for p in pairs), default=0)
        return f"{' > '.join(letters)} ({int(100 * least)} %)" if letters else ""
    return ", ".join(
        f"{p['label']} > {p['second'] if p['label'] == p['first'] else p['first']} ({int(100 * p['confidence'])} %)"
        for p in pairs
        if p["label"]
    )


def later_of(found: Mapping[str, Any], coin: shared.Coin, now: int) -> str:
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
