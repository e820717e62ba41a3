"""What the service hands out and stores is what the rule gives, on both databases, whatever people do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy.event import listen
from sqlmodel import Session as Db
from sqlmodel import select

from chain.assignment import task_point
from chain.board import Arrival, Board, in_order, replay
from chain.feedback import Task, signs_of
from chain.messages import Ranking
from chain.rules import Rules
from chain.types import Address, Hash32
from service import handouts
from service.database import Database, open_database
from service.errors import NotFoundError
from service.ledger import queries
from service.ledger.tables import EpochRow, RankingRow, TallyRow, TaskRow
from tests.postgres import Postgres
from tests.stories import SEED, WALLETS, BoardKeeper, Step, ranking_of, tell, tellings, worlds


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{_folder(tmp_path_factory) / 'haptic.db'}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new()
    opened = open_database(url)
    yield opened
    opened.engine.dispose()


def _tallies(db: Db, epoch: int) -> list[TallyRow]:
    return list(db.exec(select(TallyRow).where(TallyRow.epoch == epoch)))


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("database")


@dataclass
class ServiceKeeper:
    """The service's own keeper, one transaction a step, without signatures."""

    database: Database
    epoch: int
    rules: Rules

    def _row(self, db: Db) -> EpochRow:
        row = queries.epoch_row(db, self.epoch, lock=True)
        assert row is not None
        return row

    def ask(self, wallet: Address, at: int) -> Hash32 | None:
        with self.database.write() as db:
            try:
                found = handouts.next_task(db, SEED, self.rules, self._row(db), wallet, at)
            except NotFoundError:
                return None
            db.commit()
            return found.entry.task

    def skip(self, wallet: Address, task: Hash32, reason: str, at: int) -> None:
        with self.database.write() as db:
            if queries.skip_row(db, self.epoch, wallet, task):
                raise NotFoundError("the service answers the same again, the board refuses it")
            handouts.skip(db, self.rules, self._row(db), wallet, task, reason, at)
            db.commit()

    def rank(self, ranking: Ranking, at: int) -> None:
        with self.database.write() as db:
            row = self._row(db)
            now = handouts.later(row, at)
            lease = queries.lease_row(db, self.epoch, ranking.wallet, ranking.task)
            held = handouts.check_held(lease, ranking.wallet, ranking.task, now)
            before = queries.latest_revision(db, self.epoch, ranking.wallet, ranking.task)
            position = queries.next_position(db, self.epoch)
            message = ranking.to_json()
            queries.add(
                db,
                RankingRow(
                    epoch=self.epoch, position=position, digest=str(position), wallet=ranking.wallet, signer="",
                    task=ranking.task, revision=ranking.revision, message=message, signature="", received_at=now,
                    receipt="",
                ),
            )  # fmt: skip
            tally = queries.tally_row(db, held.epoch, held.task)
            handouts.count(
                self.rules, held, tally, ranking, Ranking.parse(before.message) if before else None
            )
            db.commit()


def _open(database: Database, tasks: dict[Hash32, Task], rules: Rules) -> ServiceKeeper:
    """Open the next epoch of a database with these tasks."""
    with database.write() as db:
        epoch = len(queries.epochs(db))
        row = EpochRow(
            epoch=epoch, seed_hash="", gold_root="", rules_hash="", rules=rules.to_json(), lambda_num="1", lambda_den="1",
            opened_at=0, committed_at=0,
        )  # fmt: skip
        queries.add(db, row)
        for name, task in tasks.items():
            queries.add(
                db,
                TaskRow(
                    epoch=epoch, task=name, prompt=task.prompt, responses=list(task.responses),
                    methods=list(task.methods), origins=[], assignees=list(task.assignees), author=task.author,
                    gold_ranks=[],
                ),
                handouts.tally_of(epoch, task, rules),
            )  # fmt: skip
        db.commit()
    return ServiceKeeper(database, epoch, rules)


@given(worlds(), tellings)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_service_writes_the_log_that_the_rule_gives_and_counts_what_the_replay_counts(
    database: Database, world: tuple[dict[Hash32, Task], Rules], telling: list[Step]
) -> None:
    tasks, rules = world
    stored, board = _open(database, tasks, rules), BoardKeeper(Board(tasks, rules, SEED))
    assert tell(telling, stored, tasks, rules) == tell(telling, board, tasks, rules)
    with database.read() as db:
        given_ = [handouts.handout_entry(h) for h in queries.handouts(db, stored.epoch)]
        skips = [handouts.skip_entry(s) for s in queries.skips(db, stored.epoch)]
        rankings = list(queries.rankings(db, stored.epoch))
    arrivals = [Arrival(r.position, Ranking.parse(r.message), r.received_at) for r in rankings]
    assert (given_, skips, arrivals) == (board.handouts, board.skips, board.arrivals)
    replayed = replay(Board(tasks, rules, SEED), in_order(given_, skips, arrivals))
    # Leases end lazily here, when somebody asks: the board ends one at every event.
    board.board.expire(10**9)
    replayed.expire(10**9)
    with database.write() as db:
        handouts._expire(db, stored.epoch, 10**9)
        counted = {t.task: (t.taken, t.done, t.votes, t.wanted) for t in _tallies(db, stored.epoch)}
    assert counted == {n: (t.taken, t.done, t.votes, t.wanted) for n, t in replayed.tallies.items()}


