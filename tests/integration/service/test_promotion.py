"""A retrained model takes the published one's place if people ranked it better in the arena, and is rolled back else."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from chain.feedback import dense_ranks
from chain.rules import Rules
from chain.verdict import Known
from service import corrections, jobs, training
from service.client import Contributor
from service.errors import ConfigError
from service.ledger import queries, work
from service.ledger.tables import LabelRow, RunRow
from service.promotion import Standing
from service.worker import Worker
from tests.integration.service.conftest import quality
from tests.integration.service.small_trainer import train

TRAINER = (sys.executable, str(Path(__file__).with_name("small_trainer.py")))
TASKS, NEEDED, EPOCHS = 16, 10, 2


@dataclass
class Story:
    """What became of each model, epoch by epoch."""

    net: Any
    people: list[Contributor]
    said: list[str] = field(default_factory=list)
    """What the retraining's step said, time after time."""
    now: list[Standing] = field(default_factory=list)
    """The models after each close."""
    asked: list[set[str]] = field(default_factory=list)
    """Whose answers each epoch showed."""
    shown: list[list[dict[str, Any]]] = field(default_factory=list)
    """What the runs' page said after each close."""
    short: str = ""
    """What it says where too few comparisons have come in."""
    may_start: range | None = None
    """What a run was due to learn from while a candidate waited."""

    def retrain(self) -> str:
        said = jobs.step_retrain(self.net.ctx)
        self.said.append(said)
        return said

    def work(self) -> None:
        worker = Worker(self.net.ctx.db, self.net.ctx.settings.folder("logs"), 1, command=TRAINER)
        while worker.run_one():
            pass

    def standing(self) -> Standing:
        with self.net.ctx.db.read() as db:
            found = training.standing(db, self.net.ctx.settings)
        assert found is not None
        return found

    def play(self, epoch: int, better: str = "", count: int = TASKS) -> None:
        """Let the arena open an epoch, each rank so many tasks with one model's answers first, and close it."""
        net, tone = self.net, hashlib.sha256(better.encode()).hexdigest()[:6]
        net.go_to(net.start(epoch) + 1)
        for _ in range(2):
            jobs.step_arena(net.ctx)
            self.work()
        jobs.step_commit(net.ctx)
        with net.ctx.db.read() as db:
            self.asked.append({model for t in queries.tasks(db, epoch) for model in t.origins})
        for who in self.people:
            who.log_in(epoch=epoch, now=net.now())
            for _ in range(count):
                task = who.next_task()
                assert task is not None
                marks = [int(text.startswith(tone)) if better else quality(text) for text in task.shown]
                who.send(who.ranking(task, dense_ranks(marks), now=net.now()))
        net.go_to(net.start(epoch + 1) + 1)
        jobs.step_index(net.ctx)
        self.close(epoch)

    def close(self, epoch: int) -> None:
        assert jobs.close_epoch(self.net.ctx, epoch) is not None
        self.now.append(self.standing())
        self.shown.append(self.net.api.get("/runs"))


