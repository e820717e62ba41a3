"""What an epoch's people are asked: its prompts, the tasks that come of the models' answers, and what both wait for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial

from chain.hashing import keccak256
from service import arena, training
from service.context import Context
from service.errors import ConfigError
from service.ledger import queries, work
from service.pool import file_tasks
from trainer import corpus

log = logging.getLogger(__name__)


def may_wait(ctx: Context, epoch: int) -> bool:
    """Say whether the epoch's arena may still wait for what is not indispensable: a quarter of the epoch is for that."""
    return ctx.clock.now() < ctx.place.start(epoch) + ctx.deployment.epoch_length // 4


def _training_goes_on(ctx: Context, epoch: int) -> bool:
    """Say whether the epoch's arena should wait for a run."""
    if not may_wait(ctx, epoch):
        return False
    with ctx.db.read() as db:
        if training.due(db, ctx.place, ctx.settings):
            return True
        learning = work.jobs_by_number(db, [r.job for r in work.runs(db)])
        return any(j.state in {"queued", "running"} for j in learning.values())


def _pool(ctx: Context) -> list[arena.Prompt]:
    """Return all prompts that there are."""
    path = ctx.settings.prompts_file
    if path is not None:
        return arena.read_prompts(path)
    if ctx.settings.devnet_gold:
        return [arena.Prompt(p) for p in corpus.every_prompt()]
    raise ConfigError(
        'HAPTIC_PROMPTS_FILE is missing: a JSONL file of {"prompt": …} that the models are asked'
    )


def prompts(ctx: Context, epoch: int) -> list[str]:
    """Return the epoch's prompts, drawn by its seed, those never asked before first."""
    pool, seed = {p.text for p in _pool(ctx)}, ctx.place.seed(epoch)
    with ctx.db.read() as db:
        used = queries.used_prompts(db, pool)
    drawn = sorted(pool, key=lambda p: (p in used, keccak256(seed + b"prompt" + p.encode())))
    return drawn[: ctx.settings.tasks_per_epoch]


def _own_tasks(ctx: Context, plans: Sequence[arena.Plan]) -> list[arena.Plan]:
    """Return the epoch's tasks from the operator's file, as many as the arena may have, none of them ever asked before.

    Nor any that is gold: who was asked it once knows it.
    """
    settings = ctx.settings
    if settings.tasks_file is None:
        return []
    with ctx.db.read() as db:
        used = queries.task_contents(db) | {arena.content_of(p.task) for p in plans}
    if settings.gold_file is not None:
        golden = arena.file_gold(settings.gold_file, ctx.rules, sys.maxsize, lambda _: set())
        used |= {arena.content_of(p.task) for p in golden}
    return file_tasks(settings.tasks_file, ctx.rules, settings.tasks_per_epoch, used)


def plans(ctx: Context, epoch: int, models: Sequence[str]) -> list[arena.Plan]:
    """Return the epoch's tasks from the models' answers, some of them gold."""
    answers = [
        a for m in models for a in training.read_answers(training.answer_files(ctx.settings, epoch, m)[1])
    ]
    draw = keccak256(ctx.place.seed(epoch) + b"arena")
    share = arena.gold_share(ctx.rules, epoch)
    authors = {p.text: p.author for p in _pool(ctx)}
    plans = arena.plan_tasks(answers, ctx.rules, ctx.settings.tasks_per_epoch, draw, authors)
    own = _own_tasks(ctx, plans)
    if ctx.settings.devnet_gold:
        return arena.lexicon_gold(plans, share) + own
    plans += own
    if ctx.settings.gold_file is None:
        raise ConfigError(
            'HAPTIC_GOLD_FILE is missing: JSONL of {"prompt", "responses", "ranks"} with known answers'
        )
    wanted = -(-len(plans) * share // 1_000_000)
    with ctx.db.read() as db:
        gold = arena.file_gold(ctx.settings.gold_file, ctx.rules, wanted, partial(queries.used_contents, db))
    if len(gold) < wanted:
        log.warning(
            "%s has %s unused gold tasks, epoch %s wants %s: add more",
            ctx.settings.gold_file,
            len(gold),
            epoch,
            wanted,
        )
    return plans + gold


def arena_waits(ctx: Context, epoch: int) -> str:
    """Return what the epoch cannot be opened without yet, in words; nothing when all is there."""
    if epoch < 0:
        return "before genesis"
    with ctx.db.read() as db:
        row, closed = queries.epoch_row(db, epoch), queries.last_closed(db)
    if row is not None:
        return f"epoch {epoch} is open" if row.closed_at is None else f"epoch {epoch} is closed"
    if closed != epoch - 1:
        return f"waiting for epoch {epoch - 1} to be closed"
    with ctx.db.read() as db:
        if not training.contenders(db, ctx.settings):
            return "waiting for the first model"
    return "waiting for the retraining" if _training_goes_on(ctx, epoch) else ""
