"""Replays judgements of real people through the whole path, one wallet per annotator."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from chain.canonical import text_hash
from chain.contracts import Contract
from chain.feedback import Task
from chain.keys import address_of
from chain.rules import SIZES, Rules
from chain.transactions import transact
from chain.types import Address
from service.arena import Plan
from service.client import Contributor
from service.database import open_database
from service.demo import report, stranger
from service.demo.cast import Player, Role
from service.demo.play import claim_all, fund
from service.demo.stage import Stage, bars, close_and_pay, set_up, wait_for
from service.demo.stage import open_epoch as is_open
from service.devnet import COIN, DOLLAR
from service.epochs import Place, open_epoch
from service.hostile import plain
from service.judged import FeedbackFileError, Judged
from service.judged import read as read_judged
from service.terminal import out, show_score

EPOCHS = 3
REVENUE = 10_000 * DOLLAR
STAKE = 100
EPOCH_LENGTH, WINDOW, LEAD = 7200, 600, 1800


def read(path: Path) -> list[Judged]:
    """Return the judged tasks of a JSONL file; FeedbackFileError names the line that cannot be read."""
    tasks = list(read_judged(path, "rankings"))
    if not tasks:
        raise FeedbackFileError(f"{path} holds no judged task")
    for task in tasks:
        if len(task.texts) not in SIZES:
            raise FeedbackFileError(
                f"{path}, line {task.line}: {len(task.texts)} responses; a task has {', '.join(map(str, SIZES))}"
            )
    return tasks


@dataclass(frozen=True, slots=True)
class Script:
    """An epoch's tasks, and what each annotator said of them in the order of `Task.responses`."""

    plans: tuple[Plan, ...]
    said: dict[str, dict[str, tuple[int, ...]]]
    """By task hash, then annotator."""


def script(part: Sequence[Judged], wallets: dict[str, Address], method: str, seed: bytes) -> Script:
    """Return the tasks, each reserved for the wallets of the people who judged it; equal tasks become one.

    They are named as in the epoch of this seed.
    """
    answers: dict[tuple[str, tuple[str, ...]], dict[str, tuple[int, ...]]] = {}
    systems: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
    for judged in part:
        texts = Task.of(judged.prompt, judged.texts, [method]).responses
        place = [judged.texts.index(t) for t in texts]
        key = (judged.prompt, texts)
        systems.setdefault(key, tuple(judged.systems[i] for i in place))
        for annotator, ranks in judged.ranks.items():
            answers.setdefault(key, {}).setdefault(annotator, tuple(ranks[i] for i in place))
    plans, said = [], {}
    for key, given in answers.items():
        task = Task.of(*key, [method], assignees=[wallets[a] for a in given]).sealed(seed)
        plans.append(Plan(task, systems[key]))
        said[str(task.hash())] = given
    return Script(tuple(plans), said)


def _stake(stage: Stage, names: Sequence[str]) -> list[Player]:
    """Give every annotator a wallet with the same stake."""
    d, rpc = stage.site.deployment, stage.site.rpc
    token, vault = Contract("HapticToken", d.token), d.stake_vault()
    players = []
    with bars() as progress:
        for name in progress.track(names, description="wallets stake"):
            account = stage.site.wallet(name, staking=STAKE * COIN)
            transact(rpc, account, token, "approve", vault.address, STAKE * COIN)
            transact(rpc, account, vault, "stake", STAKE * COIN)
            luck = random.Random(name)  # noqa: S311  # unused here
            players.append(Player(Role(name, 0.0, 0, STAKE), account, address_of(account), luck))
    return players


def _speak(
    stage: Stage,
    player: Player,
    epoch: int,
    said: dict[str, dict[str, tuple[int, ...]]],
    advance: Callable[[], None],
) -> None:
    """Let one wallet give the answers that its person gave."""
    now = stage.now()
    me = Contributor(stage.api, player.account, stage.api.domain())
    me.log_in(epoch=epoch, now=now, hours=2)
    while (task := me.next_task()) is not None:
        by_hash = dict(
            zip(sorted(text_hash(t) for t in task.shown), said[task.task][player.role.name], strict=True)
        )
        player.send(me, me.ranking(task, [by_hash[text_hash(t)] for t in task.shown], now=now))
        player.judged += 1
        advance()


