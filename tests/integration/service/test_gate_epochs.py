"""A candidate is decided about by epochs in which people compared it, and one that cannot answer stops nobody else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.committer import epoch_record
from chain.feedback import dense_ranks
from chain.rules import Rules
from service import corrections, jobs, training
from service.errors import ConfigError
from service.ledger import queries, work
from service.worker import Worker
from tests.integration.service.conftest import EPOCH_S
from tests.integration.service.test_promotion import TASKS, Story

EPOCHS = 2
MUTE = """
import runpy, sys
if sys.argv[2] == "answer" and "policy-1" in sys.argv:
    sys.exit(7)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""The small trainer, by whose hand one model cannot answer."""
TRAINER = str(Path(__file__).with_name("small_trainer.py"))


@pytest.fixture(scope="module")
def story(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Yield a network with a candidate that nobody has been asked about."""
    options = {"tasks_per_epoch": TASKS, "retrain_after": 5, "gate_comparisons": 99, "gate_epochs": EPOCHS}
    rules = Rules(methods=("ranking",), overlap_min=3, overlap=3, overlap_max=3)
    with network(tmp_path_factory.mktemp("net"), rules, **options) as net:
        net.go_to(net.start(0) + 1)
        s = Story(net, [net.person(50) for _ in range(3)])
        with net.ctx.db.write() as db:
            training.ask_bootstrap(db, net.ctx.settings)
            db.commit()
        s.work()
        s.play(0)
        s.retrain()
        s.work()
        yield s


def _find_alike(s: Story, epoch: int) -> None:
    """Have each find all answers of every task as good as each other, and close the epoch."""
    jobs.step_commit(s.net.ctx)
    for who in s.people:
        who.log_in(epoch=epoch, now=s.net.now())
        while (task := who.next_task()) is not None:
            who.send(who.ranking(task, dense_ranks([0] * len(task.shown)), now=s.net.now()))
    s.net.go_to(s.net.start(epoch + 1) + 1)
    jobs.step_index(s.net.ctx)
    s.close(epoch)


def test_epochs_in_which_nobody_compared_it_take_nothing_from_a_candidates_time(story: Story) -> None:
    """The law in its order: nobody ranks, it cannot answer, the epoch is given up; then all are found alike, twice."""
    s, net = story, story.net
    s.play(1, count=0)
    assert s.asked[-1] == {"sft-0", "policy-1"}

    net.go_to(net.start(2) + 1)
    mute = Worker(
        net.ctx.db, net.ctx.settings.folder("logs"), 1, command=(sys.executable, "-c", MUTE, TRAINER)
    )
    assert jobs.step_arena(net.ctx) == "waiting for the models' answers"
    while mute.run_one():
        pass
    with pytest.raises(ConfigError, match=r"answer/2/policy-1: attempt 1 ended .*--retry answer/2/policy-1"):
        jobs.step_arena(net.ctx)
    net.go_to(net.start(2) + EPOCH_S // 4)
    said = jobs.step_arena(net.ctx)
    assert said.startswith(
        f"epoch 2 opened with {TASKS} tasks, WITHOUT answer/2/policy-1: attempt 1 ended with"
    )
    with net.ctx.db.read() as db:
        assert {model for t in queries.tasks(db, 2) for model in t.origins} == {"sft-0"}
    missing = "policy-1 gave NO ANSWERS when it was last asked (answer/2/policy-1: attempt 1 ended with"
    assert missing in net.api.get("/status")["models"]
    assert missing in s.retrain()
    with net.ctx.db.write() as db:  # and nothing of it is kept
        published = work.job(db, "answer/2/sft-0")
        assert published is not None
        published.state, published.error = "failed", "no memory"
        both = training.undecided(db, net.ctx.settings)
    assert "sft-0 gave NO ANSWERS when it was last asked (answer/2/sft-0: no memory); " + missing in both
    _find_alike(s, 2)

    s.play(3)
    assert [m.epoch for m in s.standing().verdicts["policy-1"].meetings] == [3]
    with net.ctx.db.write() as db:
        known = epoch_record(net.rpc, net.ctx.deployment, 3)
        corrections.abandon(db, net.ctx.place, 3, known, net.now())
        db.commit()
    s.close(3)
    assert (s.standing().waits, s.standing().verdicts["policy-1"].meetings) == ("policy-1", ())
    assert "NO ANSWERS" not in net.api.get("/status")["models"]

    for epoch in (4, 5):
        assert s.standing().waits == "policy-1"
        net.go_to(net.start(epoch) + 1)
        for _ in range(2):
            jobs.step_arena(net.ctx)
            s.work()
        _find_alike(s, epoch)
    verdict = s.standing().verdicts["policy-1"]
    assert (verdict.decision, [m[:] for m in verdict.meetings]) == ("rolled back", [(4, 0, 0), (5, 0, 0)])
    assert net.api.get("/models") == [], "who only tied has no rating"


def test_where_no_model_answers_the_epoch_is_not_opened(story: Story) -> None:
    net = story.net
    net.go_to(net.start(6) + EPOCH_S // 2)
    jobs.step_arena(net.ctx)
    broken = Worker(net.ctx.db, net.ctx.settings.folder("logs"), 1, command=(sys.executable, "-c", "exit(7)"))
    while broken.run_one():
        pass
    with pytest.raises(ConfigError, match="answer/6/sft-0: attempt 1 ended"):
        jobs.step_arena(net.ctx)
