"""Where models meet: their answers become blind tasks, some of them gold, before an epoch opens."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from chain.canonical import text_hash
from chain.errors import HapticError
from chain.feedback import Task, dense_ranks
from chain.gold import Gold, salt_of
from chain.hashing import keccak256
from chain.messages import parse_address
from chain.rules import SIZES, Rules
from chain.types import Address
from service.errors import ConfigError
from service.ledger.tables import TaskRow
from service.redaction import Redaction, clean, redact
from trainer import gold as lexicon

MIX = (4, 2, 3, 4, 2, 6, 4, 2)
"""Responses that tasks show, in turn, as far as there are answers: pairs are all that some wallets are asked."""
Content: TypeAlias = tuple[str, tuple[str, ...]]
"""A prompt and the responses to it, in the order of `Task.responses`: what a task asks, in whatever epoch."""


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
    redacted: tuple[Redaction, ...] = ()
    """What was changed in the responses before anybody saw them."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the models are asked, and the wallet that thought of it, which is not asked about the answers."""

    text: str
    author: str = ""


def content_of(task: Task) -> Content:
    """Return what a task asks."""
    return task.prompt, task.responses


def methods_for(size: int, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the methods by which a task of `size` responses can be judged."""
    fits = {"pairwise": size == 2, "best_worst": size > 2, "ranking": True, "likert": True}
    return tuple(m for m in allowed if fits[m])


def plan_tasks(
    answers: Iterable[Answer], rules: Rules, count: int, draw: bytes, authors: Mapping[str, str] | None = None
) -> list[Plan]:
    """Return up to `count` tasks of these answers, of the sizes of MIX as far as there are different answers.

    Names of models in them are taken out first; within a task the models alternate, so that each meets the others;
    equal texts are shown once. `draw` is secret randomness, 32 bytes, and decides which answers meet. `authors` are
    the wallets that prompts are of.
    """
    by_prompt: dict[str, dict[str, list[Redaction]]] = defaultdict(lambda: defaultdict(list))
    listed = sorted(answers, key=lambda a: _place(draw, a))
    models = {a.model for a in listed}
    seen: set[tuple[str, str]] = set()
    for answer in listed:
        found = redact(answer.text, models, answer.prompt)
        if (answer.prompt, found.shown) not in seen:
            seen.add((answer.prompt, found.shown))
            by_prompt[answer.prompt][answer.model].append(found)
    plans = []
    for place, prompt in enumerate(sorted(by_prompt, key=lambda p: keccak256(draw + p.encode()))[:count]):
        mixed = _alternate(by_prompt[prompt])
        fitting = [s for s in SIZES if s <= len(mixed) and methods_for(s, rules.methods)]
        if fitting:
            size = max((s for s in fitting if s <= MIX[place % len(MIX)]), default=fitting[0])
            plans.append(_plan(prompt, mixed[:size], rules, (authors or {}).get(prompt, "")))
    return plans


def _place(draw: bytes, answer: Answer) -> bytes:
    """Return the key that shuffles answers; of two models with the same text, it decides whose it is."""
    return keccak256(draw + "".join(map(text_hash, (answer.prompt, answer.text, answer.model))).encode())


def _alternate(by_model: Mapping[str, Sequence[Redaction]]) -> list[tuple[str, Redaction]]:
    """Return (model, text) with the models taking turns, in the order in which they were drawn."""
    rows = [(i, n, m) for n, (m, texts) in enumerate(by_model.items()) for i in range(len(texts))]
    return [(m, by_model[m][i]) for i, _, m in sorted(rows)]


def _plan(prompt: str, chosen: Sequence[tuple[str, Redaction]], rules: Rules, author: str) -> Plan:
    task = Task.of(prompt, (t.shown for _, t in chosen), methods_for(len(chosen), rules.methods), author)
    model = {t.shown: m for m, t in chosen}
    changed = tuple(t for _, t in chosen if t.changed)
    return Plan(task, tuple(model[t] for t in task.responses), redacted=changed)


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
        ranks = dense_ranks([lexicon.score(task.prompt, t) for t in task.responses])
        result[i] = replace(plans[i], gold_ranks=ranks)
    return result


def file_gold(
    path: Path, rules: Rules, wanted: int, used: Callable[[Collection[Content]], set[Content]]
) -> list[Plan]:
    """Return the next `wanted` gold tasks of a JSONL file of {"prompt", "responses", "ranks"} that were never used.

    `used` returns which of the contents that it is given are those of a task of any epoch.
    """
    plans: dict[Content, Plan] = {}
    for where, row in numbered_rows(path, "HAPTIC_GOLD_FILE"):
        try:
            # As answers of models are: what looks different may tell which tasks are gold.
            found = [redact(text, (), row["prompt"]) for text in row["responses"]]
            texts, ranks = [f.shown for f in found], [int(r) for r in row["ranks"]]
            task = Task.of(clean(row["prompt"]), texts, methods_for(len(texts), rules.methods))
            place = dict(zip(texts, ranks, strict=True))
        except (ValueError, KeyError, TypeError, AttributeError, HapticError) as error:
            raise ConfigError(f"{where}: {error}") from error
        given, changed = tuple(place[t] for t in task.responses), tuple(f for f in found if f.changed)
        plans.setdefault(content_of(task), Plan(task, ("gold",) * len(texts), given, changed))
    gone = used(plans.keys())
    return [plan for content, plan in plans.items() if content not in gone][:wanted]


def read_prompts(path: Path) -> list[Prompt]:
    """Return the prompts of a JSONL file of {"prompt", "author"}; ConfigError names the line that has none.

    The author, a wallet that is not asked about its own prompt, may be left out.
    """
    prompts: dict[str, Prompt] = {}
    for where, row in numbered_rows(path, "HAPTIC_PROMPTS_FILE"):
        try:
            author = parse_address(row["author"], "author") if row.get("author") else ""
            found = Prompt(clean(str(row["prompt"])), author)
        except (ValueError, KeyError, TypeError, AttributeError, HapticError) as error:
            raise ConfigError(
                f'{where}: expected {{"prompt": "…"}}, and perhaps "author", found {str(row)[:60]}: {error}'
            ) from error
        if prompts.setdefault(found.text, found) != found:
            raise ConfigError(f"{where}: the prompt stands there twice, by different authors")
    return list(prompts.values())


def numbered_rows(path: Path, variable: str) -> Iterator[tuple[str, Any]]:
    """Yield where each line of a JSONL file stands, in words for an error, and what it says; empty lines are left out.

    ConfigError names the line that is no JSON. Only a newline ends one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{variable} {path} cannot be read: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{variable} {path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: it is not JSON: {error}") from error
        yield where, row


def gold_share(rules: Rules, epoch: int) -> int:
    """Return the share of gold tasks of an epoch in ppm."""
    return rules.gold_ppm if epoch < rules.gold_epochs else rules.gold_floor_ppm


def gold_of(plan: Plan, seed: bytes) -> Gold:
    """Return the salted answer that is committed to; the salt hides it until the seed is revealed."""
    name = plan.task.hash()
    return Gold(name, plan.gold_ranks, salt_of(seed, name))


def task_of(row: TaskRow) -> Task:
    """Return a stored task as the record that is hashed."""
    assignees = tuple(map(Address, row.assignees))
    return Task(row.prompt, tuple(row.responses), tuple(row.methods), row.author, assignees, row.salt)