def _one_epoch(
    stage: Stage, players: Sequence[Player], part: Sequence[Judged], epoch: int, rules: Rules
) -> None:
    """Open an epoch with these tasks, let everybody answer, fund it, close it and activate its root."""
    site = stage.site
    place = Place(site.deployment, site.environ["HAPTIC_SECRET"].encode(), site.folder / "bundles")
    wallets = {p.role.name: p.wallet for p in players}
    found = script(part, wallets, rules.methods[0], place.seed(epoch))
    with open_database(f"sqlite:///{site.folder / 'haptic.db'}").write() as db:
        open_epoch(db, place, epoch, found.plans, rules, stage.now())
        db.commit()
    fund(stage, 0, REVENUE)
    wait_for(f"epoch {epoch}: committing to it on the chain", lambda: is_open(stage, epoch), stage)
    total = sum(len(a) for a in found.said.values())
    with bars() as progress, ThreadPoolExecutor(4) as pool:
        bar = progress.add_task(f"epoch {epoch}: signed rankings", total=total)
        for done in [
            pool.submit(_speak, stage, p, epoch, found.said, lambda: progress.advance(bar)) for p in players
        ]:
            done.result()
    close_and_pay(stage, epoch)
    out.print(
        f"[green]✓[/] epoch {epoch}: {len(found.plans)} tasks, {total} signed rankings; closed, root active"
    )


def _table(stage: Stage, players: Sequence[Player], paid: dict[str, int]) -> None:
    """Print what HapticScore makes of each person."""
    shown = report.table(
        "What HapticScore makes of each annotator (equal stake, no gold: only agreement counts)",
        "annotator", "judged", "comparisons", "est. rel.", "quality", "HapticScore", "claimed DUSD",
    )  # fmt: skip
    rows = []
    for p in players:
        epochs = list(stage.api.every(f"/contributors/{p.wallet}/epochs"))
        made, proven = sum(e["comparisons"] for e in epochs), sum(int(e["proven"]) for e in epochs)
        score = sum(int(e["score"]) for e in epochs)
        quality = proven / 6e6 / made if made else 0.0
        rows.append(
            (score, p.role.name, p.judged, made, epochs[0]["reliability"] if epochs else 0.0, quality)
        )
    for score, name, judged, made, reliability, quality in sorted(rows, reverse=True):
        shown.add_row(
            plain(name),
            str(judged),
            f"{made:.0f}",
            f"{reliability:.3f}",
            f"{quality:.3f}",
            show_score(score),
            report.money(paid[name]),
        )
    out.print(shown)
    scored = sum(1 for row in rows if row[0])
    out.print(
        f"{scored} of {len(rows)} annotators have proven to know better than chance; the revenue is theirs."
    )


def run(folder: Path, rankings: Path) -> None:
    """Replay a file; DemoError when anything does not add up."""
    began = time.monotonic()
    tasks = read(rankings)
    names = sorted({a for t in tasks for a in t.ranks})
    method = "pairwise" if all(len(t.texts) == 2 for t in tasks) else "ranking"
    judgements = sum(len(t.ranks) for t in tasks)
    out.print(
        f"[bold]Haptic replay[/] · {len(names)} real annotators, {len(tasks)} tasks, "
        f"{judgements} judgements ({method})"
    )
    rules = Rules(methods=(method,), lease_s=EPOCH_LENGTH)
    no_arena = {"HAPTIC_ARENA": "false"}
    with set_up(
        folder, epoch_length=EPOCH_LENGTH, window=WINDOW, lead=LEAD, rules=rules, extra=no_arena
    ) as stage:
        players = _stake(stage, names)
        stage.go_to(stage.start(0) + 1)
        for epoch in range(EPOCHS):
            _one_epoch(stage, players, tasks[epoch::EPOCHS], epoch, rules)
        paid = claim_all(stage, players)
        _table(stage, players, paid)
        report.balances(stage, players, {0: REVENUE * EPOCHS})
        stranger.check_inclusion(stage, players[0])
        stranger.export(stage)
        stranger.verify(stage, players, EPOCHS - 1)
    out.print(f"[bold]Done[/] in {time.monotonic() - began:.0f} s. Everything it made is in {folder}.")
