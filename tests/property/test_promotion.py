"""What people said decides which model is published: once, in the order of the epochs, and by nobody's name."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from service import promotion
from service.promotion import Candidate, Gate, Meeting, Standing, ahead, judge, publish
from service.settings import Settings
from trainer.gate import ALPHA

MODELS = ("old", "new", "other")
labels = st.lists(
    st.tuples(st.sampled_from(MODELS), st.sampled_from(MODELS), st.sampled_from([-1, 0, 1])), max_size=15
)
gates = st.builds(Gate, needed=st.integers(6, 30), epochs=st.integers(1, 6))
votes = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=8)


def met(found: list[tuple[int, int]]) -> tuple[Meeting, ...]:
    return tuple(Meeting(epoch, won, lost) for epoch, (won, lost) in enumerate(found))


def of(found: list[tuple[int, int]]) -> Candidate:
    return Candidate("new", "old", met(found))


@given(labels, st.randoms(use_true_random=False))
def test_a_task_has_one_vote_for_any_two_models_whatever_its_pairs_are_listed_as(
    said: list[tuple[str, str, int]], luck: Random
) -> None:
    found = ahead(said)
    assert len({frozenset(pair) for pair in found}) == len(found)
    mixed = [(b, a, -label) if luck.random() < 0.5 else (a, b, label) for a, b, label in said]
    luck.shuffle(mixed)
    assert set(ahead(mixed)) == set(found)
    for winner, loser in found:
        lead = sum(
            label * ((a == winner) - (b == winner)) for a, b, label in said if {a, b} == {winner, loser}
        )
        assert lead > 0


@given(labels)
def test_models_that_swap_their_answers_swap_their_votes(said: list[tuple[str, str, int]]) -> None:
    name = {"old": "new", "new": "old", "other": "other"}
    swapped = ahead((name[a], name[b], label) for a, b, label in said)
    assert {(name[w], name[x]) for w, x in swapped} == set(ahead(said))
    assert {(x, w) for w, x in ahead((a, b, -label) for a, b, label in said)} == set(ahead(said))


@given(votes, votes, gates)
def test_once_decided_later_epochs_change_nothing(
    found: list[tuple[int, int]], later: list[tuple[int, int]], gate: Gate
) -> None:
    verdict = judge(of(found), gate)
    assume(verdict.decision != "waiting")
    assert judge(of(found + later), gate) == verdict


def test_a_count_is_computed_once_however_often_it_is_looked_at() -> None:
    def look() -> tuple[int, int]:
        verdict = judge(of([(1013, 1007), (1001, 999)]), Gate(4020, 2))
        assert verdict.chance > ALPHA
        return promotion._decide.cache_info().misses, promotion._luck.cache_info().misses

    assert look() == look()


@given(votes, gates, st.randoms(use_true_random=False))
def test_a_verdict_follows_from_the_epochs_whatever_order_they_are_given_in(
    found: list[tuple[int, int]], gate: Gate, luck: Random
) -> None:
    given_as = list(met(found))
    luck.shuffle(given_as)
    assert judge(Candidate("new", "old", tuple(given_as)), gate) == judge(of(found), gate)


@given(votes, gates)
def test_it_is_decided_at_the_first_epoch_with_enough_votes_or_at_the_last_that_it_may_take(
    found: list[tuple[int, int]], gate: Gate
) -> None:
    verdict = judge(of(found), gate)
    sums = [sum(w + x for w, x in found[: n + 1]) for n in range(len(found))]
    ends = [n for n, total in enumerate(sums) if total >= gate.needed or n + 1 >= gate.epochs]
    assert verdict.meetings == met(found)[: ends[0] + 1 if ends else len(found)]
    assert (verdict.decision == "waiting") == (not ends)
    if ends and sums[ends[0]] < gate.needed:
        assert verdict.decision == "rolled back"


@given(st.lists(st.integers(0, 12), max_size=8), gates)
def test_a_coin_is_promoted_in_at_most_alpha_of_all_cases_however_its_votes_come_in(
    sizes: list[int], gate: Gate
) -> None:
    """Exact: each way in which the votes of all epochs may fall, by the coin's probability."""
    chances = {(): Fraction(1)}
    promoted = Fraction(0)
    for n in sizes:
        following: dict[tuple[tuple[int, int], ...], Fraction] = {}
        for path, chance in chances.items():
            for won in range(n + 1):
                now, weight = (*path, (won, n - won)), chance * comb(n, won) / 2**n
                decision = judge(of(list(now)), gate).decision
                if decision == "promoted":
                    promoted += weight
                elif decision == "waiting":
                    # Only the sum counts from here on, so that the ways stay few.
                    key = ((sum(w for w, _ in now), sum(x for _, x in now)), *((0, 0),) * (len(now) - 1))
                    following[key] = following.get(key, Fraction(0)) + weight
        chances = following
    assert promoted <= ALPHA