def test_a_revision_takes_the_place_of_what_was_said_before(database: Database) -> None:
    rules = Rules(methods=("ranking",))
    task = Task.of("p", ["a", "b", "c"], ["ranking"])
    keeper = _open(database, {task.hash(): task}, rules)
    telling = [("ask", 0, 0, 1), ("rank", 0, 0, 5), ("revise", 0, 0, 3), ("revise", 0, 0, 8)]
    tell(telling, keeper, {task.hash(): task}, rules)
    last = ranking_of(WALLETS[0], task, rules, 2, 8)
    with database.read() as db:
        (tally,) = _tallies(db, keeper.epoch)
    assert (tally.votes, tally.done, tally.taken) == (list(signs_of(last)), 1, 1)


def test_a_clock_that_goes_back_leaves_a_log_that_does_not(database: Database) -> None:
    """Two replicas do not hear of a block in the same moment."""
    rules = Rules(methods=("ranking",))
    tasks = {t.hash(): t for t in (Task.of(f"p{n}", ["a", "b"], ["ranking"]) for n in range(4))}
    keeper = _open(database, tasks, rules)
    for wallet, at in zip(WALLETS[:3], (100, 90, 95), strict=True):
        name = keeper.ask(wallet, at)
        assert name is not None
        keeper.rank(ranking_of(wallet, tasks[name], rules, 0, 1), at - 5)
    with database.read() as db:
        assert [h.at for h in queries.handouts(db, keeper.epoch)] == [100] * 3
        assert [r.received_at for r in queries.rankings(db, keeper.epoch)] == [100] * 3


@pytest.mark.parametrize("turn", range(4))
def test_a_task_that_is_for_one_and_one_for_all_are_chosen_in_one_order(
    database: Database, turn: int
) -> None:
    """Neither has been judged: the first from the wallet's point on is given, and round again."""
    rules, wallet = Rules(methods=("ranking",)), WALLETS[turn]
    point = task_point(SEED, wallet, 0)
    for n in range(30):
        own = Task.of(f"own {n}", ["a", "b"], ["ranking"], assignees=(wallet,))
        tasks = {t.hash(): t for t in (own, Task.of(f"all {n}", ["a", "b"], ["ranking"]))}
        expected = min(tasks, key=lambda name: (name < point, name))
        assert _open(database, tasks, rules).ask(wallet, 5) == expected


def test_a_hand_out_is_found_by_indexes_of_what_is_still_searched(tmp_path: Path) -> None:
    """Not by those of all leases or all tallies: of a hundred thousand wallets most hold or judged something."""
    opened = open_database(f"sqlite:///{tmp_path / 'haptic.db'}")
    rules, asked = Rules(methods=("ranking",)), []
    tasks = {t.hash(): t for t in (Task.of(f"p{n}", ["a", "b"], ["ranking"]) for n in range(4))}
    keeper = _open(opened, tasks, rules)
    listen(opened.engine, "before_cursor_execute", lambda *about: asked.append(about[2:4]))
    assert keeper.ask(WALLETS[0], 5)
    found: dict[str, set[str]] = {"lease": set(), "tally": set()}
    with opened.read() as db:
        for statement, given_ in [a for a in asked if a[0].startswith("SELECT")]:
            for *_, plan in db.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given_):
                for table, indexes in found.items():
                    if f" {table} " in plan:
                        indexes.add(plan.partition(" INDEX ")[2].partition(" ")[0])
    opened.engine.dispose()
    assert found["lease"] == {"lease_held", "lease_ends", "sqlite_autoindex_lease_1"}
    assert found["tally"] == {"tally_open", "tally_reserved", "sqlite_autoindex_tally_1"}


def test_a_hand_out_takes_a_few_milliseconds_among_four_thousand_tasks(database: Database) -> None:
    """Bounds are wide, because other work runs beside: a hand-out that reads all tasks takes ten times as long."""
    rules = Rules(methods=("ranking",))
    tasks = {
        t.hash(): t for t in (Task.of(f"p{n}", ["a" * 500, "b" * 500], ["ranking"]) for n in range(4000))
    }
    keeper, spent = _open(database, tasks, rules), []
    for turn in range(60):
        wallet = WALLETS[turn % len(WALLETS)]
        began = perf_counter()
        name = keeper.ask(wallet, turn)
        spent.append(perf_counter() - began)
        assert name is not None
        keeper.rank(ranking_of(wallet, tasks[name], rules, 0, turn), turn)
    assert median(spent) < 0.05
    print(f"median {1000 * median(spent):.1f} ms, worst {1000 * max(spent):.1f} ms")  # noqa: T201
