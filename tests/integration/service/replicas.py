"""Replicas of a service as bare processes: each runs the clock with one step, which notices when it is not alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from service import database

HERE = SimpleNamespace(chain_id=1, vault="0x" + "1" * 40, distributor="0x" + "2" * 40)
REPLICA = """
import fcntl, json, os, random, signal, sys, time
from types import SimpleNamespace
from service import database, jobs
from service.context import Pulse
from service.leader import Leader, clock_lock

PF_EXITING = 4

def is_dead(pid):
    # It runs nothing any more, even if not all that it held is free yet.
    try:
        stat = open(f"/proc/{pid}/stat").read()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(int(stat.rpartition(")")[2].split()[6]) & PF_EXITING)

def run(job):
    alone = os.open(job["folder"] + "/alone", os.O_RDWR | os.O_CREAT)
    log = os.open(job["folder"] + "/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def step(_):
        try:
            fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not is_dead(int(os.pread(alone, 20, 0) or 0)):
                os.write(log, b"TWO\\n")
                return ""
            fcntl.flock(alone, fcntl.LOCK_EX)
        os.pwrite(alone, b"%20d" % os.getpid(), 0)
        os.write(log, b"%d\\n" % os.getpid())
        time.sleep(random.uniform(0, 0.04))
        fcntl.flock(alone, fcntl.LOCK_UN)
        return ""

    jobs.STEPS.clear()
    jobs.STEPS["step"] = step
    database.LEASE_S = job["lease_s"]
    db = database.Database(database.open_engine(job["url"]))
    ctx = SimpleNamespace(settings=SimpleNamespace(tick_s=0.03), pulse=Pulse())
    with Leader(clock_lock(db, SimpleNamespace(**job["deployment"])), ctx.pulse, 0.1) as leader:
        jobs.schedule(ctx, leader).start()
        signal.pause()

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
children = []
for line in sys.stdin:
    child = os.fork()
    if not child:
        run(json.loads(line))
    children.append(child)
    print(child, flush=True)
for child in children:
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
"""Imports the service once and forks a replica for each line: its clock has one step, which notices a second one."""


@dataclass
class Replicas:
    """Real processes on one database, each with the clock of a replica."""

    zygote: subprocess.Popen[str]
    folder: Path
    url: str
    lease_s: int = database.LEASE_S
    pids: list[int] = field(default_factory=list)

    def add(self) -> int:
        job = {"folder": str(self.folder), "url": self.url, "deployment": vars(HERE), "lease_s": self.lease_s}
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.write(json.dumps(job) + "\n")
        self.zygote.stdin.flush()
        self.pids.append(int(self.zygote.stdout.readline()))
        return self.pids[-1]

    def kill(self, pid: int) -> None:
        self.pids.remove(pid)
        os.kill(pid, signal.SIGKILL)

    def steps(self) -> list[str]:
        """Return who ran a step, one after the other; TWO where two would have run one at once."""
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def next_step(self, after: int, by: Callable[[int], bool] = lambda _: True) -> int:
        """Return who runs the next step after that many, of those wanted."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for step in self.steps()[after:]:
                assert step != "TWO", "two replicas ran a step at once"
                if by(int(step)):
                    return int(step)
            time.sleep(0.01)
        raise AssertionError("nobody took over within 30 s")
