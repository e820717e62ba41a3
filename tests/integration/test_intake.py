"""Laws of taking many rankings in at once: it comes to the same as one by one, and nobody's fault is another's loss."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from coincurve import PrivateKey
from eth_account import Account
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select, update

from chain.assignment import display_order
from chain.bundle import SignedSession
from chain.errors import HapticError
from chain.feedback import Task, summary_of
from chain.messages import Domain, Ranking, Session, parse_address, recover, sign, sign_with
from chain.rules import Rules
from chain.types import Address
from service import auth, feedback, handouts
from service.database import LOCK_TIMEOUT_S, Database
from service.errors import (
    ConflictError,
    ExpiredError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)
from service.feedback import Accepted, Desk, Running, Sent, accept, accept_all
from service.intake import Intake
from service.ledger import queries
from service.ledger.tables import EpochRow, LeaseRow, RankingRow, TaskRow
from tests.worlds import NO_COMMENT, UNASKED

DOMAIN = Domain(31337, Address("0x" + "11" * 20))
SEED, NOW, END = b"\7" * 32, 1_000_000, 2_000_000
RULES = Rules(methods=("ranking",))


@dataclass(frozen=True)
class Person:
    """A wallet with a session key."""

    wallet: Any
    key: PrivateKey

    @classmethod
    def new(cls, number: int) -> Person:
        return cls(
            Account.from_key(number.to_bytes(32, "big")), PrivateKey((1000 + number).to_bytes(32, "big"))
        )

    @property
    def address(self) -> Address:
        return parse_address(self.wallet.address)

    def session(self, **changes: Any) -> Session:
        signer = parse_address(Account.from_key(self.key.secret).address)
        return replace(Session(self.address, signer, 0, 1000, END, auth.terms_hash()), **changes)

    def log_in(self, db: Any, **changes: Any) -> None:
        granted = self.session(**changes)
        auth.log_in(
            db, SignedSession(granted, sign(granted, DOMAIN, self.wallet)), DOMAIN, 0, NOW, b"master", UNASKED
        )

    def send(self, task: Task, **changes: Any) -> Sent:
        shown = display_order(SEED, self.address, task.hash(), task.hashes)
        ranks = tuple(range(1, len(shown) + 1))
        ranking = Ranking(
            self.address, 0, task.hash(), "ranking", summary_of(ranks), shown, ranks, (), "", NO_COMMENT, 0, NOW
        )  # fmt: skip
        ranking = replace(ranking, **changes)
        return Sent.of(ranking, sign_with(ranking, DOMAIN, self.key), "", DOMAIN)


@dataclass
class World:
    """An open epoch of some tasks, all of them in everybody's hands."""

    db: Database
    desk: Desk
    tasks: list[Task]
    people: list[Person]

    def together(self, sent: Sequence[Sent], running: Running | None = None) -> list[Accepted | HapticError]:
        running = running or Running(0, SEED)
        with self.db.write() as db:
            found = accept_all(db, self.desk, running, sent, NOW)
            db.commit()
        running.advance(sent, found)
        return found

    def newcomer(self, number: int, **session: Any) -> Person:
        """Log somebody new in, who holds every task."""
        person = Person.new(number)
        with self.db.write() as db:
            person.log_in(db, **session)
            held = {"epoch": 0, "wallet": person.address, "expires_at": NOW + 9, "staked": True}
            queries.add(db, *(LeaseRow(task=t.hash(), **held) for t in self.tasks))
            db.commit()
        return person

    def log(self) -> list[tuple[Any, ...]]:
        with self.db.read() as db:
            rows = db.exec(select(RankingRow).order_by(col(RankingRow.position))).all()
            return [(r.position, r.digest, r.signer, r.receipt) for r in rows]


@pytest.fixture
def world(engine: Engine) -> World:
    return _world(engine)