@pytest.fixture(scope="module")
def story(network: Any, module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    options = {
        "tasks_per_epoch": TASKS,
        "retrain_after": 5,
        "gate_comparisons": NEEDED,
        "gate_epochs": EPOCHS,
    }
    rules = Rules(methods=("ranking",), overlap_min=3, overlap=3, overlap_max=3)
    with network(tmp_path_factory.mktemp("net"), rules, database_url=module_url, **options) as net:
        net.go_to(net.start(0) + 1)
        s = Story(net, [net.person(50) for _ in range(3)])
        with net.ctx.db.write() as db:
            training.ask_bootstrap(db, net.ctx.settings)
            db.commit()
        s.work()
        _play(s)
        yield s


def _play(s: Story) -> None:
    """Four retrainings: people like the first less, the second better, the third better but hardly compare it."""
    s.play(0)
    s.retrain()
    s.retrain()
    s.work()
    s.retrain()
    s.play(1, "sft-0")
    s.retrain()
    s.work()
    s.play(2, "policy-2")
    more = s.net.ctx.settings.model_copy(update={"retrain_after": 999})
    s.short = jobs.step_retrain(replace(s.net.ctx, settings=more))
    s.retrain()
    s.work()
    s.play(3, "policy-3", count=2)
    s.retrain()
    s.may_start = _due(s)
    s.play(4, "policy-3", count=1)
    s.retrain()
    s.work()
    _correct(s)


def _due(s: Story) -> range | None:
    with s.net.ctx.db.read() as db:
        return training.due(db, s.net.ctx.place, s.net.ctx.settings)


def _correct(s: Story) -> None:
    """Open the epoch again that policy-2 was promoted in, and close it anew."""
    with s.net.ctx.db.write() as db:
        corrections.reopen(db, s.net.ctx.place, 2)
        db.commit()
    s.now.append(s.standing())
    s.retrain()
    s.close(2)
    s.retrain()


def test_the_retraining_says_whom_it_waits_for_and_how_many_votes_are_in(story: Story) -> None:
    assert story.said == [
        "run 1 queued: epochs 0 to 0",
        "run 1 is being trained",
        "policy-1 is waiting: 0 of the 10 votes that decide are in; ahead of sft-0 in 0 tasks, behind in 0",
        "run 2 queued: epochs 1 to 1",
        "run 3 queued: epochs 2 to 2",
        "policy-3 is waiting: 6 of the 10 votes that decide are in; ahead of policy-2 in 6 tasks, behind in 0",
        "run 4 queued: epochs 3 to 4",
        "policy-2 is waiting: 0 of the 10 votes that decide are in; ahead of sft-0 in 0 tasks, behind in 0",
        "run 3 queued: epochs 2 to 2",
    ]


def test_where_nobody_waits_it_says_what_is_published_and_how_much_came_in(story: Story) -> None:
    assert re.fullmatch(
        r"policy-2 is published; [1-9]\d* of the 999 labelled comparisons that start a retraining have come in",
        story.short,
    )


def test_while_a_candidate_waits_no_run_is_due_for_which_the_arena_would_wait(story: Story) -> None:
    assert story.may_start is None


def test_the_arena_shows_the_published_model_and_who_wants_its_place(story: Story) -> None:
    assert story.asked == [
        {"sft-0"}, {"sft-0", "policy-1"}, {"sft-0", "policy-2"}, {"policy-2", "policy-3"}, {"policy-2", "policy-3"},
    ]  # fmt: skip


def test_what_people_like_better_is_published_and_all_else_rolled_back(story: Story) -> None:
    assert [n.published for n in story.now[:5]] == ["sft-0", "sft-0", "policy-2", "policy-2", "policy-2"]
    assert [n.waits for n in story.now[:5]] == [None, None, None, "policy-3", None]
    verdicts = story.now[4].verdicts
    assert {m: (v.decision, v.won, v.lost) for m, v in verdicts.items()} == {
        "policy-1": ("rolled back", 0, TASKS),
        "policy-2": ("promoted", TASKS, 0),
        "policy-3": ("rolled back", 9, 0),
    }


def test_each_retraining_starts_from_what_was_published(story: Story) -> None:
    with story.net.ctx.db.read() as db:
        made = {j.name: j.arguments for j in work.jobs(db) if j.name.startswith("retrain/")}
    parents = {name: arguments[arguments.index("--parent") + 1] for name, arguments in made.items()}
    assert parents == {
        "retrain/1": "sft-0", "retrain/2": "sft-0", "retrain/3": "policy-2", "retrain/4": "policy-2",
        "retrain/3-2": "policy-2",
    }  # fmt: skip


def test_who_has_the_labels_counts_the_same_votes(story: Story) -> None:
    """One a task: which model's answers have more of the labels in which the two differ."""
    verdict = story.now[1].verdicts["policy-1"]
    votes = {"policy-1": 0, "sft-0": 0}
    with story.net.ctx.db.read() as db:
        for task in queries.tasks(db, 1):
            label = db.get(LabelRow, (1, task.task))
            assert label is not None
            points = {"policy-1": 0, "sft-0": 0}
            for (a, b), known in zip(combinations(task.origins, 2), label.pairs, strict=True):
                if known and a != b:
                    points[a if Known(*known).label > 0 else b] += abs(Known(*known).label)
            if len(set(points.values())) == 2:
                votes[max(points, key=points.__getitem__)] += 1
    assert (verdict.won, verdict.lost) == (votes["policy-1"], votes["sft-0"])


def test_runs_are_shown_with_what_people_said_of_them(story: Story) -> None:
    assert [[r["gate"]["decision"] for r in page] for page in story.shown[:5]] == [
        [], ["rolled back"], ["promoted", "rolled back"], ["waiting", "promoted", "rolled back"],
        ["rolled back", "promoted", "rolled back"],
    ]  # fmt: skip
    third = story.shown[4][0]["gate"]
    assert (third["parent"], third["won"], third["lost"], third["needed"]) == ("policy-2", 9, 0, NEEDED)
    assert third["chance"] == 0.5**9
    assert third["meetings"] == [{"epoch": 3, "won": 6, "lost": 0}, {"epoch": 4, "won": 3, "lost": 0}]
    assert third["said"].startswith(
        "rolled back after epoch 4: only 9 of the 10 votes that decide are in after 2 epochs"
    )


def test_an_epoch_that_is_opened_again_takes_its_verdicts_back_and_what_learned_from_them(
    story: Story,
) -> None:
    reopened = story.now[5]
    assert (reopened.published, reopened.waits, list(reopened.verdicts)) == (
        "sft-0", "policy-2", ["policy-1", "policy-2"],
    )  # fmt: skip
    assert {"policy-3", "policy-4"} <= {e.name for e in training.registry(story.net.ctx.settings).entries()}


def test_an_epoch_that_is_closed_anew_to_the_same_gives_the_same_verdicts(story: Story) -> None:
    assert story.now[6] == story.now[2]


def test_the_published_model_is_named_by_the_service_and_by_the_arena(story: Story) -> None:
    assert story.net.api.get("/status")["models"] == "policy-2 is published"
    assert {m["model"]: m["published"] for m in story.net.api.get("/models")} == {
        "sft-0": False, "policy-1": False, "policy-2": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: json.dumps(record)[:9],
        lambda record: json.dumps({k: record[k] for k in record if k != "seed"}),
        None,
    ],
    ids=["no JSON", "lacks a field", "missing"],
)
def test_what_people_said_of_the_models_is_shown_though_an_entry_of_the_registry_is_damaged(
    story: Story, damage: Callable[[dict[str, Any]], str] | None
) -> None:
    entry = training.registry_path(story.net.ctx.settings) / "policy-1" / "entry.json"
    whole = entry.read_text()
    shown, runs = story.net.api.get("/models"), story.net.api.get("/runs")
    assert {r["problem"] for r in runs} == {""}
    entry.unlink()
    if damage is not None:
        entry.write_text(damage(json.loads(whole)))
    try:
        assert story.net.api.get("/models") == [m | {"published": False} for m in shown]
        assert "policy-1" in story.net.api.get("/status")["models"]
        for run, whole_run in zip(story.net.api.get("/runs"), runs, strict=True):
            ours = run["model"] == "policy-1"
            assert re.search(r"policy-1/entry.json is damaged \(.*\): remove .*/policy-1 ", run["problem"])
            assert run["problem"].endswith("put its entry back from a copy") == ours
            hidden = {"problem": run["problem"], "gate": None} | ({"metrics": {}} if ours else {})
            assert run == whole_run | hidden
    finally:
        entry.write_text(whole)


