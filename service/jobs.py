"""The clock: five steps that each look at what is there and do the next thing; any of them can run twice.

index   finalized events into the ledger
commit  tell the chain what epochs were opened with, and what came of them
payout  close what has ended, post its root, activate it after the window
retrain start a run when the last is decided about and enough new comparisons are in
arena   let the models answer, and open the running epoch with the tasks that come of it
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from sqlmodel import Session as Db

from chain import committer, outbox, publisher
from chain import ledger as chain_ledger
from chain.committer import Writer
from chain.errors import ChainError, RpcError
from chain.events import Activated, Rejected
from chain.indexer import index
from chain.ledger import EpochReport
from chain.step import Outcome
from chain.types import Hash32
from service import asking, epochs, results, training
from service.context import Context, Pulse
from service.epochs import Draft
from service.errors import ConfigError, ConflictError, UnavailableError
from service.leader import Leader
from service.ledger import queries
from service.ledger.tables import EpochRow
from service.terminal import show_when

log = logging.getLogger(__name__)
SAME_AGAIN_S = 60.0
"""A step whose words stay the same, and whose numbers alone go on, is logged once in so long."""
NUMBER = re.compile(r"(?<!epoch )(?<!run )\d[\d:.-]*( s\b| min\b| h\b| days\b)?")
"""What moves by itself: blocks, times, counts. The number of an epoch or of a run is news."""
PLAIN = (RpcError, UnavailableError, ConfigError)
"""Failures of a node or a setting: their words say all, and a traceback would only tell how it was asked."""


class _Told:
    """Says in the log how far a long backfill is, now and then."""

    EVERY_S = 10.0

    def __init__(self) -> None:
        self._began = self._said_at = time.monotonic()
        self._from = -1

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        self._from = done if self._from < 0 else self._from
        if now - self._said_at < self.EVERY_S:
            return
        self._said_at = now
        left = (of - done) * (now - self._began) / max(1, done - self._from)
        log.info("indexed to block %s of %s, about %.0f s left", done, of, left, extra={"job": "index"})


def step_index(ctx: Context) -> str:
    """Copy new finalized events into the ledger."""
    found = index(ctx.rpc, ctx.db.write, ctx.deployment, _Told())
    if found.events:
        log.info(
            "index: new events: %s, up to block %s", found.events, found.indexed_to, extra={"job": "index"}
        )
    return f"indexed to block {found.indexed_to} of {found.finalized} finalized, head {found.head}"


def close_epoch(ctx: Context, epoch: int) -> Draft | None:
    """Close an epoch that has ended, or return None while it cannot be; nothing is half-written."""
    with ctx.db.read() as db:
        item = epochs.draft(db, ctx.rpc, ctx.place, epoch)
    if item is None:
        return None
    # A hundred megabytes, written before anybody has to wait for us.
    results.write_files(ctx.place, item)
    now = ctx.clock.now()
    with ctx.db.write() as db:
        results.store(db, ctx.place, item, now)
        db.commit()
    log.info("epoch %s closed: %s wallets, sum %s", epoch, len(item.closed.scores), item.closed.tree.sum)
    for task in sorted(item.closed.retired):
        log.warning("epoch %s: the gold of task %s proved wrong and did not count: mend it", epoch, task)
    return item


def step_commit(ctx: Context) -> str:
    """Write openings and closes to the chain's EpochLedger, in order; each is written once.

    First what was sent is followed: what a reorg took back is sent again, what fees left behind is replaced.
    """
    if ctx.poster is not None:
        with ctx.db.stepwise() as db:
            outbox.follow(ctx.rpc, db, ctx.poster)
    with ctx.db.read() as db:
        newest = queries.newest_epochs(db, 2)
    for row in newest:
        if row.committed_at is not None:
            # A reorg may have taken back what was there: then it is written again.
            _note(ctx, row.epoch)
    with ctx.db.read() as db:
        rows = queries.unwritten_epochs(db)
    said = []
    for row in rows:
        if ctx.poster is None:
            return f"epoch {row.epoch} waits for a service with the poster's key"
        if row.committed_at is None:
            write_opening(ctx, row)
            said.append(f"epoch {row.epoch} is open on the chain")
        if row.closed_at is not None:
            write_close(ctx, row)
            said.append(f"epoch {row.epoch} is closed on the chain")
    return ", ".join(said) or "all is written"


def write_opening(ctx: Context, row: EpochRow, *, dry_run: bool = False) -> Outcome:
    """Tell the chain what an epoch was opened with, once; nobody is asked anything before."""
    with ctx.db.stepwise() as db:
        done = committer.open_epoch(_writer(ctx, db, dry_run=dry_run), row.epoch, epochs.opening(row))
    _note(ctx, row.epoch)
    return done


def write_close(ctx: Context, row: EpochRow, *, dry_run: bool = False) -> Outcome:
    """Tell the chain what came of a closed epoch, once; nothing is posted before."""
    with ctx.db.stepwise() as db:
        report = chain_ledger.epoch_report(db, row.epoch)
        if report is None:
            raise ConflictError(f"epoch {row.epoch} is not closed")
        roots, seed = (Hash32(report.ledger_root), Hash32(report.data_hash)), ctx.place.seed(row.epoch)
        writer = _writer(ctx, db, dry_run=dry_run)
        if row.abandoned_at is not None:
            done = committer.abandon_epoch(writer, row.epoch, roots[1])
        else:
            done = committer.close_epoch(writer, row.epoch, seed, epochs.opening(row), *roots)
    _note(ctx, row.epoch)
    return done


def _writer(ctx: Context, db: Db, *, dry_run: bool) -> Writer:
    return Writer(ctx.rpc, db, ctx.deployment, ctx.payer(), dry_run)


def _note(ctx: Context, epoch: int) -> None:
    """Note what the chain's ledger knows of an epoch."""
    known = committer.epoch_record(ctx.rpc, ctx.deployment, epoch)
    with ctx.db.write() as db:
        row = queries.epoch_row(db, epoch, lock=True)
        report = chain_ledger.epoch_report(db, epoch)
        if row is not None:
            row.committed_at = known.opened_at or None
            anchored = report is not None and known.data_hash == report.data_hash
            row.anchored_at = known.closed_at if known.closed_at and anchored else None
        db.commit()


