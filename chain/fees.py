"""What a transaction offers per gas (EIP-1559): enough at first, more once it is overtaken, never over a limit; pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from chain.errors import ChainError
from chain.types import Wei

UNLIMITED: Final = Wei(2**256 - 1)
GWEI: Final = 10**9
COIN_DECIMALS: Final = 18
"""Of the chain's own coin, which pays for gas."""


class Offer(NamedTuple):
    """What is paid per gas at most, in wei."""

    max_fee: Wei
    """Base fee and tip together."""
    tip: Wei
    """Of it, what whoever makes the block gets."""


def first_offer(base: Wei, tip: Wei, limit: Wei = UNLIMITED) -> Offer:
    """Return what gets into one of the next blocks: twice the base fee, which takes six full blocks to double.

    A ChainError where even the next block costs more than `limit`.
    """
    needed = Wei(base + tip)
    _check_limit(needed, base, tip, limit)
    return Offer(Wei(max(needed, min(2 * base + tip, limit))), tip)


def is_overtaken(offer: Offer, base: Wei, tip: Wei) -> bool:
    """Tell whether the next block pays its maker less by this offer than the tip that is usual now."""
    return min(offer.tip, offer.max_fee - base) < tip


def next_offer(last: Offer, base: Wei, tip: Wei, limit: Wei = UNLIMITED) -> Offer:
    """Return the offer that takes the place of `last` in every node's pool, and that the next block takes.

    Both fees rise by an eighth at least: most pools want a tenth, some an eighth. A ChainError where that, or the
    next block, costs more than `limit`.
    """
    higher = Wei(max(raised(last.tip), tip))
    needed = Wei(max(raised(last.max_fee), base + higher))
    _check_limit(needed, base, tip, limit)
    return Offer(Wei(max(needed, min(2 * base + higher, limit))), higher)


def raised(fee: Wei) -> Wei:
    """Return the least fee that replaces `fee`: an eighth more, rounded up, and more in any case."""
    return Wei(max(-(-9 * fee // 8), fee + 1))


def show_coin(wei: int) -> str:
    """Return an amount of the chain's own coin for people, exactly: in ETH, as most chains call it, and in wei."""
    return f"{_decimal(wei, COIN_DECIMALS)} ETH ({wei} wei)"


def show_gwei(wei: int) -> str:
    """Return a price of gas as people say it, exactly."""
    return f"{_decimal(wei, 9)} gwei"


def shortage(payer: str, balance: int, needed: int) -> ChainError:
    """Return the error of an account that cannot pay for its gas."""
    return ChainError(
        f"{payer} has {show_coin(balance)}, but its transaction may need {show_coin(needed)}: "
        f"{show_coin(needed - balance)} are missing; send it that much and run this again"
    )


def _check_limit(needed: Wei, base: Wei, tip: Wei, limit: Wei) -> None:
    if needed > limit:
        raise ChainError(
            f"gas would have to be paid with {show_gwei(needed)} (base fee {show_gwei(base)}, tip {show_gwei(tip)}), "
            f"more than the limit of {show_gwei(limit)}: no more is offered; wait until it falls, or raise "
            "HAPTIC_MAX_FEE_GWEI"
        )


def _decimal(units: int, decimals: int) -> str:
    whole, part = divmod(units, 10**decimals)
    tail = str(part).rjust(decimals, "0").rstrip("0")
    return f"{whole}.{tail}" if tail else str(whole)