def test_without_an_arena_the_newest_is_published_and_nothing_waits(story: Story) -> None:
    settings = story.net.ctx.settings.model_copy(update={"arena": False})
    newest = training.registry(settings).entries()[-1]
    with story.net.ctx.db.read() as db:
        found = training.standing(db, settings)
        assert training.undecided(db, settings) == ""
    assert found is not None
    assert (found.published, found.before, found.verdicts) == (newest.name, newest.parent, {})


def test_a_model_that_comes_late_takes_nothing_back(story: Story) -> None:
    """As by a failed run that is tried again after a later one's model was promoted."""
    settings, nothing = story.net.ctx.settings, dict.fromkeys(("sha256", "snapshot"), "")
    late = {"name": "policy-0", "parent": "sft-0", "seed": 0}
    train(argparse.Namespace(registry=str(training.registry_path(settings)), **late, **nothing))
    before = story.standing()
    with story.net.ctx.db.write() as db:
        queries.add(db, RunRow(run=0, first=0, last=0, snapshot="", model="policy-0", job=0))
        now = training.standing(db, settings)
        queries.add(db, RunRow(run=5, first=0, last=0, snapshot="0xother", model="policy-0", job=0))
        work.runs(db)[0].model = "policy-5"
        db.flush()
        other = training.standing(db, settings)
        db.rollback()
    assert other == before, "it did not learn from what the run gave it"
    assert now is not None
    assert (now.published, now.waits) == (before.published, before.waits) == ("policy-2", None)
    assert now.verdicts["policy-0"].decision == "set aside"


def test_models_without_the_first_of_them_are_refused_and_the_status_says_so(
    story: Story, tmp_path: Path
) -> None:
    settings = story.net.ctx.settings.model_copy(update={"data_dir": tmp_path})
    orphan = dict.fromkeys(("sha256", "snapshot"), "")
    train(
        argparse.Namespace(
            registry=str(tmp_path / "models"), name="policy-1", parent="gone", seed=0, **orphan
        )
    )
    with story.net.ctx.db.read() as db:
        assert "FAILED" in training.said(db, settings)
        with pytest.raises(ConfigError, match="no model without a parent"):
            training.standing(db, settings)