def _open_empty(ctx: Context, epoch: int) -> None:
    """Open an epoch that ended before anybody was asked anything, so that the next can follow it."""
    now = ctx.clock.now()
    with ctx.db.write() as db:
        if queries.epoch_row(db, epoch) is None:
            epochs.open_epoch(db, ctx.place, epoch, [], ctx.rules, now)
        db.commit()


def step_payout(ctx: Context) -> str:
    """Close, post and activate the oldest epochs that wait for it, one after the other."""
    with ctx.db.read() as db:
        following = queries.last_closed(db) + 1
    waits = ""
    if ctx.clock.now() >= ctx.place.start(following + 1):
        _open_empty(ctx, following)
        if close_epoch(ctx, following) is None:
            waits = (
                f"epoch {following} has ended; waiting for its snapshot block to be finalized and indexed; "
            )
    return waits + _publish(ctx)


def _unsettled(ctx: Context) -> list[EpochReport]:
    """Return the reports, oldest first, that are not yet known here as active by a finalized block.

    A reorg may take back one that is not final; one that was activated by somebody else is final and not known.
    """
    with ctx.db.read() as db:
        settled = {e.epoch for e in chain_ledger.reports(db) if isinstance(e, Activated)}
        return [r for r in chain_ledger.epoch_reports(db) if r.status != "active" or r.epoch not in settled]