def _world(engine: Engine) -> World:
    db = Database(engine)
    tasks = [Task.of(f"prompt {n}", [f"a{n}", f"b{n}", f"c{n}"], ("ranking",)) for n in range(6)]
    people = [Person.new(n) for n in range(1, 5)]
    with db.write() as session:
        queries.add(
            session,
            EpochRow(
                epoch=0, seed_hash="", gold_root="", rules_hash="", rules=RULES.to_json(), lambda_num="1", lambda_den="1",
                opened_at=NOW, committed_at=NOW,
            ),
            *(
                TaskRow(
                    epoch=0, task=t.hash(), prompt=t.prompt, responses=list(t.responses), methods=["ranking"],
                    origins=[], assignees=[], gold_ranks=[],
                )
                for t in tasks
            ),
            *(handouts.tally_of(0, t, RULES) for t in tasks),
            *(
                LeaseRow(epoch=0, wallet=p.address, task=t.hash(), expires_at=NOW + 100)
                for p in people
                for t in tasks[:-1]
            ),
        )  # fmt: skip
        for person in people:
            person.log_in(session)
        session.commit()
    return World(db, Desk(DOMAIN, Account.from_key(b"\5" * 32)), tasks, people)


def _story(world: World, luck: random.Random, count: int) -> list[Sent]:
    """Return rankings of which some are revisions, some sent twice, some wrong."""
    story: list[Sent] = []
    for _ in range(count):
        person, task = luck.choice(world.people), luck.choice(world.tasks)
        story.append(
            person.send(task, revision=luck.choice([0, 0, 0, 1, 2]), signed_at=NOW + luck.choice([0, 1, 999]))
        )
        if luck.random() < 0.2:
            story.append(luck.choice(story))
    return story


def _said(found: Accepted | HapticError) -> Any:
    return (type(found), str(found)) if isinstance(found, HapticError) else found


@pytest.mark.parametrize("number", range(4))
def test_taken_together_they_come_to_what_they_come_to_one_by_one(
    engine: Engine, number: int, tmp_path: Any
) -> None:
    from sqlmodel import SQLModel, create_engine

    luck = random.Random(number)
    first = _world(engine)
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    SQLModel.metadata.create_all(other)
    second = _world(other)
    story = _story(first, luck, 40)
    running, together = Running(0, SEED), []
    while len(together) < len(story):
        together += first.together(story[len(together) : len(together) + luck.randint(1, 15)], running)
    alone = []
    for sent in story:
        with second.db.write() as db:
            try:
                alone.append(accept(db, second.desk, SEED, sent.ranking, sent.signature, "", NOW))
                db.commit()
            except HapticError as error:
                alone.append(error)
    other.dispose()
    assert [_said(x) for x in together] == [_said(x) for x in alone]
    assert first.log() == second.log()
    assert {type(x) for x in together} >= {Accepted, RejectedError, ConflictError}
    assert any(isinstance(x, Accepted) and x.replayed for x in together)


def test_the_places_of_a_batch_have_no_gap_and_every_receipt_is_signed_for_its_own(world: World) -> None:
    sent = [p.send(t) for p in world.people for t in world.tasks[:-1]]
    found = world.together(sent)
    assert [x.receipt.position for x in found if isinstance(x, Accepted)] == list(range(len(sent)))
    for item, got in zip(sent, found, strict=True):
        assert isinstance(got, Accepted)
        assert got.receipt.digest_of == item.digest
        assert recover(got.receipt.digest(DOMAIN), got.signature) == world.desk.signer
    assert [row[1] for row in world.log()] == [s.digest for s in sent]


def test_a_wrong_one_among_good_ones_is_refused_alone(world: World) -> None:
    a, b, c = world.people[:3]
    stranger = Person.new(99)
    unknown = Task.of("unknown", ["x", "y", "z"], ("ranking",))
    sent = [
        a.send(world.tasks[0]), a.send(world.tasks[-1]), b.send(unknown), stranger.send(world.tasks[0]),
        b.send(world.tasks[0], signed_at=NOW + 10_000), c.send(world.tasks[0]),
    ]  # fmt: skip
    found = world.together(sent)
    kinds = [Accepted, RejectedError, NotFoundError, RejectedError, RejectedError, Accepted]
    assert [type(x) for x in found] == kinds
    assert [row[0] for row in world.log()] == [0, 1]


