"""Who is handed which task: the rule of SPEC 1 in its parts, and what is kept of each hand-out and skip; pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from chain.errors import VerifyError
from chain.rules import Rules
from chain.stake import Change
from chain.types import Address, Hash32

STAKE_BEFORE_S: Final = 7200
STAKE_AFTER_S: Final = 60
"""How old, and how new, the stake may be that a hand-out goes by: it is read where no reorg reaches."""


@dataclass(frozen=True, slots=True)
class HandoutEntry:
    """A task was given to a wallet."""

    number: int
    """Place among the hand-outs and skips of its epoch, from 0."""
    wallet: Address
    task: Hash32
    at: int
    """Block time, Unix seconds."""
    after: int
    """How many rankings had been accepted before."""


@dataclass(frozen=True, slots=True)
class SkipEntry:
    """A wallet gave a task back unjudged; it is not handed to it again."""

    number: int
    wallet: Address
    task: Hash32
    reason: str
    at: int
    after: int


def wanted(done: int, votes: Sequence[int], rules: Rules) -> int:
    """Return how many judgements a task should have, by how much those that it has agree.

    By item and never by person: no reliability plays a part, so nobody's standing steers who is asked what.
    """
    agreed, most = sum(map(abs, votes)), len(votes) * done
    if done < rules.overlap_min or agreed == most:
        return rules.overlap_min
    return rules.overlap if 2 * agreed >= most else rules.overlap_max


def skips_left(judged: int, skipped: int, rules: Rules) -> int:
    """Return how many tasks a wallet may still give back in this epoch."""
    return max(0, rules.skips_free + judged // rules.judged_per_skip - skipped)


def check_staked(handouts: Iterable[HandoutEntry], changes: Iterable[Change], least: int) -> None:
    """Raise a VerifyError at the first hand-out to a wallet that never had `least` wei of stake about then.

    `changes` are the vault's events in the order of the chain.
    """
    listed = list(handouts)
    wallets = {entry.wallet for entry in listed}
    times: defaultdict[Address, list[int]] = defaultdict(lambda: [-1])
    stakes: defaultdict[Address, list[int]] = defaultdict(lambda: [0])
    for change in changes:
        if change.account in wallets:
            times[change.account].append(change.timestamp)
            stakes[change.account].append(change.staked_after)
    for entry in listed:
        known = times[entry.wallet]
        first = bisect_right(known, max(0, entry.at - STAKE_BEFORE_S)) - 1
        seen = stakes[entry.wallet][first : bisect_right(known, entry.at + STAKE_AFTER_S)]
        if max(seen) < least:
            raise VerifyError(
                f"hand-out {entry.number} of {entry.wallet} at {entry.at}: by the vault's events its stake was "
                f"{' then '.join(map(str, seen))} wei, expected {least}"
            )
