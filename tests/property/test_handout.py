"""Laws of hand-outs: what the rule gave replays clean, and a log that was changed only where it makes no difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chain.board import Arrival, Board, Event, in_order, replay
from chain.errors import VerifyError
from chain.feedback import Task, signs_of
from chain.handout import (
    STAKE_AFTER_S,
    STAKE_BEFORE_S,
    HandoutEntry,
    SkipEntry,
    check_staked,
    skips_left,
    wanted,
)
from chain.rules import METHODS, Rules
from chain.stake import Change
from chain.types import Hash32, Wei
from tests.stories import (
    SEED,
    WALLETS,
    BoardKeeper,
    Step,
    is_honest,
    ranking_of,
    tell,
    tellings,
    worlds,
)

World = tuple[dict[Hash32, Task], Rules]
stories = settings(max_examples=60, deadline=None)


def _told(world: World, telling: Sequence[Step]) -> BoardKeeper:
    tasks, rules = world
    keeper = BoardKeeper(Board(tasks, rules, SEED))
    tell(telling, keeper, tasks, rules)
    return keeper


def _replayed(world: World, keeper: BoardKeeper, **changed: object) -> Board:
    parts = {"handouts": keeper.handouts, "skips": keeper.skips, "rankings": keeper.arrivals} | changed
    return replay(Board(*world, SEED), in_order(**parts))  # type: ignore[arg-type]


def _events(keeper: BoardKeeper) -> list[Event]:
    return list(in_order(keeper.handouts, keeper.skips, keeper.arrivals))


@given(worlds(), tellings)
@stories
def test_what_the_rule_gave_replays_clean_and_is_what_the_specification_says(
    world: World, telling: list[Step]
) -> None:
    keeper = _told(world, telling)
    board = _replayed(world, keeper)
    for kept in (board, keeper.board):
        kept.expire(10**9)
    assert board.tallies == keeper.board.tallies
    assert is_honest(*world, _events(keeper))


@given(worlds(), tellings, st.randoms(use_true_random=False))
@stories
def test_a_changed_log_replays_only_where_the_specification_allows_it(
    world: World, telling: list[Step], luck: Random
) -> None:
    events = _events(_told(world, telling))
    assume(events)
    changed = _change(events, sorted(world[0]), luck)
    assume(changed != events)
    try:
        replay(Board(*world, SEED), changed)
    except VerifyError:
        assert not is_honest(*world, changed)
    else:
        assert is_honest(*world, changed)


def _change(events: list[Event], names: list[Hash32], luck: Random) -> list[Event]:
    """Return a log with one entry left out, doubled, exchanged, or given another task, wallet or time."""
    at, changed = luck.randrange(len(events)), list(events)
    event = changed[at]
    kind = luck.choice(["drop", "double", "swap", "time", "task", "wallet"])
    if kind == "drop":
        del changed[at]
    elif kind == "double":
        changed.insert(at, event)
    elif kind == "swap":
        changed[at], changed[at - 1] = changed[at - 1], changed[at]
    elif isinstance(event, Arrival) or kind == "time":
        later = event.at + luck.choice([-45, -1, 1, 45])
        changed[at] = event._replace(at=later) if isinstance(event, Arrival) else replace(event, at=later)
    elif kind == "task":
        changed[at] = replace(event, task=luck.choice(names))
    elif kind == "wallet":
        changed[at] = replace(event, wallet=luck.choice(WALLETS))
    return changed


@given(worlds(), tellings, st.data())
@stories
def test_a_hand_out_of_another_task_is_always_refused(
    world: World, telling: list[Step], data: st.DataObject
) -> None:
    keeper = _told(world, telling)
    assume(keeper.handouts and len(world[0]) > 1)
    at = data.draw(st.integers(0, len(keeper.handouts) - 1))
    entry = keeper.handouts[at]
    other = data.draw(st.sampled_from(sorted(set(world[0]) - {entry.task})))
    forged = [*keeper.handouts[:at], replace(entry, task=other), *keeper.handouts[at + 1 :]]
    with pytest.raises(VerifyError, match=rf"hand-out {entry.number} of {entry.wallet}: "):
        _replayed(world, keeper, handouts=forged)


@given(worlds(), tellings, st.data())
@stories
def test_a_missing_line_leaves_a_gap_or_a_ranking_without_its_hand_out(
    world: World, telling: list[Step], data: st.DataObject
) -> None:
    keeper = _told(world, telling)
    used = {(a.ranking.wallet, a.ranking.task) for a in keeper.arrivals}
    assume(used)
    at = data.draw(st.sampled_from([i for i, h in enumerate(keeper.handouts) if (h.wallet, h.task) in used]))
    number = keeper.handouts[at].number
    left = [*keeper.handouts[:at], *keeper.handouts[at + 1 :]]
    if number < len(keeper.handouts) + len(keeper.skips) - 1:
        with pytest.raises(VerifyError, match=f"expected number {number}; one is missing or added"):
            _replayed(world, keeper, handouts=left)
    key = (keeper.handouts[at].wallet, keeper.handouts[at].task)
    assume(sum((h.wallet, h.task) == key for h in keeper.handouts) == 1)

    def renumbered(entries: Sequence[HandoutEntry | SkipEntry]) -> list[HandoutEntry | SkipEntry]:
        return [replace(e, number=e.number - (e.number > number)) for e in entries]

    with pytest.raises(VerifyError):
        _replayed(world, keeper, handouts=renumbered(left), skips=renumbered(keeper.skips))


@given(worlds(), tellings)
@stories
def test_no_wallet_is_asked_twice_or_about_its_own_prompt_and_reserved_tasks_go_to_nobody_else(
    world: World, telling: list[Step]
) -> None:
    keeper, tasks = _told(world, telling), world[0]
    done = {(a.ranking.wallet, a.ranking.task): a.at for a in reversed(keeper.arrivals)}
    done |= {(s.wallet, s.task): s.at for s in keeper.skips}
    numbers = {(s.wallet, s.task): s.number for s in keeper.skips}
    for entry in keeper.handouts:
        task = tasks[entry.task]
        assert task.author != entry.wallet
        assert not task.assignees or entry.wallet in task.assignees
        assert entry.at <= done.get((entry.wallet, entry.task), entry.at)
        assert entry.number < numbers.get((entry.wallet, entry.task), 10**9)


@given(worlds(), tellings)
@stories
def test_a_task_is_never_judged_by_more_than_the_bounds(world: World, telling: list[Step]) -> None:
    keeper, (tasks, rules) = _told(world, telling), world
    for name, tally in keeper.board.tallies.items():
        assert 0 <= tally.done <= tally.taken
        if not tasks[name].assignees:
            assert tally.taken <= rules.overlap_max
            assert tally.wanted in {rules.overlap_min, rules.overlap, rules.overlap_max}


def test_a_revision_takes_the_place_of_what_was_said_before() -> None:
    task = Task.of("p", ["a", "b", "c"], ["ranking"])
    world = {task.hash(): task}, Rules(methods=("ranking",))
    keeper = _told(world, [("ask", 0, 0, 1), ("rank", 0, 0, 5), ("revise", 0, 0, 3), ("revise", 0, 0, 8)])
    said = [signs_of(a.ranking) for a in keeper.arrivals]
    assert len(set(said)) == 3
    tally = keeper.board.tallies[task.hash()]
    assert (tally.votes, tally.done, tally.taken) == (list(said[-1]), 1, 1)


OVERLAPS = Rules(overlap_min=3, overlap=5, overlap_max=7)


@pytest.mark.parametrize(
    ("done", "votes", "expected"),
    [
        (0, [0], 3), (2, [0], 3), (2, [2], 3),
        (3, [3], 3), (3, [-3, 3, 3], 3),
        (3, [1], 7), (4, [2], 5), (4, [-2], 5), (5, [1], 7), (5, [3], 5), (7, [7], 3),
        (3, [3, 3, 2], 5), (3, [2, 2, 1], 5), (3, [2, 1, 1], 7), (3, [0, 0, 0], 7),
    ],
)  # fmt: skip
def test_more_are_asked_the_less_those_before_agree(done: int, votes: list[int], expected: int) -> None:
    assert wanted(done, votes, OVERLAPS) == expected


@given(st.integers(0, 50), st.integers(0, 20))
def test_skips_are_free_three_times_and_then_cost_five_judged_tasks_each(judged: int, skipped: int) -> None:
    assert skips_left(judged, skipped, Rules()) == max(0, 3 + judged // 5 - skipped)


def test_every_wallet_and_turn_begins_elsewhere_so_that_no_two_see_the_tasks_in_one_order() -> None:
    rules = Rules(methods=("ranking",), overlap_min=4, overlap=4, overlap_max=4)
    tasks = {t.hash(): t for t in (Task.of(f"p{n}", ["a", "b"], ["ranking"]) for n in range(30))}
    keeper = BoardKeeper(Board(tasks, rules, SEED))
    for n in range(30):
        for wallet in WALLETS[:3]:
            keeper.rank(ranking_of(wallet, tasks[keeper.ask(wallet, n)], rules, 0, 5), n)  # type: ignore[index]
    orders = [[h.task for h in keeper.handouts if h.wallet == w] for w in WALLETS[:3]]
    assert all(sorted(order) == sorted(tasks) for order in orders)
    same = [
        sum(a == b for a, b in zip(orders[i], orders[j], strict=True)) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert max(same) < 15


# --- stake ------------------------------------------------------------------------------------------------


LEAST = 7


def _handed(at: int) -> list[HandoutEntry]:
    return [HandoutEntry(0, WALLETS[0], Hash32("0x" + 64 * "1"), at, 0)]


def _changes(*pairs: tuple[int, int]) -> list[Change]:
    return [Change(WALLETS[0], Wei(amount), at) for at, amount in pairs]


@given(
    st.lists(
        st.tuples(st.integers(0, 3 * STAKE_BEFORE_S), st.sampled_from([0, 1, LEAST - 1, LEAST, 9])),
        max_size=6,
    ),
    st.integers(STAKE_BEFORE_S, 3 * STAKE_BEFORE_S),
)
def test_a_task_is_handed_to_a_wallet_only_if_it_had_the_least_stake_within_the_window(
    changes: list[tuple[int, int]], at: int
) -> None:
    listed = _changes(*sorted(changes, key=lambda c: c[0]))

    def stake(second: int) -> int:
        return next((c.staked_after for c in reversed(listed) if c.timestamp <= second), 0)

    within = {c.staked_after for c in listed if at - STAKE_BEFORE_S < c.timestamp <= at + STAKE_AFTER_S}
    if any(s >= LEAST for s in (within | {stake(at - STAKE_BEFORE_S)})):
        check_staked(_handed(at), listed, LEAST)
    else:
        with pytest.raises(
            VerifyError, match=f"hand-out 0 of .* by the vault's events .* wei, expected {LEAST}"
        ):
            check_staked(_handed(at), listed, LEAST)


@pytest.mark.parametrize(
    ("changes", "within"),
    [([(8060, 7)], True), ([(8061, 7)], False), ([(0, 7), (801, 0)], True), ([(0, 7), (800, 0)], False)],
)
def test_the_window_of_the_stake_ends_two_hours_before_and_a_minute_after(
    changes: list[tuple[int, int]],
    within: bool,  # noqa: FBT001
) -> None:
    listed = _changes(*changes)
    if within:
        check_staked(_handed(8000), listed, LEAST)
    else:
        with pytest.raises(VerifyError, match="hand-out 0 of"):
            check_staked(_handed(8000), listed, LEAST)


def test_less_stake_than_the_rules_ask_for_is_as_good_as_none() -> None:
    check_staked(_handed(1000), _changes((1, LEAST)), LEAST)
    with pytest.raises(VerifyError, match=f"its stake was 0 then {LEAST - 1} wei, expected {LEAST}"):
        check_staked(_handed(1000), _changes((1, LEAST - 1)), LEAST)


def test_stake_of_another_wallet_or_of_later_is_none() -> None:
    stranger = [Change(WALLETS[1], Wei(9), 100)]
    late = _changes((2000, 9))
    for changes in (stranger, late):
        with pytest.raises(VerifyError, match="hand-out 0 of"):
            check_staked(_handed(1000), changes, LEAST)


# --- the order of the log ---------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 7])
def test_an_entry_that_comes_after_more_rankings_than_there_are_is_named(after: int) -> None:
    with pytest.raises(VerifyError, match=f"it is after {after} rankings, expected 0 to 0"):
        list(in_order([replace(_handed(5)[0], after=after)], [], []))


def test_time_never_goes_back_along_the_log() -> None:
    tasks = {t.hash(): t for t in (Task.of(f"p{n}", ["a", "b"], METHODS[2:]) for n in range(3))}
    world = tasks, Rules(methods=("ranking",))
    keeper = _told(world, [("ask", 0, 9, 1), ("ask", 2, 9, 1)])
    first, second = keeper.handouts
    with pytest.raises(VerifyError, match=r"hand-out 1 of .*: it came at 1008, after what came at 1009"):
        _replayed(world, keeper, handouts=[first, replace(second, at=1008)])


def _refused(check: Callable[[], object], match: str) -> None:
    with pytest.raises(VerifyError, match=match):
        check()


def test_what_is_wrong_with_an_entry_is_said() -> None:
    task = Task.of("p", ["a", "b"], ["ranking"])
    rules = Rules(methods=("ranking",), skips_free=0)
    world = {task.hash(): task}, rules
    keeper = _told(world, [("ask", 0, 9, 1), ("rank", 0, 9, 1)])
    (given_,), (came,) = keeper.handouts, keeper.arrivals
    skip = SkipEntry(1, WALLETS[0], task.hash(), "unclear", given_.at, 0)
    late = came._replace(at=given_.at + rules.lease_s)
    _refused(lambda: _replayed(world, keeper, handouts=[]), "position 0 by .*was not handed to the wallet")
    _refused(lambda: _replayed(world, keeper, rankings=[late]), f"was the wallet's until {late.at}")
    _refused(lambda: _replayed(world, keeper, skips=[skip]), "has skipped 0 tasks and has none left")
    _refused(
        lambda: _replayed(world, keeper, skips=[replace(skip, reason="dull")]), "reason 'dull' is not one"
    )
    _refused(lambda: _replayed(world, keeper, skips=[replace(skip, wallet=WALLETS[2])]), "does not hold")
    again = replace(given_, number=1)
    _refused(
        lambda: _replayed(world, keeper, handouts=[given_, again]), f"the wallet holds {task.hash()} until"
    )
    done = replace(again, after=1, at=came.at)
    _refused(lambda: _replayed(world, keeper, handouts=[given_, done]), "the rule gives none")
    own = Task.of("p", ["a", "b"], ["ranking"], WALLETS[0])
    theirs = replace(given_, task=own.hash())
    _refused(lambda: replay(Board({own.hash(): own}, rules, SEED), [theirs]), "is the author of the prompt")
