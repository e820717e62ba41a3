"""A devnet that stays says what can be tried when, and tells once when there is something to rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chain.deployment import Deployment
from chain.rules import SIZES
from chain.types import Address
from service.answers import ApiError
from service.arena import methods_for
from service.demo import stay
from service.terminal import show_time


def _site(folder: Path) -> Any:
    a = [Address("0x" + f"{n:040x}") for n in range(1, 6)]
    d = Deployment(31337, *a, from_block=1, genesis=1_900_000_000, epoch_length=600, challenge_window=30)
    return SimpleNamespace(folder=folder, deployment=d, rpc=SimpleNamespace(name="http://127.0.0.1:8545"))


def test_the_opening_says_what_works_at_once_and_what_waits_for_what() -> None:
    said = stay._opening(_site(Path("/tmp/devnet")), "http://127.0.0.1:8000")  # noqa: S108
    _, _, after = said.partition("work at once")
    assert "rank[/] needs a model" in after
    assert f"with all three, until no task is left ({stay.TASKS} each)" in after
    assert 'http://127.0.0.1:8000/v1/jobs says "epoch … is open"' in after
    assert f"claim[/] need an epoch to pass: epoch 0 ends at {show_time(1_900_000_600)}" in after
    assert "pays claims 30 s after" in after


def test_whatever_methods_the_three_are_given_they_are_asked_about_the_same_tasks() -> None:
    """What only one of them ranks proves nothing, and so would earn nothing."""
    for size in SIZES:
        assert methods_for(size, stay.RULES.methods) == stay.RULES.methods
    assert stay.RULES.overlap_min == len(stay.NAMES)


@dataclass
class Service:
    """A service that answers one thing after another."""

    answers: list[Any]

    def get(self, path: str) -> Any:
        assert path == "/epochs"
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@dataclass
class Process:
    """A process that ends after so many looks at it."""

    looks: int
    seen: int = field(default=0)

    def poll(self) -> int | None:
        self.seen += 1
        return 0 if self.seen > self.looks else None


def test_the_first_open_epoch_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stay.time, "sleep", lambda _: None)
    empty, full = {"epoch": 0, "tasks": 0}, {"epoch": 1, "tasks": 7}
    service: Any = Service([[], ApiError("busy"), [empty], [empty, full]])
    looks: Any = Process(6)
    stay._watch(service, looks)
    said = capsys.readouterr().out
    assert said.count("epoch 1 is open, `haptic rank` has tasks") == 1
    assert said.count("is open") == 1
