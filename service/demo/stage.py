"""The stage: a devnet with the service and the worker on it, and the few moves that time needs."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from chain.devnet import Devnet, DevnetError, mine, warp
from chain.rpc import Rpc
from chain.rules import Rules
from service.api import Api
from service.devnet import Site, clear, held, prepare, process, wait_until_served
from service.terminal import out


class DemoError(DevnetError):
    """Something in the demo did not end as it should."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running network."""

    site: Site
    api: Api
    epoch_length: int
    window: int

    def start(self, epoch: int) -> int:
        """Return the first second of an epoch."""
        return self.site.deployment.genesis + epoch * self.epoch_length

    def now(self) -> int:
        """Return block time."""
        return self.site.rpc.block("latest").timestamp

    def go_to(self, timestamp: int) -> None:
        """Move block time forward, let three more blocks pass, so that it is finalized, and let the service see it."""
        if timestamp > self.now():
            warp(self.site.rpc, timestamp)
        mine(self.site.rpc, 3)
        # The service reads the clock every half second: who asks sooner is told what was true before.
        wait_for("the service's clock", lambda: self.api.get("/info")["now"] >= timestamp or None, self)


@contextmanager
def set_up(
    folder: Path,
    *,
    epoch_length: int,
    window: int,
    lead: int,
    rules: Rules,
    extra: Mapping[str, str] | None = None,
    tasks: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Stage]:
    """Start chain, contracts, service and worker; stop all of them at the end, however it comes.

    `tasks` are the operator's own, as lines of HAPTIC_TASKS_FILE.
    """
    folder = folder.resolve()
    with ExitStack() as stack:
        stack.enter_context(held(folder))
        clear(folder)
        chain = stack.enter_context(Devnet(port=0))
        rpc = stack.enter_context(Rpc(chain.url))
        genesis = rpc.block("latest").timestamp + lead
        port, rules_file = _free_port(), folder / "rules.json"
        rules_file.write_text(json.dumps(rules.to_json()))
        environ = {"HAPTIC_PORT": str(port), "HAPTIC_TICK_S": "0.5", "HAPTIC_RULES_FILE": str(rules_file)}
        if tasks:
            own = folder / "tasks.jsonl"
            own.write_text("".join(json.dumps(t) + "\n" for t in tasks), encoding="utf-8")
            environ["HAPTIC_TASKS_FILE"] = str(own)
        site = prepare(
            rpc, folder, genesis=genesis, epoch_length=epoch_length, window=window, cooldown=epoch_length,
            extra=environ | dict(extra or {}),
        )  # fmt: skip
        served = stack.enter_context(process("serve", ["serve"], site))
        wait_until_served(f"http://127.0.0.1:{port}", served, folder / "serve.log")
        api = stack.enter_context(Api(f"http://127.0.0.1:{port}"))
        yield Stage(site, api, epoch_length, window)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def working(stage: Stage, *flags: str) -> Iterator[None]:
    """Run a worker beside the service."""
    with process("worker", ["worker", *flags], stage.site):
        yield


def bars() -> Progress:
    """Return progress bars for long steps."""
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeElapsedColumn(), console=out, transient=True,
    )  # fmt: skip


def wait_for(what: str, ready: Callable[[], Any], stage: Stage, timeout_s: float = 240.0) -> Any:
    """Return what `ready` gives once it is not None; DemoError with the jobs' words when that takes long."""
    deadline = time.monotonic() + timeout_s
    with out.status(what):
        while time.monotonic() < deadline:
            found = ready()
            if found is not None:
                return found
            time.sleep(0.2)
    health = stage.api.get("/jobs")
    raise DemoError(
        f"{what}: not after {timeout_s:.0f} s. The jobs say: {health}. Logs are in {stage.site.folder}"
    )


def open_epoch(stage: Stage, epoch: int) -> dict[str, Any] | None:
    """Return an epoch once it is open: its tasks are made, and the chain knows what it was opened with."""
    known = (e for e in stage.api.every("/epochs") if e["epoch"] == epoch and e["state"] != "opening")
    return next(known, None)


def epoch_in(stage: Stage, epoch: int, states: set[str]) -> dict[str, Any] | None:
    """Return an epoch once it is in one of these states."""
    found = open_epoch(stage, epoch)
    return found if found and found["state"] in states else None


def close_and_pay(stage: Stage, epoch: int) -> None:
    """Let an epoch end, its root be posted, its window pass, and its root become active."""
    stage.go_to(stage.start(epoch + 1) + 1)
    wait_for(
        f"epoch {epoch}: closing, scoring, posting the root",
        lambda: epoch_in(stage, epoch, {"posted", "active"}),
        stage,
    )
    stage.go_to(stage.now() + stage.window + 1)
    wait_for(f"epoch {epoch}: activating the root", lambda: epoch_in(stage, epoch, {"active"}), stage)
    stage.go_to(stage.now() + 1)