def test_the_same_ranking_twice_in_a_batch_has_one_place_and_one_receipt(world: World) -> None:
    sent = world.people[0].send(world.tasks[0])
    first, again = world.together([sent, sent])
    assert isinstance(first, Accepted)
    assert again == replace(first, replayed=True)
    (later,) = world.together([sent])
    assert later == replace(first, replayed=True)
    assert len(world.log()) == 1


def test_a_session_key_signs_no_more_than_its_wallet_allowed_also_within_a_batch(world: World) -> None:
    person = world.newcomer(50, max_judgements=3)
    running = Running(0, SEED)
    found = world.together([person.send(t) for t in world.tasks[:2]], running)
    found += world.together([person.send(t) for t in world.tasks[2:]], running)
    assert [type(x) for x in found] == [Accepted] * 3 + [RejectedError] * 3
    assert "may sign 3 judgements" in str(found[3])


def test_what_another_replica_took_in_counts_towards_the_limit(world: World) -> None:
    person = world.newcomer(51, max_judgements=2)
    here, there = Running(0, SEED), Running(0, SEED)
    world.together([world.people[0].send(world.tasks[0])], here)
    world.together([person.send(t) for t in world.tasks[:2]], there)
    (refused,) = world.together([person.send(world.tasks[2])], here)
    assert isinstance(refused, RejectedError)
    (taken,) = world.together([world.people[1].send(world.tasks[0])], here)
    assert isinstance(taken, Accepted)
    assert taken.receipt.position == 3


def test_a_session_that_was_signed_in_elsewhere_since_is_found(world: World) -> None:
    person, running = world.people[0], Running(0, SEED)
    world.together([person.send(world.tasks[0])], running)
    renewed = replace(person, key=PrivateKey(b"\x22" * 32))
    with world.db.write() as db:
        renewed.log_in(db)
        db.commit()
    (found,) = world.together([renewed.send(world.tasks[1])], running)
    assert isinstance(found, Accepted)


def test_who_only_names_wallets_leaves_nothing_behind(world: World) -> None:
    """Nothing is known yet of who sent it: what were kept for each would be there until the epoch ends."""
    running = Running(0, SEED)
    world.together([world.people[0].send(world.tasks[0])], running)
    before = dict(running.sessions)
    found = world.together([Person.new(n).send(world.tasks[0]) for n in range(60, 70)], running)
    assert all(isinstance(x, RejectedError) for x in found)
    assert running.sessions == before
    assert set(before) == {world.people[0].address}


def test_a_lease_that_ran_out_is_refused_and_one_that_was_used_may_be_revised(world: World) -> None:
    person = world.people[0]
    world.together([person.send(world.tasks[0])])
    with world.db.write() as db:
        found = accept_all(
            db,
            world.desk,
            Running(0, SEED),
            [person.send(world.tasks[0], revision=1), person.send(world.tasks[1])],
            NOW + 100,
        )
        db.commit()
    assert [type(x) for x in found] == [Accepted, ExpiredError]
    with world.db.read() as db:
        assert queries.judged_count(db, 0, person.address) == 1


# -- the queue and its thread --------------------------------------------------------------------------------------


class Clock:
    """Block time that stands still; it says who asked the node for it."""

    def __init__(self, known: int | None = NOW) -> None:
        self._known, self.asked_by = known, set[str]()

    def known(self) -> int | None:
        return self._known

    def now(self) -> int:
        self.asked_by.add(threading.current_thread().name)
        return NOW


def _intake(world: World, epoch_at: Any = lambda _now: 0, clock: Clock | None = None) -> Intake:
    place: Any = SimpleNamespace(seed=lambda _epoch: SEED, epoch_at=epoch_at)
    at: Any = clock or Clock()
    return Intake(world.db, world.desk, place, at)


