"""Money: one pool divided among weights to the last unit, and cumulative totals that never fall."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from chain.errors import PayoutError
from chain.types import Address, Allocation, Wei

UINT96_MAX: Final = 2**96 - 1
"""The largest amount that the contracts hold."""


def allocate(amount: Wei, weights: Mapping[Address, int]) -> Allocation:
    """Divide `amount` by largest remainder, ties to the lower address; all is carried when nobody has weight.

    Every wallet of `weights` gets an entry, in ascending order. PayoutError for a negative amount or weight.
    """
    if amount < 0:
        raise PayoutError(f"cannot divide {amount}")
    for account, weight in weights.items():
        if weight < 0:
            raise PayoutError(f"{account} has the negative weight {weight}")
    total = sum(weights.values())
    divided = (
        _largest_remainder(amount, sorted(weights.items()), total)
        if total
        else dict.fromkeys(sorted(weights), 0)
    )
    shares = {account: Wei(share) for account, share in divided.items()}
    carry = Wei(0 if total else amount)
    if sum(shares.values()) + carry != amount:
        raise PayoutError(f"shares {sum(shares.values())} and carry {carry} are not the {amount} to divide")
    return Allocation(shares, carry)


def _largest_remainder(amount: int, weights: list[tuple[Address, int]], total: int) -> dict[Address, int]:
    """Return each exact share rounded down, plus one unit for the largest remainders until all is given."""
    shares: dict[Address, int] = {}
    remainders: list[tuple[int, Address]] = []
    for account, weight in weights:
        shares[account], remainder = divmod(amount * weight, total)
        remainders.append((-remainder, account))
    left = amount - sum(shares.values())
    for _, account in sorted(remainders)[:left]:
        shares[account] += 1
    return shares


def accumulate(
    previous: Mapping[Address, Wei], shares: Iterable[Mapping[Address, Wei]]
) -> dict[Address, Wei]:
    """Return the total of everyone ever paid, by ascending address: `previous` plus the new `shares`.

    PayoutError when a share is negative, so that no total can fall, or when a total is beyond uint96.
    """
    totals: dict[Address, int] = dict(previous)
    for pool in shares:
        for account, share in pool.items():
            if share < 0:
                raise PayoutError(f"{account} has the negative share {share}: a total never falls")
            totals[account] = totals.get(account, 0) + share
    for account, total in totals.items():
        if total > UINT96_MAX:
            raise PayoutError(f"{account} would have {total} in all, more than uint96 holds")
    return {account: Wei(total) for account, total in sorted(totals.items()) if total}
