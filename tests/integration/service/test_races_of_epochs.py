"""An epoch is opened, ranked, closed and reopened by one transaction after the other, on PostgreSQL too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmodel import Session as Db

from chain import ledger
from chain.messages import sign
from chain.rules import Rules
from service import corrections, epochs, feedback, handouts, jobs
from service.errors import ConflictError
from service.feedback import Running
from service.ledger import queries, results
from service.results import store
from tests.integration.service.turns import at_once, doing
from tests.postgres import Postgres

RULES = Rules(methods=("ranking",), overlap=3, overlap_max=3)


@pytest.fixture(scope="module")
def net(network: Any, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with network(tmp_path_factory.mktemp("net"), RULES, database_url=postgres.new()) as made:
        made.go_to(made.start(0) + 1)
        yield made


def test_an_epoch_is_not_reopened_under_the_next_that_is_being_opened(net: Any) -> None:
    epoch = net.new_epoch()
    refused = at_once(
        net.ctx.db,
        lambda s: epochs.open_epoch(s, net.ctx.place, epoch, [], RULES, 5),
        doing(net.ctx.db, lambda s: corrections.reopen(s, net.ctx.place, epoch - 1)),
    )
    assert isinstance(refused, ConflictError)
    assert f"epoch {epoch} was opened by what epoch {epoch - 1} came to" in str(refused)
    jobs.step_commit(net.ctx)


def _ended(net: Any, *, judged: bool = True) -> Any:
    """Open an epoch, let somebody judge, let it end, and return its close, not yet written."""
    epoch = net.new_epoch()
    net.open(epoch, net.plans(epoch, 2))
    if judged:
        net.judge(net.person(epoch=epoch), 1)
    return _end(net, epoch)


def _end(net: Any, epoch: int) -> Any:
    net.go_to(net.start(epoch + 1) + 1)
    jobs.step_index(net.ctx)
    return _draft(net, epoch)


def _draft(net: Any, epoch: int) -> Any:
    with net.ctx.db.read() as db:
        return epochs.draft(db, net.ctx.rpc, net.ctx.place, epoch)


def _store(net: Any, item: Any) -> Callable[[Db], None]:
    return lambda s: store(s, net.ctx.place, item, net.now())


def test_results_that_are_taken_back_while_they_are_stored_leave_nothing_behind(net: Any) -> None:
    item = _ended(net)
    at_once(
        net.ctx.db,
        _store(net, item),
        doing(net.ctx.db, lambda s: corrections.reopen(s, net.ctx.place, item.epoch)),
    )
    with net.ctx.db.read() as db:
        assert queries.last_closed(db) == item.epoch - 1
        assert results.scores(db, item.epoch, 0, 1) == []
        assert ledger.epoch_report(db, item.epoch) is None
    assert jobs.close_epoch(net.ctx, item.epoch) is not None


def test_an_epoch_that_was_given_up_since_is_not_closed_with_what_was_ranked(net: Any) -> None:
    item = _ended(net)

    def give_up(db: Db, when: int | None) -> None:
        row = queries.epoch_row(db, item.epoch)
        assert row is not None
        row.abandoned_at = when

    doing(net.ctx.db, lambda s: give_up(s, 5))()
    with pytest.raises(ConflictError, match="while epoch"):
        doing(net.ctx.db, _store(net, item))()
    doing(net.ctx.db, lambda s: give_up(s, None))()
    doing(net.ctx.db, _store(net, item))()


def test_an_epoch_is_not_closed_on_results_that_were_taken_back_since(net: Any) -> None:
    item = _ended(net)
    jobs.step_commit(net.ctx)
    doing(net.ctx.db, lambda s: corrections.reopen(s, net.ctx.place, item.epoch - 1))()
    with pytest.raises(ConflictError, match="while epoch"):
        doing(net.ctx.db, _store(net, item))()
    assert jobs.close_epoch(net.ctx, item.epoch - 1) is not None
    assert jobs.close_epoch(net.ctx, item.epoch) is not None


def test_what_the_chain_knows_is_not_noted_for_results_that_are_taken_back(net: Any) -> None:
    item = _ended(net)
    doing(net.ctx.db, _store(net, item))()
    jobs.step_commit(net.ctx)

    def unnoted(db: Db) -> None:
        row = queries.epoch_row(db, item.epoch)
        assert row is not None
        row.anchored_at = None

    doing(net.ctx.db, unnoted)()
    assert (
        at_once(
            net.ctx.db,
            lambda s: corrections.reopen(s, net.ctx.place, item.epoch),
            lambda: jobs._note(net.ctx, item.epoch),
        )
        is None
    )
    with net.ctx.db.read() as db:
        row = queries.epoch_row(db, item.epoch)
    assert row is not None
    assert (row.closed_at, row.anchored_at) == (None, None)
    assert jobs.close_epoch(net.ctx, item.epoch) is not None


def test_a_report_that_is_taken_back_is_marked_no_more(net: Any) -> None:
    item = _ended(net)
    doing(net.ctx.db, _store(net, item))()
    with net.ctx.db.read() as db:
        report = ledger.epoch_report(db, item.epoch)
    assert report is not None
    said = at_once(
        net.ctx.db,
        lambda s: corrections.reopen(s, net.ctx.place, item.epoch),
        lambda: jobs._mark(net.ctx, report, "posted"),
    )
    assert said == f"epoch {item.epoch} is posted"
    with net.ctx.db.read() as db:
        assert ledger.epoch_report(db, item.epoch) is None
    assert jobs.close_epoch(net.ctx, item.epoch) is not None


@pytest.fixture
def open_epoch(net: Any) -> int:
    """Return an epoch that has just been opened with one task."""
    number: int = net.new_epoch()
    net.open(number, net.plans(number, 1))
    return number


def test_a_task_is_handed_to_as_many_as_are_wanted_and_no_more(net: Any, open_epoch: int) -> None:
    people = [net.person(epoch=open_epoch) for _ in range(RULES.overlap + 1)]
    for who in people[2:]:
        assert who.next_task() is not None

    def take(db: Db) -> None:
        row = queries.epoch_row(db, open_epoch, lock=True)
        seed = net.ctx.place.seed(open_epoch)
        handouts.next_task(db, seed, RULES, row, people[0].address, net.now())

    assert at_once(net.ctx.db, take, people[1].next_task) is None


def test_two_rankings_have_two_places_in_the_log(net: Any, open_epoch: int, right: Any) -> None:
    people = [net.person(epoch=open_epoch) for _ in range(2)]
    rankings = [p.ranking(task, right(task), now=net.now()) for p in people if (task := p.next_task())]
    signature = sign(rankings[0], net.ctx.domain, people[0].signer)
    seed = net.ctx.place.seed(open_epoch)
    answer = at_once(
        net.ctx.db,
        lambda s: feedback.accept(s, net.ctx.desk, seed, rankings[0], signature, "", net.now()),
        lambda: people[1].send(rankings[1]),
    )
    assert answer["position"] == 1


def test_no_ranking_that_is_being_recorded_is_left_out_when_its_epoch_is_closed(net: Any, right: Any) -> None:
    epoch = net.new_epoch()
    net.open(epoch, net.plans(epoch, 1))
    who, now = net.person(epoch=epoch), net.now()
    task = who.next_task()
    ranking = who.ranking(task, right(task), now=now)
    signature = sign(ranking, net.ctx.domain, who.signer)
    item = _end(net, epoch)
    seed = net.ctx.place.seed(epoch)
    refused = at_once(
        net.ctx.db,
        lambda s: feedback.accept(s, net.ctx.desk, seed, ranking, signature, "", now),
        doing(net.ctx.db, _store(net, item)),
    )
    assert isinstance(refused, ConflictError)
    assert "a ranking came in" in str(refused)
    assert jobs.close_epoch(net.ctx, epoch) is not None


def test_no_ranking_comes_into_an_epoch_that_is_being_closed(net: Any) -> None:
    item = _ended(net, judged=False)
    # By a replica whose clock is behind: it still takes the epoch for the running one.
    sent: Any = SimpleNamespace()

    def take(db: Db) -> None:
        (found,) = feedback.accept_all(db, net.ctx.desk, Running(item.epoch, b""), [sent], net.now())
        assert isinstance(found, Exception)
        raise found

    refused = at_once(net.ctx.db, _store(net, item), doing(net.ctx.db, take))
    assert isinstance(refused, ConflictError)
    assert f"epoch {item.epoch} is not open" in str(refused)
