"""What transactions would cost at most, before any is signed, and whether their account can pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from chain.contracts import is_revert, revert_reason
from chain.errors import RevertError, RpcError
from chain.fees import UNLIMITED, Offer, first_offer, shortage
from chain.rpc import Rpc
from chain.transport import RpcAnswerError
from chain.types import Address, Wei

RICH: Final = hex(2**200)
"""A balance to estimate with: what an account lacks is said by its quote, not by a node that refuses to estimate."""
NO_SUCH_METHOD: Final = -32601


class Wanted(NamedTuple):
    """A transaction that is not made yet."""

    to: Address | None
    """None creates a contract."""
    data: bytes
    value: Wei = Wei(0)

    def request(self, sender: Address) -> dict[str, str]:
        """Return it as a node is asked about it."""
        asked = {"from": sender, "data": "0x" + self.data.hex(), "value": hex(self.value)}
        return asked | ({} if self.to is None else {"to": self.to})


@dataclass(frozen=True, slots=True)
class Quote:
    """What transactions of one account, sent one after the other, cost at most by the fees of now."""

    sender: Address
    gas: tuple[int | None, ...]
    """Limit of each; None where the node cannot tell before those that it follows are in a block."""
    offer: Offer
    """What is paid per gas at first."""
    limit: Wei
    """What is paid per gas at most, should fees rise while they wait."""
    value: Wei
    """What is sent along in all."""
    balance: Wei

    @property
    def cost(self) -> Wei:
        """The most that is paid, value included, for those whose gas is known."""
        return Wei(sum(gas or 0 for gas in self.gas) * self.offer.max_fee + self.value)

    @property
    def dearest(self) -> Wei:
        """The most that is paid where fees rise to the limit."""
        return Wei(sum(gas or 0 for gas in self.gas) * self.limit + self.value)

    @property
    def missing(self) -> Wei:
        """What the account has too little."""
        return Wei(max(0, self.cost - self.balance))

    def check(self) -> None:
        """Raise a ChainError where the account cannot pay, with how much is missing."""
        if self.missing:
            raise shortage(self.sender, self.balance, self.cost)


def quote(rpc: Rpc, sender: Address, wanted: Sequence[Wanted], max_fee: Wei = UNLIMITED) -> Quote:
    """Return what these would cost in this order (EIP-1559); a RevertError in words if a contract would refuse one.

    A ChainError where gas costs more than `max_fee` now.
    """
    balance = rpc.balance(sender)
    try:
        gas = _limits(rpc, sender, wanted)
    except RpcAnswerError as error:
        if is_revert(error):
            raise _refused(error.data) from None
        raise
    offer = first_offer(*rpc.fees(), max_fee)
    return Quote(sender, gas, offer, max_fee, Wei(sum(each.value for each in wanted)), balance)


def _limits(rpc: Rpc, sender: Address, wanted: Sequence[Wanted]) -> tuple[int | None, ...]:
    """Return the gas limit of each; a new contract's gas does not depend on what comes before it."""
    if len(wanted) == 1 or all(each.to is None for each in wanted):
        return tuple(_estimate(rpc, each.request(sender)) for each in wanted)
    try:
        return _simulate(rpc, sender, wanted)
    except RpcAnswerError as error:
        if error.code != NO_SUCH_METHOD:
            raise
        return (_estimate(rpc, wanted[0].request(sender)), *(None for _ in wanted[1:]))


def _estimate(rpc: Rpc, asked: dict[str, str]) -> int:
    """Return the gas of one, and a fifth more: what it meets in its block may differ."""
    try:
        gas = rpc.estimate(asked)
    except RpcAnswerError as error:
        if is_revert(error):
            raise
        # Some refuse to estimate what the account cannot pay.
        gas = rpc.estimate(asked, {asked["from"]: {"balance": RICH}})
    return gas + gas // 5


def _simulate(rpc: Rpc, sender: Address, wanted: Sequence[Wanted]) -> tuple[int, ...]:
    """Return the gas of each where it meets what those before it leave, and a half more.

    That is what it used: its limit has to hold what is given back too, a fifth of what it took at most (EIP-3529).
    """
    calls = [_input(each.request(sender)) for each in wanted]
    block = {"calls": calls, "stateOverrides": {sender: {"balance": RICH}}}
    answer = rpc.request("eth_simulateV1", {"blockStateCalls": [block], "validation": False}, "latest")
    try:
        found = answer[0]["calls"]
        for each in found:
            if int(each["status"], 16) != 1:
                raise _refused(bytes.fromhex(each["returnData"].removeprefix("0x")))
        used = [int(each["gasUsed"], 16) for _, each in zip(wanted, found, strict=True)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise RpcError(
            f"{rpc.name} answered eth_simulateV1 with something else than expected: use another node"
        ) from None
    return tuple(gas + gas // 2 for gas in used)


def _input(asked: dict[str, str]) -> dict[str, Any]:
    """Return a request with its data under the name that eth_simulateV1 wants."""
    return {("input" if name == "data" else name): value for name, value in asked.items()}


def _refused(data: bytes | None) -> RevertError:
    return RevertError(f"the contract would refuse: {revert_reason(data)}")
