"""Which of several replicas runs the clock: the one that holds a lock, which goes with its holder.

On PostgreSQL that is an advisory lock of a session, on SQLite a locked file beside the database; each is free when
the holder's process dies, and PostgreSQL's also when its host is gone or frozen (`SessionLock`).

A step looks at the lock right before it begins. One that is under way while the lock is lost, because the database
was restarted or could not be reached, may still run beside the next leader's. It does no harm:

- events are stored in one transaction with the checkpoint, which moves only from where it was read;
- an epoch is opened, closed and reopened by one transaction at a time, which finds what the last one left;
- what a worker is asked for has a name that is unique;
- a transaction is stored under its sender and nonce, which are unique, before it is sent, and the contracts take an
  opening, a close, a root and its activation once.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from chain.deployment import Deployment
from service.context import Pulse
from service.database import Database, SessionLock

log = logging.getLogger(__name__)
PAUSE_S = 3.0
"""Between two looks at the lock: well within `LEASE_S`, and another leads soon after the last one is gone."""


class Lock(Protocol):
    """What at most one process holds, and no dead one."""

    def take(self) -> bool:
        """Tell whether it is held here, taking it if it is free."""

    def release(self) -> None:
        """Let it go."""


class LockFile:
    """A file that one process has locked."""

    def __init__(self, path: Path) -> None:
        self._path, self._inode = path, 0
        # Not the lock of a thread: whichever runs a step asks.
        self._lock = FileLock(path, thread_local=False)

    def take(self) -> bool:
        """Tell whether the file is locked here, locking it if it is free; not if somebody took it away since."""
        if self._lock.is_locked and self._found() != self._inode:
            self.release()
        if not self._lock.is_locked:
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                return False
            self._inode = self._found()
        return True

    def release(self) -> None:
        """Unlock the file."""
        self._lock.release(force=True)

    def _found(self) -> int:
        """Return which file has the name now; 0 where none has."""
        try:
            return self._path.stat().st_ino
        except FileNotFoundError:
            return 0


def clock_lock(db: Database, deployment: Deployment) -> Lock:
    """Return the lock of a deployment's clock: beside the SQLite file, or in the PostgreSQL database."""
    url = db.engine.url
    if url.get_backend_name() == "sqlite":
        return LockFile(Path(f"{url.database}.clock"))
    network = f"{deployment.chain_id} {deployment.vault} {deployment.distributor}"
    return SessionLock(db.engine, f"clock of {network}")


class Leader:
    """Takes the lock when it is free, looks after it, and tells the steps of the clock whether they may begin."""

    def __init__(self, lock: Lock, pulse: Pulse, pause_s: float = PAUSE_S) -> None:
        self._lock, self._pulse, self._pause_s = lock, pulse, pause_s
        self._guard, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="leader", daemon=True)

    def __enter__(self) -> Self:
        self.look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let another lead; no step may run here any more."""
        self._stop.set()
        self._thread.join()
        with self._guard:
            self._pulse.leads = False
            self._lock.release()

    def leads(self) -> bool:
        """Tell whether this replica leads, by a look at the lock that it holds: only then a step may begin."""
        return self._pulse.leads and self.look()

    def look(self) -> bool:
        """Take the lock if it is free, or make sure that it is still held; tell whether this replica leads now."""
        with self._guard:
            led, trouble = self._pulse.leads, ""
            try:
                self._pulse.leads = not self._stop.is_set() and self._lock.take()
            except (SQLAlchemyError, OSError) as error:
                self._pulse.leads, trouble = False, f"{type(error).__name__}: {error}"
            self._tell(led, trouble)
            return self._pulse.leads

    def _tell(self, led: bool, trouble: str) -> None:  # noqa: FBT001  # what was, beside what is
        if led != self._pulse.leads:
            log.info("this replica %s the clock", "leads" if self._pulse.leads else "no longer leads")
        if trouble:
            self._pulse.errors[JOB] = (
                f"nobody may lead the clock while its lock cannot be asked for: {trouble}"
            )
        else:
            self._pulse.errors.pop(JOB, None)

    def _watch(self) -> None:
        while not self._stop.wait(self._pause_s):
            self.look()


JOB = "leader"
"""Under this name /healthz tells why the lock cannot be asked for."""
