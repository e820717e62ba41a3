"""Time-weighted stake: the vault's own accumulator, folded from its events, so that one can check the other.

The integral of stake over time, in wei·s, makes a mean that no snapshot can be gamed for: stake that is there
for a second of the epoch counts for a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chain.errors import ChainError
from chain.types import Address, Wei


@dataclass(frozen=True, slots=True)
class Change:
    """One event of the vault that changed an account's stake; it carries the stake that resulted."""

    account: Address
    staked_after: Wei
    timestamp: int
    """Unix seconds of its block."""


@dataclass(frozen=True, slots=True)
class StakeAccount:
    """An account's slot in the vault, as its last change left it."""

    staked: Wei
    updated_at: int
    """Unix seconds of the last change."""
    stake_seconds: int
    """Integral of stake over time up to `updated_at`, wei·s."""


def fold(changes: Iterable[Change], at: int) -> dict[Address, StakeAccount]:
    """Return every account's slot as the vault had it at the end of second `at`; later changes are left out.

    `changes` in the order of the chain; ChainError when time runs backwards in them. A change in second
    `at` itself adds nothing to the integral up to `at`, so an epoch's boundary may be folded with or
    without it.
    """
    accounts: dict[Address, StakeAccount] = {}
    now = 0
    for change in changes:
        if change.timestamp < now:
            raise ChainError(f"{change} comes after a change at {now}: fold events in the order of the chain")
        now = change.timestamp
        if now > at:
            break
        seconds = stake_seconds(accounts.get(change.account), now)
        accounts[change.account] = StakeAccount(change.staked_after, now, seconds)
    return accounts


def stake_seconds(account: StakeAccount | None, at: int) -> int:
    """Return the integral of stake over time up to `at`, wei·s, as the vault's `stakeSecondsOf` does.

    0 for an account that never staked; ChainError before its last change, where the vault reverts.
    """
    if account is None:
        return 0
    if at < account.updated_at:
        raise ChainError(f"stake-seconds at {at} are gone: the account changed at {account.updated_at}")
    return account.stake_seconds + account.staked * (at - account.updated_at)


def mean_stake(seconds_start: int, seconds_end: int, length_s: int) -> Wei:
    """Return the mean stake S̄ over an interval of `length_s` seconds, in wei, rounded down (step 7).

    ChainError when stake-seconds fall or the interval is empty: the two reads are not of one chain.
    """
    if seconds_end < seconds_start or length_s <= 0:
        raise ChainError(
            f"stake-seconds {seconds_start} to {seconds_end} in {length_s} s: read both at one block"
        )
    return Wei((seconds_end - seconds_start) // length_s)
