"""Contract wallets as the service asks them: at the latest finalized block, and never inside a transaction."""

from __future__ import annotations

from chain.errors import RpcError, SignatureError
from chain.evidence import FINAL_WITHIN_S
from chain.types import Address, Hash32
from chain.wallets import ACCEPTED, NO_CODE, Asked
from service.errors import RejectedError, UnavailableError

TAKEN_WITHIN_S = 600
"""How long a ranking may take from then until it is taken in, by block time: the block counts from its arrival."""


def accepted_at(
    wallets: Asked, wallet: Address, digest: Hash32, signature: str, now: int, unproven: str
) -> int:
    """Return the block at which the wallet's code accepts a signature that no key of its gave.

    RejectedError, with what is wrong with it as a key's signature (`unproven`), where it does not;
    UnavailableError where the chain does not say.
    """
    try:
        final = wallets.finalized()
        if final.number == 0 or final.timestamp < now - (FINAL_WITHIN_S - TAKEN_WITHIN_S):
            raise UnavailableError(
                f"the last finalized block, {final.number}, is of {final.timestamp}, too long before {now} to ask a "
                "contract wallet at; nothing was recorded, try again later"
            )
        said = wallets.verdict(wallet, digest, signature, final.number)
    except RpcError as error:
        raise UnavailableError(
            f"the chain cannot be read, so nothing was recorded; try again: {error}"
        ) from error
    except SignatureError as error:
        raise RejectedError(f"{unproven}; {error}") from error
    if said != ACCEPTED:
        how = "has no contract" if said == NO_CODE else "has a contract that refuses it"
        raise RejectedError(f"{unproven}; and {wallet} {how} at block {final.number}")
    return final.number
