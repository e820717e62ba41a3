"""The queries of the service, on a real SQLite in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, create_engine

from chain.types import Address, WalletState
from service import training
from service.errors import ConflictError
from service.ledger import intake, queries, results, work
from service.ledger.tables import (
    EpochRow,
    JobRow,
    LeafRow,
    LeaseRow,
    PoolRow,
    RankingRow,
    ScoreRow,
    TallyRow,
    TaskRow,
)
from service.scores import StoredScores
from service.settings import Settings

ME, YOU, SHE = (Address("0x" + 40 * c) for c in "abc")


@contextmanager
def opened() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def db() -> Iterator[Session]:
    with opened() as session:
        yield session


def _ranking(position: int, wallet: str, **more: object) -> RankingRow:
    values = {
        "epoch": 0,
        "digest": str(position),
        "signer": wallet,
        "task": "t",
        "revision": 0,
        "message": {},
    }
    values |= {"signature": "", "received_at": 0, "receipt": ""} | more
    return RankingRow(position=position, wallet=wallet, **values)


def _score(epoch: int, wallet: str, **line: int) -> ScoreRow:
    zero = dict.fromkeys(("labelN", "labelD", "payG", "payV", "payHmax", "score"), 0) | line
    place = {ME: 1, YOU: 2, SHE: 3}[wallet]
    return ScoreRow(epoch=epoch, wallet=wallet, place=place, line={k: str(v) for k, v in zero.items()})


def _epoch(epoch: int, closed: int | None = None) -> EpochRow:
    return EpochRow(
        epoch=epoch, seed_hash="", gold_root="", rules_hash="", rules={}, lambda_num="1", lambda_den="1",
        opened_at=0, closed_at=closed,
    )  # fmt: skip


def test_before_the_first_close_the_last_closed_epoch_is_minus_one(db: Session) -> None:
    assert queries.last_closed(db) == -1


def test_an_open_epoch_is_not_the_last_closed(db: Session) -> None:
    for epoch, closed in ((0, 5), (1, None)):
        queries.add(db, _epoch(epoch, closed))
    assert queries.last_closed(db) == 0


def _task(name: str, **more: Any) -> TaskRow:
    lists = {"responses": [], "methods": ["ranking"], "origins": [], "assignees": [], "gold_ranks": []}
    return TaskRow(epoch=0, task=name, prompt="", **lists | more)


def _tally(name: str, taken: int = 0, **more: Any) -> TallyRow:
    return TallyRow(epoch=0, task=name, methods=",ranking,", taken=taken, wanted=3, votes=[0], **more)


def test_the_next_task_has_the_fewest_judgements_and_comes_first_from_a_point_on_and_round_again(
    db: Session,
) -> None:
    queries.add(db, *(_tally(t, n) for t, n in (("a", 0), ("c", 0), ("e", 0), ("b", 1), ("d", 3))))
    assert [queries.next_open(db, 0, ME, "ranking", p) for p in ("a", "b", "d", "f")] == ["a", "c", "e", "a"]
    assert queries.next_open(db, 0, ME, "likert", "a") is None
    assert queries.next_open(db, 1, ME, "ranking", "a") is None


def test_what_a_wallet_judged_skipped_or_wrote_is_not_its_next_task_and_what_ran_out_may_be(
    db: Session,
) -> None:
    queries.add(db, *(_tally(t) for t in "abd"), _tally("c", author=ME))
    queries.add(db, _tally("x", 9, assignees=f",{YOU},{ME},"), _tally("y", assignees=f",{SHE},"))
    gone = {"epoch": 0, "wallet": ME, "expires_at": 1, "live": False}
    queries.add(db, LeaseRow(task="a", done=True, **gone), LeaseRow(task="b", skipped=True, **gone))
    lease = LeaseRow(task="d", **gone)
    queries.add(db, lease)
    assert queries.next_open(db, 0, ME, "ranking", "a") == "d"
    lease.done = True
    assert queries.next_open(db, 0, ME, "ranking", "a") == "x"
    assert [queries.next_open(db, 0, w, "ranking", "c") for w in (YOU, SHE)] == ["c", "c"]


def test_a_lease_is_over_in_the_second_that_it_names(db: Session) -> None:
    queries.add(db, LeaseRow(epoch=0, wallet=ME, task="t", expires_at=10))
    assert queries.live_lease(db, 0, ME, 9) is not None
    assert queries.live_lease(db, 0, ME, 10) is None


def test_positions_count_from_zero_in_each_epoch(db: Session) -> None:
    assert queries.next_position(db, 0) == 0
    queries.add(db, _ranking(0, ME))
    assert (queries.next_position(db, 0), queries.next_position(db, 1)) == (1, 0)


def test_one_revision_of_a_task_is_kept_once_per_wallet(db: Session) -> None:
    queries.add(db, _ranking(0, ME), _ranking(1, YOU), _ranking(2, ME, revision=1))
    with pytest.raises(IntegrityError):
        queries.add(db, _ranking(3, ME, digest="other"))


def test_what_a_key_signed_is_counted_by_wallet_and_key(db: Session) -> None:
    queries.add(
        db,
        _ranking(0, ME, signer="k"),
        _ranking(1, ME, signer="k", revision=1),
        _ranking(2, ME, revision=2),
        _ranking(3, YOU, signer="k"),
        _ranking(4, ME, signer="k", revision=3, epoch=1),
    )
    assert intake.signed_since(db, 0, 0) == {(ME, "k"): 2, (ME, ME): 1, (YOU, "k"): 1}
    assert intake.signed_since(db, 0, 2) == {(ME, ME): 1, (YOU, "k"): 1}


def test_the_newest_revision_is_found(db: Session) -> None:
    queries.add(db, *(_ranking(p, ME, revision=r) for p, r in ((0, 0), (1, 1), (2, 2))))
    newest = queries.latest_revision(db, 0, ME, "t")
    assert newest is not None
    assert newest.revision == 2
    assert queries.latest_revision(db, 0, YOU, "t") is None


def test_a_state_is_that_after_the_last_epoch_the_wallet_took_part_in(db: Session) -> None:
    queries.add(db, _score(0, ME, payG=1), _score(2, ME, payG=3), _score(0, YOU, payG=7, payHmax=2**80))
    found = results.wallet_states(db)
    assert found == {ME: WalletState(pay_g=3), YOU: WalletState(pay_g=7, pay_hmax=2**80)}


def test_the_scores_of_an_epoch_are_read_when_they_are_asked_for_and_no_others(db: Session) -> None:
    queries.add(db, _score(0, ME, score=5), _score(2, ME, score=2**70), _score(2, YOU, score=7))
    assert [dict(StoredScores(db, e)) for e in range(3)] == [{ME: 5}, {}, {ME: 2**70, YOU: 7}]
    unread = StoredScores(db, 0)
    results.forget_results(db, 0)
    assert len(unread) == 0


@given(limit=st.integers(1, 5), after=st.integers(0, 4))
def test_scores_come_page_by_page_each_wallet_once(limit: int, after: int) -> None:
    with opened() as db:
        queries.add(db, _score(0, YOU), _score(0, SHE), _score(0, ME), _score(1, ME))
        found, last = [], after
        while page := results.scores(db, 0, last, limit):
            assert len(page) <= limit
            assert page[0].place > last
            found, last = found + [row.wallet for row in page], page[-1].place
        assert found == [ME, YOU, SHE][after:]


def test_rankings_are_counted_for_each_epoch_whether_anybody_ranked_or_not(db: Session) -> None:
    for epoch in (0, 1):
        queries.add(db, _epoch(epoch))
    queries.add(db, _task("a"), _task("b"), _ranking(0, ME), _ranking(1, YOU), _ranking(2, ME, revision=1))
    assert queries.counts(db) == {0: (2, 3, 0), 1: (0, 0, 0)}
    for epoch, (_, judgements, _) in queries.counts(db).items():
        assert queries.judgement_count(db, epoch) == judgements


def test_a_wallets_judged_tasks_are_counted_and_neither_what_it_holds_nor_what_it_gave_back(
    db: Session,
) -> None:
    held = {"epoch": 0, "wallet": ME, "expires_at": 1}
    queries.add(db, *(LeaseRow(task=t, done=True, live=False, **held) for t in "ab"))
    queries.add(db, LeaseRow(task="c", **held), LeaseRow(task="d", skipped=True, live=False, **held))
    queries.add(db, LeaseRow(task="e", done=True, **held | {"wallet": YOU}))
    assert queries.judged_count(db, 0, ME) == 2
    assert queries.judged_count(db, 1, ME) == 0


def test_what_was_asked_before_is_found_among_what_is_named(db: Session) -> None:
    queries.add(db, _task("a", responses=["x", "y"]), _task("b"))
    asked, other = ("", ("x", "y")), ("", ("y", "x"))
    assert queries.used_contents(db, [asked, other]) == {asked}
    assert queries.used_prompts(db, ["", "other"]) == {""}


def test_a_cumulative_payout_is_the_last_one_up_to_the_epoch(db: Session) -> None:
    leaves = [(0, ME, 5), (1, YOU, 2**90), (2, ME, 9)]
    queries.add(db, *(LeafRow(epoch=e, account=a, cumulative=str(v)) for e, a, v in leaves))
    assert results.cumulative(db, 1) == {ME: 5, YOU: 2**90}
    assert results.cumulative(db, 2) == {ME: 9, YOU: 2**90}
    for epoch in range(-1, 4):
        every = results.cumulative(db, epoch)
        for who in (ME, YOU, SHE):
            assert results.cumulative_of(db, who, epoch) == every.get(who, 0)


def test_only_pools_that_carry_something_are_carried(db: Session) -> None:
    pools = [(0, "0"), (1, "7"), (2**64 - 1, "8")]
    queries.add(db, *(PoolRow(epoch=0, run=r, funded="9", carried_in="0", carried_out=c) for r, c in pools))
    assert results.carried(db, 0) == {1: 7, 2**64 - 1: 8}


def test_jobs_are_given_out_oldest_first_and_each_once(db: Session) -> None:
    queries.add(db, *(JobRow(name=n, arguments=[]) for n in ("one", "two")))
    taken = [work.claim_job(db, w, 100.0, 30.0) for w in ("a", "b", "c")]
    assert [j and (j.name, j.worker, j.attempts) for j in taken] == [("one", "a", 1), ("two", "b", 1), None]


def test_a_job_whose_worker_fell_silent_is_given_out_again_and_says_so(db: Session) -> None:
    queries.add(db, JobRow(name="one", arguments=[]))
    work.claim_job(db, "a", 100.0, 30.0)
    assert work.claim_job(db, "b", 130.0, 30.0) is None
    again = work.claim_job(db, "b", 130.1, 30.0)
    assert again is not None
    assert (again.worker, again.attempts) == ("b", 2)
    assert "attempt 1" in again.error


def test_a_job_that_keeps_killing_its_workers_is_given_up(db: Session) -> None:
    queries.add(db, JobRow(name="one", arguments=[]))
    for now in (0.0, 100.0):
        work.bury_jobs(db, now, 30.0, 2)
        assert work.claim_job(db, "a", now, 30.0) is not None
    work.bury_jobs(db, 200.0, 30.0, 2)
    (job,) = work.jobs(db)
    db.refresh(job)
    assert job.state == "failed"
    assert "tried 2 times" in job.error
    assert work.claim_job(db, "b", 200.0, 30.0) is None


def test_a_job_on_a_cluster_keeps_its_submission_is_not_given_up_and_goes_to_no_child(db: Session) -> None:
    queries.add(db, JobRow(name="one", arguments=[]))
    assert work.submission("a") == ""
    for attempt, worker in enumerate("abc", 1):
        now = 100.0 * attempt
        work.bury_jobs(db, now, 30.0, 1)
        assert attempt == 1 or work.claim_job(db, "child", now, 30.0) is None
        found = work.claim_job(db, worker, now, 30.0, cluster=True)
        assert found is not None
        assert (found.worker, found.attempts) == (f"haptic-a {worker}", attempt)
        assert work.submission(found.worker) == "haptic-a"
    found.state, found.worker = "queued", ""
    again = work.claim_job(db, "d", 400.0, 30.0, cluster=True)
    assert again is not None
    assert work.submission(again.worker) == "haptic-d"


@pytest.mark.parametrize("state", ["queued", "running", "failed"])
def test_what_a_cluster_that_is_gone_had_is_named_and_can_be_had_back(db: Session, state: str) -> None:
    for name, worker in (("one", "haptic-a a"), ("two", "b")):
        row = JobRow(name=name, arguments=[], state=state, worker=worker, heartbeat_at=100.0, attempts=3)
        queries.add(db, row)
    assert work.left_to_cluster(db, 120.0, 30.0) == ([] if state == "running" else ["one"])
    left = work.left_to_cluster(db, 200.0, 30.0)
    assert left == ["one"]
    if state != "failed":
        with pytest.raises(ConflictError, match=f"it is {state}"):
            training.requeue(db, Settings(), "one")
    training.requeue(db, Settings(), "one", left)
    found = work.claim_job(db, "child", 120.0, 30.0)
    assert found is not None
    assert (found.name, found.worker, found.attempts) == ("one", "child", 1)


@pytest.mark.parametrize("queued", [None, "/old.yaml"])
@pytest.mark.parametrize("present", [None, "/new.yaml"])
def test_a_training_that_failed_is_tried_again_with_the_present_settings_and_one_that_did_not_with_its_own(
    db: Session, queued: str | None, present: str | None
) -> None:
    """Where none are set at present, it keeps its own: a worker from another shell throws nothing away."""
    job = training.ask_bootstrap(db, _settings(queued))
    assert training.ask_bootstrap(db, _settings(present)) is job, "whoever only asks for it changes nothing"
    before = list(job.arguments)
    said = training.requeue(db, _settings(present), "bootstrap", left=["bootstrap"])
    assert (job.arguments, said) == (before, "as it was"), "it did not fail, and goes on from its checkpoint"
    job.state = "failed"
    said = training.requeue(db, _settings(present), "bootstrap")
    db.flush()
    db.expire_all()
    assert before[:5] == ["bootstrap", "--registry", before[2], "--name", "sft-0"]
    assert (before[5:], job.arguments[:5]) == (_argued(queued), before[:5])
    assert job.arguments[5:] == _argued(present or queued)
    had, has = (f"--config {each}" if each else "" for each in (queued, present or queued))
    assert said == f"with {has or 'no --config'} (before: {had or 'none'})"


def _settings(config: str | None) -> Settings:
    return Settings(trainer_config=Path(config) if config else None)


def _argued(config: str | None) -> list[str]:
    return ["--config", config] if config else []


@pytest.mark.parametrize("gone", [False, True])
def test_a_training_that_a_cluster_may_still_have_says_the_settings_that_it_was_submitted_with(
    db: Session, *, gone: bool
) -> None:
    job = training.ask_bootstrap(db, _settings("/old.yaml"))
    job.state, job.worker = "failed", "haptic-a b"
    said = training.requeue(db, _settings("/new.yaml"), "bootstrap", ["bootstrap"] if gone else [])
    assert ("haptic-a is followed as it was submitted" in said) == (not gone)
    assert job.arguments[5:] == _argued("/new.yaml" if gone else "/old.yaml")
    assert work.submission(job.worker) == ("" if gone else "haptic-a")


@pytest.mark.parametrize("is_open", [False, True])
def test_answers_that_failed_are_asked_for_again_with_the_present_settings_until_their_epoch_is_open(
    db: Session, tmp_path: Path, *, is_open: bool
) -> None:
    settings = Settings(data_dir=tmp_path, trainer_config=Path("/old.yaml"))
    (job,) = training.ask_answers(db, settings, 7, ["why?"], ["sft-0"])
    assert job.arguments[-2:] == _argued("/old.yaml")
    before, job.state, job.error = list(job.arguments), "failed", "no memory"
    if is_open:
        queries.add(db, _epoch(7))
        with pytest.raises(
            ConflictError, match="'answer/7/sft-0' cannot be tried again: epoch 7 was opened without it"
        ):
            training.requeue(db, _settings("/new.yaml"), job.name)
    else:
        training.requeue(db, _settings("/new.yaml"), job.name)
    assert (job.state, job.error) == (("failed", "no memory") if is_open else ("queued", ""))
    assert job.arguments == [*before[:-1], "/old.yaml" if is_open else "/new.yaml"]