def _hold(db: Any) -> None:
    """Be the one who writes, until this transaction ends."""
    db.exec(update(EpochRow).values(epoch=EpochRow.epoch))


def _begun(world: World, clock: Clock) -> Intake:
    """Return an intake that knows the running epoch: a refusal has made it read that."""
    intake = _intake(world, clock=clock)
    assert isinstance(_take(intake, [world.people[0].send(world.tasks[-1])])[0], RejectedError)
    _wait_until(lambda: intake._patient is not world.db.embedded)
    clock.asked_by.clear()
    return intake


def _take(intake: Intake, sent: Sequence[Sent]) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(intake.take(s) for s in sent), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_all_that_come_at_once_get_their_own_answer_after_the_commit(world: World) -> None:
    intake = _intake(world)
    sent = [p.send(t) for p in world.people for t in world.tasks]
    found = _take(intake, sent)
    intake.close()
    stored = {row[1]: row[0] for row in world.log()}
    for item, got in zip(sent, found, strict=True):
        if item.ranking.task == world.tasks[-1].hash():
            assert isinstance(got, RejectedError)
        else:
            assert stored[item.digest] == got.receipt.position


def test_nobody_is_told_accepted_where_the_commit_fails_and_nothing_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = _intake(world)
    sent = [p.send(world.tasks[0]) for p in world.people]

    def full(*_: object) -> None:
        raise OperationalError("COMMIT", None, Exception("database or disk is full"))

    with monkeypatch.context() as broken:
        broken.setattr("sqlmodel.Session.commit", full)
        found = _take(intake, sent)
    assert [type(x) for x in found] == [OperationalError] * len(sent)
    assert world.log() == []
    assert all(isinstance(x, Accepted) for x in _take(intake, sent))
    intake.close()


def test_one_that_breaks_the_batch_is_answered_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    intake, right = _intake(world), feedback._Batch.take
    sent = [p.send(t) for p in world.people for t in world.tasks[:-1]]
    odd = sent[7].digest

    def take(self: Any, item: Sent) -> Accepted:
        if item.digest == odd:
            raise ZeroDivisionError
        return right(self, item)

    monkeypatch.setattr(feedback._Batch, "take", take)
    found = _take(intake, sent)
    intake.close()
    assert [i for i, x in enumerate(found) if isinstance(x, ZeroDivisionError)] == [7]
    assert sum(isinstance(x, Accepted) for x in found) == len(sent) - 1
    assert [row[0] for row in world.log()] == list(range(len(sent) - 1))


def test_a_ranking_of_another_epoch_is_told_which_one_runs(world: World) -> None:
    intake = _intake(world, epoch_at=lambda _now: 4)
    (refused,) = _take(intake, [world.people[0].send(world.tasks[0])])
    intake.close()
    assert isinstance(refused, ConflictError)
    assert "the running one is 4" in str(refused)


def test_what_waits_is_bounded_and_a_closed_intake_takes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.intake.WAITING", 2)
    intake = _intake(world)
    sent = [p.send(t) for p in world.people for t in world.tasks[:-1]]
    # Whoever wants the epoch waits for us: what is sent meanwhile stays in the queue.
    with world.db.write() as db:
        _hold(db)

        async def crowd() -> list[Any]:
            asking = [asyncio.ensure_future(intake.take(s)) for s in sent]
            await asyncio.sleep(0.1)
            db.rollback()
            return await asyncio.gather(*asking, return_exceptions=True)

        found = asyncio.run(crowd())
    refused = [x for x in found if isinstance(x, UnavailableError)]
    assert refused
    assert len(world.log()) == len(sent) - len(refused)
    intake.close()
    (late,) = _take(intake, [sent[-1]])
    assert isinstance(late, UnavailableError)


