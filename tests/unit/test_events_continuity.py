"""Each event follows from the one before; a vault that is played here loses a log, and that is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chain.continuity import NO_HASH, Last, follow, standing
from chain.errors import ChainError
from chain.events import (
    Activated,
    Challenged,
    Claimed,
    Event,
    Funded,
    Posted,
    Staked,
    UnstakeCancelled,
    UnstakeRequested,
    Vetoed,
    Withdrawn,
)
from chain.tree import commitment_of
from chain.types import Address, Epoch, Hash32, Wei

TX = Hash32("0x" + "cd" * 32)
PEOPLE = [Address("0x" + f"{n:040x}") for n in range(2)]
ROOTS = [Hash32("0x" + f"{n:064x}") for n in range(3)]


@st.composite
def _histories(draw: st.DrawFn) -> list[Event]:
    """Play the two contracts: whatever happens, the resulting balances are announced."""
    stakes = dict.fromkeys(PEOPLE, (0, 0))
    paid = dict.fromkeys(PEOPLE, 0)
    funded, epoch, pending = 0, 0, ""
    found: list[Event] = []
    for block in range(draw(st.sampled_from([0, 1, 5, 20]))):
        mark = (block, 0, TX, block)
        who, amount = draw(st.sampled_from(PEOPLE)), draw(st.integers(1, 3))
        staked, waiting = stakes[who]
        possible = ["stake", "fund", "claim", *(["end", "veto"] if pending else ["post"])]
        possible += ["request"] * (staked >= amount) + ["withdraw"] * (waiting > 0)
        possible += ["cancel"] * (waiting >= amount) + ["challenge"] * bool(pending)
        kind = draw(st.sampled_from(possible))
        if kind == "stake":
            stakes[who] = (staked + amount, waiting)
            found.append(Staked(*mark, who, Wei(amount), Wei(staked + amount)))
        elif kind == "request":
            stakes[who] = (staked - amount, waiting + amount)
            found.append(
                UnstakeRequested(*mark, who, Wei(amount), Wei(staked - amount), Wei(waiting + amount), 9)
            )
        elif kind == "cancel":
            stakes[who] = (staked + amount, waiting - amount)
            found.append(
                UnstakeCancelled(*mark, who, Wei(amount), Wei(staked + amount), Wei(waiting - amount))
            )
        elif kind == "withdraw":
            stakes[who] = (staked, 0)
            found.append(Withdrawn(*mark, who, who, Wei(waiting), Wei(0)))
        elif kind == "fund":
            funded += amount
            found.append(Funded(*mark, 1, who, Wei(amount), Wei(funded)))
        elif kind == "claim":
            paid[who] += amount
            found.append(Claimed(*mark, who, who, Wei(amount), Wei(paid[who])))
        elif kind == "post":
            pending = draw(st.sampled_from(ROOTS))
            found.append(
                Posted(*mark, Epoch(epoch), Hash32(pending), Wei(0), 0, TX, TX, TX, block, TX, block)
            )
        elif kind == "end":
            found.append(Activated(*mark, Epoch(epoch), Hash32(pending), Wei(0)))
            epoch, pending = epoch + 1, ""
        else:
            gone = (*mark, Epoch(epoch), Hash32(pending))
            found.append(Vetoed(*gone) if kind == "veto" else Challenged(*gone, who, 0, who))
            pending = ""
    return found


def _threads(event: Event) -> set[object]:
    """Return what an event is chained by: balances of its account, the funding, the reports."""
    if isinstance(event, Staked):
        return {("staked", event.account)}
    if isinstance(event, UnstakeRequested | UnstakeCancelled):
        return {("staked", event.account), ("pending", event.account)}
    if isinstance(event, Withdrawn):
        return {("pending", event.account)}
    if isinstance(event, Claimed):
        return {("claim", event.account)}
    return {"fund"} if isinstance(event, Funded) else {"report"}


def _follow_all(events: list[Event]) -> None:
    last = Last()
    for event in events:
        follow(last, event)


@given(_histories())
def test_what_the_contracts_announce_follows(events: list[Event]) -> None:
    _follow_all(events)


@given(_histories(), st.data())
def test_a_lost_event_is_noticed_by_the_next_of_its_threads(events: list[Event], data: st.DataObject) -> None:
    followed = [
        at
        for at, event in enumerate(events)
        if any(_threads(event) & _threads(later) for later in events[at + 1 :])
    ]
    if not followed:
        return
    lost = data.draw(st.sampled_from(followed))
    with pytest.raises(ChainError, match="A log is missing"):
        _follow_all(events[:lost] + events[lost + 1 :])


@given(_histories(), st.data())
def test_an_event_that_comes_twice_is_noticed(events: list[Event], data: st.DataObject) -> None:
    if not events:
        return
    twice = data.draw(st.integers(0, len(events) - 1))
    with pytest.raises(ChainError):
        _follow_all(events[: twice + 1] + events[twice:])


def test_the_message_names_account_and_block() -> None:
    last = Last()
    first = Staked(1, 0, TX, 1, PEOPLE[1], Wei(5), Wei(5))
    follow(last, first)
    with pytest.raises(ChainError, match=rf"block 7 .*{PEOPLE[1]}.*\(12, 0\).*\(13, 0\)"):
        follow(last, replace(first, block=7, amount=Wei(7), staked=Wei(13)))


def test_a_root_pays_what_was_posted_and_the_distributor_must_say_so() -> None:
    last = Last()
    assert standing(last) == {
        "active": (0, 0, 0),
        "activeCommitment": NO_HASH,
        "pending": (0, NO_HASH, 0, 0, 0),
    }
    posted = Posted(1, 0, TX, 1, Epoch(0), ROOTS[1], Wei(7), 3, TX, TX, TX, 1, TX, 9)
    follow(last, posted)
    assert standing(last)["pending"] == (0, ROOTS[1], 7, 3, 9)
    assert standing(last)["active"] == (0, 0, 0)
    with pytest.raises(ChainError, match=rf"the sum of root {ROOTS[1]} should be 7, but is 8"):
        follow(last, Activated(2, 0, TX, 2, Epoch(0), ROOTS[1], Wei(8)))
    last = Last(waiting=posted)
    follow(last, Activated(2, 0, TX, 2, Epoch(0), ROOTS[1], Wei(7)))
    assert standing(last) == {
        "active": (1, 7, 3), "activeCommitment": commitment_of(ROOTS[1], 7), "pending": (0, NO_HASH, 0, 0, 0),
    }  # fmt: skip