# --- what is published ------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[Candidate]:
    """Candidates as retrainings make them, each from a model that was there before; their epochs may be anything."""
    made: list[Candidate] = []
    for n in range(draw(st.integers(0, 5))):
        parent = draw(st.sampled_from(["root", *(c.model for c in made)]))
        share = draw(st.sampled_from([(0, 0), (9, 0), (0, 9), (5, 4)]))
        made.append(Candidate(f"policy-{n + 1}", parent, met([share] * draw(st.integers(0, 2)))))
    return made


GATE = Gate(needed=9, epochs=2)


@given(histories())
def test_what_is_published_is_the_root_or_was_promoted_over_what_was_published_before(
    made: list[Candidate],
) -> None:
    now = publish("root", made, GATE)
    line, parents = now.published, {c.model: c.parent for c in made}
    while line != "root":
        assert now.verdicts[line].decision == "promoted"
        line = parents[line]
    promoted = [m for m, v in now.verdicts.items() if v.decision == "promoted"]
    assert now.published == (["root", *promoted])[-1]
    assert now.before == (parents[now.published] if promoted else None)
    for model in promoted:
        assert judge(next(c for c in made if c.model == model), GATE).decision == "promoted"


@given(histories())
def test_while_one_waits_nothing_that_was_made_after_it_is_decided_about(made: list[Candidate]) -> None:
    now = publish("root", made, GATE)
    open_ones = [m for m, v in now.verdicts.items() if v.decision == "waiting"]
    assert now.waits == (open_ones or [None])[0]
    if now.waits:
        until = [c.model for c in made].index(now.waits)
        before = publish("root", made[:until], GATE)
        assert (before.published, before.waits) == (now.published, None)
        assert {v.decision for v in list(now.verdicts.values())[until:]} <= {"waiting", "set aside"}


@given(histories(), st.integers(0, 5))
def test_whoever_comes_later_changes_nothing_of_those_before(made: list[Candidate], first: int) -> None:
    now, whole = publish("root", made[:first], GATE), publish("root", made, GATE)
    assert list(whole.verdicts.items())[:first] == list(now.verdicts.items())
    assert publish("root", made, GATE) == whole


@given(histories())
def test_who_came_from_a_model_that_is_not_published_is_set_aside(made: list[Candidate]) -> None:
    for place, candidate in enumerate(made):
        published = publish("root", made[:place], GATE).published
        decision = publish("root", made, GATE).verdicts[candidate.model].decision
        assert (decision == "set aside") == (candidate.parent != published)


@given(histories())
def test_in_the_arena_the_published_meets_who_wants_its_place_or_had_it(made: list[Candidate]) -> None:
    now = publish("root", made, GATE)
    assert now.published in now.contenders
    assert len(set(now.contenders)) == len(now.contenders) == (2 if now.waits or now.before else 1)
    if now.waits:
        assert now.contenders == [now.published, now.waits]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "waiting: 0 of the 9 votes that decide are in; ahead of root in 0 tasks, behind in 0"),
        ([(3, 1)], "waiting: 4 of the 9 votes that decide are in; ahead of root in 3 tasks, behind in 1"),
        ([(3, 1), (2, 1)], "rolled back after epoch 1: only 7 of the 9 votes that decide are in after 2 epochs"),
        ([(5, 4)], "rolled back after epoch 0: ahead of root in 5 tasks, behind in 4; a coin does so"),
        ([(8, 1)], "promoted after epoch 0: ahead of root in 8 tasks, behind in 1; a coin does so"),
    ],
)  # fmt: skip
def test_a_verdict_says_what_it_is_and_why(found: list[tuple[int, int]], words: str) -> None:
    now = publish("root", [Candidate("new", "root", met(found))], GATE)
    assert now.verdicts["new"].said.startswith(words)
    assert ("; new is waiting" in now.said) == (now.waits == "new")
    assert now.said.startswith(f"{now.published} is published")


def test_where_nobody_compares_them_there_is_nothing_to_say_of_anybody() -> None:
    assert Standing("new", "old", None, {}).said == "new is published"


def test_the_fewest_votes_that_a_setting_allows_can_promote() -> None:
    least = next(n for n in range(1, 99) if judge(of([(n, 0)]), Gate(n, 1)).decision == "promoted")
    assert Settings(gate_comparisons=least).gate_comparisons == least
    with pytest.raises(ValidationError):
        Settings(gate_comparisons=least - 1)
