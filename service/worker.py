"""The worker process: takes a job, runs the trainer as a child, and sees it when the child dies.

It holds no torch itself. The child's standard input is a pipe that nobody writes to: when the worker dies,
even by kill -9, the pipe closes and the child ends, so that a job never runs twice at once.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from service.database import Database
from service.ledger import work
from service.ledger.tables import JobRow

log = logging.getLogger(__name__)
STALE_S = 30.0
"""A worker that has been silent for so long is taken for dead."""
BEATS = 15
"""Signs of life in that time."""


@dataclass(slots=True)
class _Seen:
    """The newest progress of a child; replaced as a whole, because another thread reads it."""

    progress: dict[str, Any] = field(default_factory=dict)


def _child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without this service's variables: training needs no key, password or database.

    Unbuffered, because what a child had printed when it was killed is what its operator will want to read.
    """
    return {k: v for k, v in environ.items() if not k.startswith("HAPTIC_")} | {"PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker needs: the queue, a folder for logs, and how often a job may fail."""

    db: Database
    logs: Path
    max_attempts: int
    command: tuple[str, ...] = (sys.executable, "-m", "trainer")
    stale_s: float = STALE_S

    def run_one(self) -> bool:
        """Run one job to its end and return True, or return False when none waits."""
        job = self._claim()
        if job is None:
            return False
        seen, began = _Seen(), time.monotonic()
        log.info("job %s begins, attempt %s; its progress is in %s", job.name, job.attempts, job.log)
        try:
            status = self._run(job, seen)
        except BaseException:
            self._update(job, _give_back)
            raise
        self._finish(job, status, seen.progress)
        if status == 0:
            log.info("job %s is done after %.0f s", job.name, time.monotonic() - began)
        return True

    def _claim(self) -> JobRow | None:
        """Take the oldest job that waits, under a token that no other attempt has."""
        with self.db.write() as db:
            work.bury_jobs(db, time.time(), self.stale_s, self.max_attempts)
            job = work.claim_job(db, secrets.token_hex(8), time.time(), self.stale_s)
            if job is not None:
                job.log = str(self.logs / (job.name.replace("/", "-") + ".log"))
            db.commit()
        return job

    def _run(self, job: JobRow, seen: _Seen) -> int:
        """Run the child, keep its log and its progress; return its exit status.

        Both of its streams come through one pipe: two writers to one log would cut each other's lines.
        """
        command = [*self.command, *job.arguments, "--exit-with-parent"]
        with Path(job.log).open("a", encoding="utf-8") as kept:
            kept.write(f"--- attempt {job.attempts}: {' '.join(command)}\n")
            kept.flush()
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, encoding="utf-8", errors="replace", env=_child_environment(os.environ),
            ) as child:  # fmt: skip
                stop = threading.Event()
                beat = threading.Thread(target=self._beat, args=(job, seen, child, stop), daemon=True)
                beat.start()
                try:
                    for line in child.stdout or ():
                        kept.write(line)
                        kept.flush()
                        seen.progress = _progress(line) or seen.progress
                    return child.wait()
                finally:
                    stop.set()
                    beat.join()
                    child.kill()

    def _beat(self, job: JobRow, seen: _Seen, child: subprocess.Popen[str], stop: threading.Event) -> None:
        """Write signs of life and progress until told to stop; end the child if the job is taken from here.

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
        log.error("job %s is another worker's by now: its child here is ended", job.name)
        child.kill()

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

    def _finish(self, job: JobRow, status: int, progress: dict[str, Any]) -> None:
        """Record the end: done, tried again, or failed for good with a word to the operator."""

        def end(row: JobRow) -> None:
            row.progress = progress
            if status == 0:
                row.state, row.error = "done", ""
                return
            cause = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
            row.error = f"attempt {job.attempts} {cause}; its log is {job.log}"
            row.state = "queued" if job.attempts < self.max_attempts else "failed"
            log.error("job %s: %s (%s)", job.name, row.error, row.state)

        self._update(job, end)

    def run_forever(self, stop: threading.Event, pause_s: float = 1.0) -> None:
        """Run jobs as they come until `stop` is set."""
        while not stop.is_set():
            if not self.run_one():
                stop.wait(pause_s)


def _give_back(row: JobRow) -> None:
    """Put a job back as if it had not been tried: its worker was stopped, the job did nothing wrong."""
    row.state, row.attempts, row.heartbeat_at = "queued", row.attempts - 1, 0.0


def _progress(line: str) -> dict[str, Any] | None:
    """Return the progress that a line of the child's output tells, if it does."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
