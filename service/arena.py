"""Where models meet: their answers become blind tasks, and a wallet is handed the next one the seed gives it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sqlmodel import Session as Db

from chain.assignment import display_order, method_of, task_priority
from chain.bundle import Gold
from chain.canonical import text_hash
from chain.errors import HapticError
from chain.feedback import Task
from chain.hashing import keccak256
from chain.rules import Rules
from chain.types import Address, Hash32
from service.errors import ConfigError, NotFoundError
from service.ledger import queries
from service.ledger.tables import LeaseRow, TaskRow
from trainer import gold as lexicon


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to a prompt."""

    prompt: str
    model: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A task before its epoch opens."""

    task: Task
    origins: tuple[str, ...]
    """Models behind the responses, in the order of `task.responses`."""
    gold_ranks: tuple[int, ...] = ()
    assignees: tuple[Address, ...] = ()
    author: Address | str = ""
    """Wallet whose prompt it is; empty where it is nobody's."""


@dataclass(frozen=True, slots=True)
class Handed:
    """A task as one wallet sees it."""

    task: Hash32
    prompt: str
    method: str
    shown: tuple[str, ...]
    """Texts in the order of this wallet's screen."""
    expires_at: int


def methods_for(size: int, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the methods by which a task of `size` responses can be judged."""
    fits = {"pairwise": size == 2, "best_worst": size > 2, "ranking": True, "likert": True}
    return tuple(m for m in allowed if fits[m])


def plan_tasks(answers: Iterable[Answer], rules: Rules, count: int, draw: bytes) -> list[Plan]:
    """Return up to `count` tasks of these answers, five eighths with four responses and the rest with two.

    Within a task the models alternate, so that each meets the others; equal texts are shown once. `draw` is
    secret randomness, 32 bytes, and decides which answers meet.
    """
    by_prompt: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    seen: set[tuple[str, str]] = set()
    for answer in sorted(answers, key=lambda a: _place(draw, a)):
        if (answer.prompt, answer.text) not in seen:
            seen.add((answer.prompt, answer.text))
            by_prompt[answer.prompt][answer.model].append(answer.text)
    plans = []
    for place, prompt in enumerate(sorted(by_prompt, key=lambda p: keccak256(draw + p.encode()))[:count]):
        size = 4 if place % 8 < 5 else 2
        mixed = _alternate(by_prompt[prompt])
        size = size if len(mixed) >= size else 2
        if len(mixed) >= size and methods_for(size, rules.methods):
            plans.append(_plan(prompt, mixed[:size], rules))
    return plans


def _place(draw: bytes, answer: Answer) -> bytes:
    """Return the key that shuffles answers; of two models with the same text, it decides whose it is."""
    return keccak256(draw + "".join(map(text_hash, (answer.prompt, answer.text, answer.model))).encode())


def _alternate(by_model: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return (model, text) with the models taking turns."""
    rows = [(i, m, t) for m, texts in by_model.items() for i, t in enumerate(texts)]
    return [(m, t) for _, m, t in sorted(rows)]


def _plan(prompt: str, chosen: Sequence[tuple[str, str]], rules: Rules) -> Plan:
    task = Task.of(prompt, (t for _, t in chosen), methods_for(len(chosen), rules.methods))
    model = {t: m for m, t in chosen}
    return Plan(task, tuple(model[t] for t in task.responses))


def lexicon_gold(plans: Sequence[Plan], share_ppm: int) -> list[Plan]:
    """Return the plans with the clearest `share_ppm` of them marked as gold by the devnet's lexicon."""

    def spread(plan: Plan) -> float:
        marks = sorted(lexicon.score(plan.task.prompt, t) for t in plan.task.responses)
        return min((b - a for a, b in pairwise(marks)), default=0.0)

    wanted = -(-len(plans) * share_ppm // 1_000_000)
    clearest = sorted(range(len(plans)), key=lambda i: -spread(plans[i]))[:wanted]
    result = list(plans)
    for i in clearest:
        task = plans[i].task
        marks = [lexicon.score(task.prompt, t) for t in task.responses]
        order = {m: n + 1 for n, m in enumerate(sorted(set(marks), reverse=True))}
        result[i] = Plan(task, plans[i].origins, tuple(order[m] for m in marks), plans[i].assignees)
    return result


def file_gold(path: Path, rules: Rules, wanted: int, used: set[str]) -> list[Plan]:
    """Return the next `wanted` gold tasks of a JSONL file of {"prompt", "responses", "ranks"} that were never used."""
    plans: dict[Hash32, Plan] = {}
    for number, raw in numbered_lines(path, "HAPTIC_GOLD_FILE"):
        try:
            row = json.loads(raw)
            texts, ranks = row["responses"], [int(r) for r in row["ranks"]]
            task = Task.of(row["prompt"], texts, methods_for(len(texts), rules.methods))
            place = dict(zip(texts, ranks, strict=True))
        except (ValueError, KeyError, TypeError, AttributeError, HapticError) as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
        if task.hash() not in used and len(plans) < wanted:
            plans[task.hash()] = Plan(task, ("gold",) * len(texts), tuple(place[t] for t in task.responses))
    return list(plans.values())


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a JSONL file of {"prompt"}; ConfigError names the line that has none."""
    prompts = []
    for number, raw in numbered_lines(path, "HAPTIC_PROMPTS_FILE"):
        try:
            prompts.append(str(json.loads(raw)["prompt"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f'{path}, line {number}: expected {{"prompt": "…"}}, found {raw[:60]!r}'
            ) from error
    return prompts


def numbered_lines(path: Path, variable: str) -> list[tuple[int, str]]:
    """Return the lines of a file that are not empty, numbered from 1; only a newline ends one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{variable} {path} cannot be read: {error}") from error
    return [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]


def gold_share(rules: Rules, epoch: int) -> int:
    """Return the share of gold tasks of an epoch in ppm."""
    return rules.gold_ppm if epoch < rules.gold_epochs else rules.gold_floor_ppm


def gold_of(plan: Plan, seed: bytes) -> Gold:
    """Return the salted answer that is committed to; the salt hides it until the seed is revealed."""
    name = plan.task.hash()
    salt = Hash32("0x" + keccak256(seed + b"gold" + bytes.fromhex(name[2:])).hex())
    return Gold(name, plan.gold_ranks, salt)


def task_of(row: TaskRow) -> Task:
    """Return a stored task as the record that is hashed."""
    return Task(row.prompt, tuple(row.responses), tuple(row.methods))


def next_task(
    db: Db, seed: bytes, rules: Rules, epoch: int, wallet: Address, now: int, *, staked: bool
) -> Handed:
    """Hand the wallet the task it holds, or the next that the seed gives it; NotFoundError when there is none.

    The fewest judgements come first, then the seed's order. Tasks with enough judgements are kept back; those of
    wallets without stake do not count, or wallets that cost nothing could take all tasks away from the others.
    """
    method = method_of(seed, wallet, rules.methods)
    held = queries.live_lease(db, epoch, wallet, now)
    if held is not None and (row := queries.task_row(db, epoch, held.task)):
        return _hand(row, seed, wallet, method, held.expires_at)
    fitting = [
        t
        for t in queries.open_tasks(db, epoch, wallet, now)
        if method in t.methods and (wallet in t.assignees if t.assignees else t.taken < rules.overlap)
    ]
    fewest = min((t.taken for t in fitting), default=0)
    names = [Hash32(t.task) for t in fitting if t.taken == fewest]
    chosen = min(names, key=lambda name: task_priority(seed, wallet, name), default=None)
    row = queries.task_row(db, epoch, chosen) if chosen else None
    if row is None:
        raise NotFoundError(
            f"no task for {wallet} in epoch {epoch}: all that fit its method, {method}, have enough judgements"
        )
    lease = queries.lease_row(db, epoch, wallet, row.task)
    if lease is None:
        queries.add(
            db,
            LeaseRow(
                epoch=epoch, wallet=wallet, task=row.task, expires_at=now + rules.lease_s, staked=staked
            ),
        )
    else:
        lease.expires_at, lease.staked = now + rules.lease_s, staked
    return _hand(row, seed, wallet, method, now + rules.lease_s)


def _hand(row: TaskRow, seed: bytes, wallet: Address, method: str, expires_at: int) -> Handed:
    task = task_of(row)
    texts = dict(zip(task.hashes, task.responses, strict=True))
    shown = display_order(seed, wallet, Hash32(row.task), task.hashes)
    return Handed(Hash32(row.task), row.prompt, method, tuple(texts[h] for h in shown), expires_at)
