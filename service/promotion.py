"""Which model is published: a retrained one takes the place of the one it came from once people ranked it better.

What is counted is a vote a task, not a pair: the pairs of a task share its answers and its prompt, so that they say
less than as many on their own. In a task in which answers of both were shown, the pairs that people's labels (by how
reliable each has proven, never raw clicks, never gold) give to the candidate's answers are held against those that
they give to its parent's; whoever has more has the vote, and a tie counts for nothing. An epoch's arena asks no prompt
twice (and one of an earlier epoch only when there is no other), nobody sees whose an answer is, and no label depends on
it: between two policies that answer alike, each vote is a coin of its own, and the gate errs as `trainer.gate` says.

A verdict follows from the closed epochs in their order and is stored nowhere: an epoch that is closed anew may change
it. When it is decided depends on how many votes there are, never on whose, so that this is one look in the gate's sense.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from trainer.gate import ALPHA, decide, luck

_decide, _luck = lru_cache(maxsize=4096)(decide), lru_cache(maxsize=4096)(luck)
"""Exact, and so 60 ms for 25,000 votes: the pages that anybody may ask for would take that for every run."""
Decision: TypeAlias = Literal["waiting", "promoted", "rolled back", "set aside"]
"""What became of a candidate; it is set aside where the model that it came from is not the one that is published."""


class Meeting(NamedTuple):
    """A closed epoch in which people compared a candidate with its parent."""

    epoch: int
    won: int
    """Votes for the candidate."""
    lost: int


@dataclass(frozen=True, slots=True)
class Gate:
    """When a candidate is decided about."""

    needed: int
    """Votes."""
    epochs: int
    """Closed epochs in which it was compared: where there are not enough votes after so many, it is rolled back, for
    what is not shown to be better costs nothing to leave out. What nobody ranked counts for nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What people said of a candidate, and what follows."""

    decision: Decision
    meetings: tuple[Meeting, ...]
    """In order, the last of them that which decided."""
    needed: int
    parent: str

    @property
    def won(self) -> int:
        """Tasks in which the candidate's answers came out ahead."""
        return sum(m.won for m in self.meetings)

    @property
    def lost(self) -> int:
        """Tasks in which its parent's did."""
        return sum(m.lost for m in self.meetings)

    @property
    def chance(self) -> float:
        """How probable so many votes for it, or more, would be if each were a coin."""
        return _luck(self.won, self.lost)

    @property
    def said(self) -> str:
        """The verdict in words."""
        votes = f"ahead of {self.parent} in {self.won} tasks, behind in {self.lost}"
        missing = f"{self.won + self.lost} of the {self.needed} votes that decide are in"
        last = f"epoch {self.meetings[-1].epoch}" if self.meetings else "no epoch"
        match self.decision:
            case "waiting":
                return f"waiting: {missing}; {votes}"
            case "set aside":
                return f"set aside: {self.parent}, which it came from, is not published"
            case "rolled back" if self.won + self.lost < self.needed:
                return f"rolled back after {last}: only {missing} after {len(self.meetings)} epochs; {votes}"
        coin = f"a coin does so well with probability {self.chance:.2g}, and at most {ALPHA} is let through"
        return f"{self.decision} after {last}: {votes}; {coin}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A retrained model, and when it met the one that it came from."""

    model: str
    parent: str
    meetings: tuple[Meeting, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """The models as the verdicts leave them."""

    published: str
    before: str | None
    """What it took the place of; None where it is the first."""
    waits: str | None
    """Candidate that is not decided about."""
    verdicts: Mapping[str, Verdict]
    """By candidate."""

    @property
    def contenders(self) -> list[str]:
        """The models that meet in the next arena: the published one, and who wants its place or had it before."""
        if self.waits:
            return [self.published, self.waits]
        return [self.before, self.published] if self.before else [self.published]

    @property
    def said(self) -> str:
        """What is published, and who waits, in words."""
        waits = f"; {self.waits} is {self.verdicts[self.waits].said}" if self.waits else ""
        return f"{self.published} is published{waits}"


def ahead(labels: Iterable[tuple[str, str, int]]) -> list[tuple[str, str]]:
    """Return the votes of a task: (winner, loser) for any two models of which one came out ahead of the other.

    Args:
        labels: for each pair of its answers that was judged: whose the two are, and +1 where the first was labelled
            the better one, -1 the second, 0 neither.
    """
    lead: Counter[tuple[str, str]] = Counter()
    for a, b, label in labels:
        if a != b:
            lead[min(a, b), max(a, b)] += label if a < b else -label
    return [(a, b) if n > 0 else (b, a) for (a, b), n in lead.items() if n]


def judge(candidate: Candidate, gate: Gate) -> Verdict:
    """Return what is decided at the first epoch at which that can be; what comes later changes nothing."""
    met: list[Meeting] = []
    won = lost = 0
    for meeting in sorted(candidate.meetings):
        met.append(meeting)
        won, lost = won + meeting.won, lost + meeting.lost
        decision = _decide(won, lost, gate.needed)
        if decision == "waiting" and len(met) >= gate.epochs:
            decision = "rolled back"
        if decision != "waiting":
            return Verdict(decision, tuple(met), gate.needed, candidate.parent)
    return Verdict("waiting", tuple(met), gate.needed, candidate.parent)


def publish(root: str, candidates: Iterable[Candidate], gate: Gate) -> Standing:
    """Return what is published: the root, then each promoted candidate, in the order in which they are given.

    A candidate takes the place of the very model that it was compared with. While one waits, none after it is decided
    about.
    """
    published, before, waits = root, None, None
    verdicts: dict[str, Verdict] = {}
    for candidate in candidates:
        verdict = judge(candidate, gate)
        if candidate.parent != published:
            verdict = replace(verdict, decision="set aside")
        elif waits:
            verdict = replace(verdict, decision="waiting")
        elif verdict.decision == "promoted":
            published, before = candidate.model, published
        elif verdict.decision == "waiting":
            waits = candidate.model
        verdicts[candidate.model] = verdict
    return Standing(published, before, waits, verdicts)
