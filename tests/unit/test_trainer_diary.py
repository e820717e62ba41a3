"""A run's diary: killed at any line it ends as that of a run that nobody killed, and every attempt's cost is counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.toys import TINY, small
from trainer import run
from trainer.checkpoint import Checkpoints
from trainer.config import Config
from trainer.diary import COST, METRICS, Cost, Diary, meter, worked
from trainer.overrides import override
from trainer.preferences import Comparison, write_snapshot
from trainer.progress import Progress, Report, silent


class Killed(Exception):  # noqa: N818 - a kill, not an error
    """What stands in for a kill."""


def killed_at(line: int) -> Report:
    """Return a report that ends the run at a line of progress, from 1."""
    left = [line]

    def report(progress: Progress) -> None:
        left[0] -= not progress.note
        if not left[0]:
            raise Killed

    return report


def lines(run: run.Run) -> list[dict[str, Any]]:
    """Return a finished run's lines without the time, which is all that may differ."""
    text = (run.registry.path(run.name) / METRICS).read_text(encoding="utf-8")
    found = [json.loads(line) for line in text.splitlines()]
    assert all(line.pop("at") > 0 for line in found)
    return found


def test_killed_at_any_line_a_run_keeps_each_line_once(tmp_path: Path) -> None:
    first = small(tmp_path)
    run.bootstrap(first)
    rows = [Comparison(f"day {n}?", "good", "bad", 900_000, 2, 0) for n in range(12)]
    sha256 = write_snapshot(tmp_path / "s.jsonl", rows)
    changes = {
        "reward": TINY["reward"] | {"members": 2},
        "evaluate": {"prompts": 8, "texts": 20, "curve_samples": 2},
    }  # type: ignore[operator]
    config = override(Config(), TINY | changes)

    def retrained(name: str, report: Report) -> run.Run:
        wanted = replace(first, name=name, config=config, report=report)
        run.retrain(wanted, parent="sft-0", reference=None, snapshot=tmp_path / "s.jsonl", sha256=sha256)
        return wanted

    expected = lines(retrained("straight", silent))
    assert [(line["stage"], line["step"]) for line in expected] == [
        ("reward", 2), ("reward", 2), ("ppo", 1), ("ppo", 2), ("evaluate", 1),
    ]  # fmt: skip
    for line in range(1, len(expected) + 1):
        name = f"killed-{line}"
        with pytest.raises(Killed):
            retrained(name, killed_at(line))
        assert lines(retrained(name, silent)) == expected
    kills = 0
    while True:  # the same run, again and again: of two lines the first has its checkpoint
        try:
            often = lines(retrained("often", killed_at(2)))
        except Killed:
            kills += 1
        else:
            break
    assert kills == len(expected) - 1
    assert often == expected


def test_what_is_killed_between_a_line_and_its_checkpoint_says_the_line_again(tmp_path: Path) -> None:
    said = Progress("s", 1, 3, {"loss": 1.0}), Progress("s", 2, 3, {"loss": 0.5}), Progress("s", 3, 3)

    def attempt(lines: Sequence[Progress], kept: int) -> Checkpoints:
        found = Checkpoints(tmp_path / "kept", "run", 0.0, silent)
        begun = found.stage("s").load({}, step=0)["step"]
        for step, line in enumerate(lines[begun:], start=begun + 1):
            found.diary.report(line)
            if step <= kept:
                found.stage("s").save({}, step, len(lines))
        return found

    attempt(said[:2], kept=1)
    found = attempt(said, kept=3)
    assert [line["step"] for line in found.diary.state()["lines"]] == [1, 2, 3]


def test_a_note_is_passed_on_and_not_kept_and_what_is_no_number_is_null() -> None:
    told: list[Progress] = []
    diary = Diary(told.append, clock=lambda: 7.0)
    diary.report(Progress("ppo", 0, 2, note="resumed"))
    diary.report(Progress("ppo", 1, 2, {"kl": float("nan"), "reward": 1}))
    assert len(told) == 2
    assert diary.state()["lines"] == [
        {"stage": "ppo", "step": 1, "of": 2, "metrics": {"kl": None, "reward": 1.0}, "at": 7.0}
    ]


def ticking(*readings: tuple[float, int]) -> Callable[[], Cost]:
    """Return a meter that shows one reading after the other: seconds, of which half are CPU, and peak memory."""
    left = [Cost(seconds / 2, seconds, peak) for seconds, peak in readings]
    return lambda: left.pop(0)


def test_costs_of_all_attempts_are_added_and_the_memory_is_the_highest() -> None:
    first = Diary(silent, meter=ticking((10.0, 500), (14.0, 900), (15.0, 900)))
    with first.measured("reward"):
        kept = first.state()  # at 14 s; what follows is lost with the attempt
    second = Diary(silent, meter=ticking((100.0, 300), (103.0, 700), (110.0, 100), (120.0, 100)))
    with second.measured("reward"):
        second.go_on(kept)
    with second.measured("ppo"):
        pass
    assert second.costs() == {"reward": Cost(3.5, 7.0, 900, 2), "ppo": Cost(5.0, 10.0, 100, 1)}


def test_going_on_from_a_later_stage_forgets_nothing_of_this_attempt() -> None:
    """Each stage goes back to its own checkpoint, of which the last has the costs of all before it."""
    first = Diary(silent, meter=ticking((0.0, 1), (4.0, 1), (4.0, 1), (9.0, 1), (9.0, 1)))
    with first.measured("a"):
        pass
    with first.measured("b"):
        kept = first.state()
    second = Diary(silent, meter=ticking((0.0, 1), (2.0, 1), (2.0, 1), (5.0, 1)))
    with second.measured("a"):
        second.go_on({"lines": [], "costs": {"a": {"cpu_s": 2.0, "wall_s": 4.0}}})
    with second.measured("b"):
        second.go_on(kept)
    assert {name: cost.wall_s for name, cost in second.costs().items()} == {"a": 6.0, "b": 8.0}


def test_a_real_stage_costs_time_and_memory(tmp_path: Path) -> None:
    wanted = small(tmp_path)
    run.bootstrap(wanted)
    costs = json.loads((wanted.registry.path("sft-0") / COST).read_text(encoding="utf-8"))
    assert set(costs) == {"pretrain", "sft"}
    for cost in costs.values():
        assert cost["cpu_s"] > 0
        assert 0 < cost["wall_s"] < 600
        assert 50e6 < cost["peak_memory_bytes"] <= meter().peak_memory_bytes
        assert cost["attempts"] == 1


def test_what_another_process_did_for_this_one_is_a_cost_of_the_stage() -> None:
    diary = Diary(silent)
    with diary.measured("ppo"):
        worked(1000.0)
    assert 1000 <= diary.costs()["ppo"].cpu_s < 1010
