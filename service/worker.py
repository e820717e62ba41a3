"""The worker process: takes a job, runs the trainer as a child or on a cluster, and sees how that ends.

It holds no torch itself. A child ends with its worker; what a cluster has goes on, and the next worker follows it: a
job never runs twice at once.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from service.child import Child, Run
from service.cluster import STOPPED, Cluster
from service.database import Database
from service.errors import ClusterError
from service.ledger import work
from service.ledger.tables import JobRow

log = logging.getLogger(__name__)
STALE_S = 30.0
"""A worker that has been silent for so long is taken for dead."""
BEATS = 15
HELD = "put back by its worker, and the cluster has not said that it ended there"
"""What is said of a job meanwhile: it may wait for room there, where it can be told to stop and does so only later."""
"""Signs of life in that time."""


@dataclass(slots=True)
class _Seen:
    """What is known of a run."""

    progress: dict[str, Any] = field(default_factory=dict)
    """The newest; replaced as a whole, because another thread reads it."""
    over: bool = False
    """Whether it has ended for sure. Until then the job's row keeps the name that a cluster knows it by."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker needs: the queue, a folder for logs, and how often a job may fail."""

    db: Database
    logs: Path
    max_attempts: int
    command: tuple[str, ...] = (sys.executable, "-m", "trainer")
    stale_s: float = STALE_S
    cluster: Cluster | None = None
    """Where to run the command; as a child of this process where there is none."""

    def run_one(self) -> bool:
        """Run one job to its end and return True, or return False when none waits."""
        job = self._claim()
        if job is None:
            return False
        seen, began = _Seen(), time.monotonic()
        log.info("job %s begins, attempt %s; its progress is in %s", job.name, job.attempts, job.log)
        try:
            outcome = self._run(job, seen)
        except BaseException:
            self._update(job, lambda row: _give_back(row, seen))
            raise
        if outcome is None:
            return True
        if outcome == STOPPED and job.error == HELD:
            self._update(job, lambda row: _give_back(row, seen))
            return True
        self._finish(job, outcome, seen)
        if not outcome:
            log.info("job %s is done after %.0f s", job.name, time.monotonic() - began)
        return True

    def _claim(self) -> JobRow | None:
        """Take the oldest job that waits, under a token that no other attempt has."""
        with self.db.write() as db:
            work.bury_jobs(db, time.time(), self.stale_s, self.max_attempts)
            on_cluster = self.cluster is not None
            job = work.claim_job(db, secrets.token_hex(8), time.time(), self.stale_s, cluster=on_cluster)
            if job is not None:
                job.log = str(self.logs / (job.name.replace("/", "-") + ".log"))
            db.commit()
        return job

    def _run(self, job: JobRow, seen: _Seen) -> str | None:
        """Run the command, keep its log and its progress; return what `Run.outcome` does."""
        command = [*self.command, *job.arguments]
        with Path(job.log).open("a", encoding="utf-8") as kept:
            where = f" on the cluster as {work.submission(job.worker)}" if self.cluster else ""
            kept.write(f"--- attempt {job.attempts}{where}: {' '.join(command)}\n")
            kept.flush()
            os.fsync(kept.fileno())  # a node of the cluster looks for that line
            run = self._start(job, command)
            stop = threading.Event()
            beat = threading.Thread(target=self._beat, args=(job, seen, run, stop), daemon=True)
            beat.start()
            try:
                for line in run.lines():
                    kept.write(line)
                    kept.flush()
                    seen.progress = _progress(line) or seen.progress
                return run.outcome()
            finally:
                try:
                    seen.over = run.stop()
                finally:
                    stop.set()
                    beat.join()

    def _start(self, job: JobRow, command: Sequence[str]) -> Run:
        if self.cluster is None:
            return Child(command)
        return self.cluster.start(job, command, anew=job.attempts <= self.max_attempts)

    def _beat(self, job: JobRow, seen: _Seen, run: Run, stop: threading.Event) -> None:
        """Write signs of life and progress until told to stop; let go of the run if the job is taken from here.

        A beat that cannot be written is tried again, but only as long as nobody else can have taken the job.
        """
        last = time.monotonic()
        while not stop.wait(self.stale_s / BEATS):
            try:
                if not self._update(job, lambda row: setattr(row, "progress", seen.progress)):
                    break
                last = time.monotonic()
            except SQLAlchemyError:
                log.exception("job %s: no sign of life could be written", job.name)
                if time.monotonic() - last > self.stale_s:
                    break
        else:
            return
        log.error("job %s is another worker's by now: this one lets go of it", job.name)
        run.lose()

    def _update(self, job: JobRow, change: Callable[[JobRow], None]) -> bool:
        """Apply a change to the job if it is still this worker's, with a heartbeat; say whether it is."""
        with self.db.write() as db:
            row = work.job_row(db, job.id)
            mine = row is not None and row.worker == job.worker and row.state == "running"
            if row is not None and mine:
                row.heartbeat_at = time.time()
                change(row)
            db.commit()
        return mine

    def _finish(self, job: JobRow, cause: str, seen: _Seen) -> None:
        """Record the end: done, tried again, or failed for good with a word to the operator."""

        def end(row: JobRow) -> None:
            row.progress = seen.progress
            if seen.over:
                row.worker = ""
            if not cause:
                row.state, row.error = "done", ""
                return
            row.error = f"attempt {job.attempts} {cause}; its log is {job.log}"
            row.state = "queued" if job.attempts < self.max_attempts else "failed"
            log.error("job %s: %s (%s)", job.name, row.error, row.state)

        self._update(job, end)

    def run_forever(self, stop: threading.Event, pause_s: float = 1.0) -> None:
        """Run jobs as they come until `stop` is set."""
        while not stop.is_set():
            try:
                if not self.run_one():
                    stop.wait(pause_s)
            except ClusterError as error:
                log.error("%s; the job waits, and is tried again", error)  # noqa: TRY400  # its words say all
                stop.wait(self.stale_s)


def _give_back(row: JobRow, seen: _Seen) -> None:
    """Put a job back as if it had not been tried: its worker was stopped, the job did nothing wrong."""
    if seen.over:
        row.worker = ""
        row.error = "" if row.error == HELD else row.error
    elif work.submission(row.worker):
        row.error = HELD
    row.state, row.attempts, row.heartbeat_at = "queued", row.attempts - 1, 0.0


def _progress(line: str) -> dict[str, Any] | None:
    """Return the progress that a line of output tells, if it does."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