def _publish(ctx: Context) -> str:
    """Bring the oldest report that does not pay yet one step further: post it, or activate it after its window."""
    waits = "nothing to post"
    for row in _unsettled(ctx):
        if ctx.poster is None:
            return f"epoch {row.epoch} waits for a service with the poster's key"
        state = publisher.chain_state(ctx.rpc, ctx.deployment)
        if state.next_epoch > row.epoch:
            with ctx.db.stepwise() as db:
                # It raises where the chain pays by another report than this one.
                report = publisher.report_of(row)
                publisher.publish(ctx.rpc, db, ctx.deployment, ctx.poster, report, dry_run=True)
            waits = _mark(ctx, row, "active")
        elif row.status == "vetoed" and state.pending_epoch != row.epoch:
            raise _vetoed(row.epoch)
        elif state.pending_epoch is None and row.status == "posted" and _was_rejected(ctx, row):
            _mark(ctx, row, "vetoed")
            raise _vetoed(row.epoch)
        elif state.pending_epoch is None and not _anchored(ctx, row.epoch):
            return f"epoch {row.epoch} waits until its close is on the chain"
        else:
            return _step(ctx, row, state)
    return waits


def _anchored(ctx: Context, epoch: int) -> bool:
    with ctx.db.read() as db:
        row = queries.epoch_row(db, epoch)
    return row is not None and row.anchored_at is not None


def _step(ctx: Context, row: EpochReport, state: publisher.ChainState) -> str:
    """Post this report, wait for its window, or activate it."""
    poster = ctx.payer()
    with ctx.db.stepwise() as db:
        # It posts only what is not there, and raises where the chain has another report for the epoch.
        publisher.publish(ctx.rpc, db, ctx.deployment, poster, publisher.report_of(row))
        if state.pending_epoch != row.epoch:
            return _mark(ctx, row, "posted")
        if state.time < state.active_at:
            _mark(ctx, row, "posted")
            return f"epoch {row.epoch} is posted; its challenge window ends at {show_when(state.active_at, state.time)}"
        publisher.activate(ctx.rpc, db, ctx.deployment, poster, row.epoch)
    return _mark(ctx, row, "active")


def _was_rejected(ctx: Context, row: EpochReport) -> bool:
    """Say whether the last that happened to this report on the chain is a veto or a challenge."""
    history = publisher.history(ctx.rpc, ctx.deployment, publisher.report_of(row))
    return bool(history) and isinstance(history[-1], Rejected)


def _vetoed(epoch: int) -> ChainError:
    """Return the error that stops the payouts, loudly, until an operator has decided."""
    return ChainError(
        f"epoch {epoch} was vetoed by the guardian, or rejected with a proof: find out why, then "
        f"`haptic epoch post --epoch {epoch} --again`, "
        f"or `haptic epoch reopen --epoch {epoch}` to compute it anew"
    )


def _mark(ctx: Context, row: EpochReport, status: str) -> str:
    if row.status != status:
        with ctx.db.write() as db:
            queries.epoch_row(db, row.epoch, lock=True)
            report = chain_ledger.epoch_report(db, row.epoch)
            if report is not None:
                report.status = status
            db.commit()
    return f"epoch {row.epoch} is {status}"


def step_retrain(ctx: Context) -> str:
    """Queue a retraining when the last is decided about and enough labelled comparisons came in since."""
    with ctx.db.read() as db:
        if not training.contenders(db, ctx.settings):
            return "no model yet"
        if waits := training.undecided(db, ctx.settings):
            return waits
        models, (_, came) = training.said(db, ctx.settings), training.unlearned(db, ctx.place)
    if came < (wanted := ctx.settings.retrain_after):
        return f"{models}; {came} of the {wanted} labelled comparisons that start a retraining have come in"
    with ctx.db.write() as db:
        run = training.due_run(db, ctx.place, ctx.settings)
        db.commit()
    return f"run {run.run} queued: epochs {run.first} to {run.last}" if run else "another service was faster"


