"""The log holds what happened: a step whose numbers alone go on is told once a minute, news at once."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from service import jobs
from service.context import Pulse

TICK_S = 2.0


def _logged(said: Iterable[str], every_s: float = TICK_S) -> list[str]:
    """Return what of a step's words, one a tick, comes into the log."""
    pulse, found = Pulse(), []
    for tick, words in enumerate(said):
        if jobs._is_news(pulse, "index", words, tick * every_s):
            found.append(words)
        pulse.waits["index"] = words
    return found


def test_blocks_that_go_on_are_told_once_a_minute() -> None:
    said = [f"indexed to block {n} of {n} finalized, head {n + 2}" for n in range(100, 160)]
    assert _logged(said) == [said[0], said[30]]


def test_what_is_said_again_is_never_told_again() -> None:
    assert _logged(["all is written"] * 100) == ["all is written"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("epoch 0 is active", "epoch 1 is active"),
        ("run 1 queued: epochs 0 to 0", "run 2 queued: epochs 1 to 1"),
        ("epoch 9 is open", "epoch 10 is open"),
        ("waiting for the first model", "waiting for the models' answers"),
        ("epoch 0 is posted", "epoch 0 is active"),
    ],
)
def test_another_epoch_run_or_word_is_told_at_once(before: str, after: str) -> None:
    assert _logged([before, after, after]) == [before, after]


def test_a_window_that_gets_shorter_is_told_once() -> None:
    said = [
        f"epoch 3 is posted; its challenge window ends at 2026-03-01 14:05 (in {left})"
        for left in ("3 min", "119 s", "2 s", "0 s")
    ]
    assert _logged(said) == said[:1]


def test_a_step_that_another_replica_ran_meanwhile_is_told_anew() -> None:
    pulse = Pulse()
    assert jobs._is_news(pulse, "index", "indexed to block 1", 0.0)
    assert not jobs._is_news(pulse, "index", "indexed to block 2", 1.0)
    pulse.forget("index")
    assert jobs._is_news(pulse, "index", "indexed to block 3", 2.0)