def test_the_event_loop_takes_in_what_need_not_wait_and_the_thread_what_must(world: World) -> None:
    """The clock asks a node, and a server's database answers over a socket: neither may hold up every page."""
    known, stale = Clock(), Clock(known=None)
    for clock, task in ((known, world.tasks[0]), (stale, world.tasks[1])):
        intake = _begun(world, clock)
        assert all(isinstance(x, Accepted) for x in _take(intake, [p.send(task) for p in world.people]))
        intake.close()
    assert known.asked_by == (set() if world.db.embedded else {"intake"})
    assert stale.asked_by == {"intake"}


def test_while_another_writes_the_loop_goes_on_and_what_waits_keeps_its_order(world: World) -> None:
    intake = _intake(world)
    sent = [p.send(t) for p in world.people for t in world.tasks[:-1]]
    with world.db.write() as db:
        _hold(db)

        async def crowd() -> list[Any]:
            asking = [asyncio.ensure_future(intake.take(s)) for s in sent]
            longest, before = 0.0, time.monotonic()
            for _ in range(50):
                await asyncio.sleep(0.01)
                longest, before = max(longest, time.monotonic() - before), time.monotonic()
            assert longest < LOCK_TIMEOUT_S / 3
            assert not [x.result() for x in asking if x.done()]
            db.rollback()
            return await asyncio.gather(*asking)

        found = asyncio.run(crowd())
    intake.close()
    assert [x.receipt.position for x in found] == list(range(len(sent)))


def test_once_the_thread_has_nothing_left_the_loop_takes_turns_again(world: World) -> None:
    clock = Clock()
    intake = _begun(world, clock)
    known = intake._running
    with world.db.write() as db:
        _hold(db)

        async def held_up() -> Any:
            asking = asyncio.ensure_future(intake.take(world.people[0].send(world.tasks[0])))
            await asyncio.sleep(0.1)
            db.rollback()
            return await asking

        assert isinstance(asyncio.run(held_up()), Accepted)
    assert clock.asked_by == {"intake"}
    assert intake._running is known  # another writer costs nobody what was read
    _wait_until(lambda: intake._patient is not world.db.embedded)
    clock.asked_by.clear()
    assert all(isinstance(x, Accepted) for x in _take(intake, [p.send(world.tasks[1]) for p in world.people]))
    assert clock.asked_by == (set() if world.db.embedded else {"intake"})
    intake.close()


def test_what_comes_while_the_loop_still_reads_shares_the_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(*given: Any) -> Any:
        sizes.append(len(given[3]))
        return accept_all(*given)

    intake = _begun(world, Clock())
    monkeypatch.setattr("service.intake.accept_all", counted)

    async def one_after_the_other() -> list[Any]:
        asking = []
        for person in world.people:
            asking.append(asyncio.ensure_future(intake.take(person.send(world.tasks[0]))))
            await asyncio.sleep(0)
        return await asyncio.gather(*asking)

    assert all(isinstance(x, Accepted) for x in asyncio.run(one_after_the_other()))
    intake.close()
    assert sum(sizes) == len(world.people)
    assert sizes == [len(world.people)] or not world.db.embedded


def _wait_until(is_so: Callable[[], bool]) -> None:
    patience_ends = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < patience_ends
        time.sleep(0.005)


def test_who_names_another_epoch_costs_the_running_one_nothing_that_is_known_of_it(world: World) -> None:
    """To read it in again takes longer the more was ranked, and anybody may name any epoch."""
    intake = _begun(world, Clock())
    known = intake._running
    other = Person.new(77).send(world.tasks[0], epoch=5)
    assert isinstance(_take(intake, [other])[0], ConflictError)
    assert intake._running is known
    intake.close()


def test_what_has_to_be_read_in_first_is_not_read_by_the_event_loop(world: World) -> None:
    clock = Clock()
    intake = _intake(world, clock=clock)
    assert isinstance(_take(intake, [world.people[0].send(world.tasks[0])])[0], Accepted)
    assert clock.asked_by == {"intake"}
    intake.close()