def step_arena(ctx: Context) -> str:
    """Open the running epoch as soon as the one before is closed and the models have answered."""
    if not ctx.settings.arena:
        return "off: tasks come from elsewhere"
    epoch = ctx.epoch_now()
    if waits := asking.arena_waits(ctx, epoch):
        return waits
    prompts = asking.prompts(ctx, epoch)
    with ctx.db.write() as db:
        models = training.contenders(db, ctx.settings)
        jobs = training.ask_answers(db, ctx.settings, epoch, prompts, models)
        db.commit()
    failed = [j for j in jobs if j.state == "failed"]
    if failed and (len(failed) == len(jobs) or asking.may_wait(ctx, epoch)):
        why = "; ".join(f"{j.name}: {j.error}" for j in failed)
        raise ConfigError(
            f"{why}. Mend it, and `haptic worker --retry {failed[0].name}`; a quarter into the epoch it is opened "
            "with the answers of the others, if there are any"
        )
    if any(j.state not in {"done", "failed"} for j in jobs):
        return "waiting for the models' answers"
    models = [m for m, j in zip(models, jobs, strict=True) if j.state == "done"]
    plans, now = asking.plans(ctx, epoch, models), ctx.clock.now()
    with ctx.db.write() as db:
        epochs.open_epoch(db, ctx.place, epoch, plans, ctx.rules, now)
        db.commit()
    missing = "".join(f", WITHOUT {j.name}: {j.error}" for j in failed)
    return f"epoch {epoch} opened with {len(plans)} tasks{missing}"


STEPS: dict[str, Callable[[Context], str]] = {
    "index": step_index,
    "commit": step_commit,
    "payout": step_payout,
    "retrain": step_retrain,
    "arena": step_arena,
}


def run_step(ctx: Context, pulse: Pulse, name: str) -> None:
    """Run one step; a failure is logged, once a minute while it lasts, shown by /healthz, and raised."""
    began = time.monotonic()
    # A job that hangs in its first run is late too.
    pulse.ran_at.setdefault(name, time.time())
    try:
        said = STEPS[name](ctx)
        if _is_news(pulse, name, said, began):
            log.info("%s: %s", name, said, extra={"job": name})
        pulse.waits[name] = said
        if pulse.errors.pop(name, None) is not None:
            pulse.told.pop(_failed(name), None)
            log.info("the job %s works again", name, extra={"job": name})
    except Exception as error:
        pulse.errors[name] = f"{type(error).__name__}: {error}"
        pulse.failures[name] = pulse.failures.get(name, 0) + 1
        if _is_news(pulse, _failed(name), pulse.errors[name], began):
            words = "the job %s failed: %s", name, pulse.errors[name]
            log.exception(*words, exc_info=not isinstance(error, PLAIN), extra={"job": name})
        raise
    finally:
        pulse.ran_at[name] = time.time()
        pulse.seconds[name] = time.monotonic() - began


def _failed(name: str) -> str:
    """Return under which name the log's last word of a job's failure is kept."""
    return f"{name} failed"


def _is_news(pulse: Pulse, name: str, said: str, now: float) -> bool:
    """Say whether what a step says belongs into the log: other words than the last there, or a minute later; note it."""
    words, since = pulse.told.get(name, ("", 0.0))
    if said == pulse.waits.get(name) or (NUMBER.sub("#", said) == words and now - since < SAME_AGAIN_S):
        return False
    pulse.told[name] = NUMBER.sub("#", said), now
    return True


def _tick(ctx: Context, leader: Leader, name: str) -> None:
    """Run one step if this replica leads."""
    if leader.leads():
        run_step(ctx, ctx.pulse, name)
    else:
        ctx.pulse.forget(name)


def schedule(ctx: Context, leader: Leader) -> BackgroundScheduler:
    """Return the clock, not yet started; a step that is still running is not started again, nor without the lock."""
    clock = BackgroundScheduler(
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    )
    arguments: dict[str, Any] = {"trigger": "interval", "seconds": ctx.settings.tick_s}
    for name in STEPS:
        clock.add_job(_tick, args=(ctx, leader, name), id=name, **arguments)
    return clock
