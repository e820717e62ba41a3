"""Our transactions: priced, signed, handed over, waited for; a refusal is known before anything is paid."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chain import pool
from chain.attempts import LONGEST_POLL_S, PATIENCE, POLL_S, Sight, Taken, hand_over, look, push, sign
from chain.contracts import Contract, revert_reason
from chain.errors import ChainError, HapticError, RevertError, RpcError
from chain.fees import UNLIMITED, show_gwei
from chain.quote import Wanted, quote
from chain.rpc import Rpc
from chain.signer import Content, Payer, Signer, decode, signer_of
from chain.transport import RpcAnswerError
from chain.types import Address, Attempt, Hash32, Wei
from chain.wire import Receipt

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Priced:
    """A transaction that would succeed now, and the most it can cost."""

    chain_id: int
    sender: Address
    to: Address | None
    """None creates a contract."""
    data: bytes
    value: Wei
    gas: int
    max_fee: Wei
    """Most per gas: twice the base fee, and the tip."""
    tip: Wei

    @property
    def cost(self) -> Wei:
        """The most that is paid, value included."""
        return self.numbered(0).cost

    def numbered(self, nonce: int) -> Content:
        """Return what is signed once its nonce is known."""
        return Content(self.chain_id, nonce, self.to, self.value, self.data, self.gas, self.max_fee, self.tip)


def price(
    rpc: Rpc, sender: Address, to: Address | None, data: bytes, value: int = 0, *, max_fee: Wei = UNLIMITED
) -> Priced:
    """Return what a transaction needs (EIP-1559); a RevertError in words if a contract would refuse it.

    A ChainError where the sender cannot pay for it, with how much is missing, or where gas costs more than
    `max_fee` now.
    """
    found = quote(rpc, sender, [Wanted(to, data, Wei(value))], max_fee)
    found.check()
    return Priced(rpc.chain_id(), sender, to, data, Wei(value), found.gas[0] or 0, *found.offer)


def must_succeed(rpc: Rpc, receipt: Receipt) -> Receipt:
    """Return the receipt, or raise a RevertError that says why the transaction was reverted in its block."""
    if not receipt.ok:
        raise RevertError(
            f"{receipt.transaction_hash} was reverted in block {receipt.block}: {_reason(rpc, receipt)}"
        )
    return receipt


@dataclass(slots=True)
class Courier:
    """Sends for one account and follows each transaction into a block, with higher fees where it is overtaken.

    What waits is remembered here and looked for in the node's pool, not stored: the same is not sent twice though an
    earlier process was ended while it waited.
    """

    rpc: Rpc
    account: Payer
    _waiting: list[list[Attempt]] = field(default_factory=list)
    """The attempts at each transaction that was in no block when it was last looked at, by nonce."""

    @property
    def signer(self) -> Signer:
        """Whoever signs."""
        return signer_of(self.account)

    def send(self, to: Address | None, data: bytes, value: int = 0, timeout_s: float = TIMEOUT_S) -> Receipt:
        """Send a transaction and return its receipt; `to` None creates a contract.

        One that waits with the same contents is followed instead. A RevertError where it is, or would be, reverted;
        an RpcError, which names what may still come into a block, when time is up.
        """
        nonce = self._learn()
        wanted = (to, Wei(value), data)
        attempts = next((each for each in self._waiting if _says(each) == wanted), None)
        if attempts is None:
            attempts = self._first(nonce, *wanted)
        else:
            log.warning(
                "%s says the same and waits for a block: it is followed, not sent twice", attempts[-1].hash
            )
        try:
            return self._follow(attempts, timeout_s)
        except KeyboardInterrupt:
            log.warning("stopped while %s: %s", *_left(attempts))
            raise

    def _learn(self) -> int:
        """Find out which transactions of the account wait, and return the nonce that follows them."""
        used, pending = (self.rpc.nonce(self.signer.address, tag) for tag in ("latest", "pending"))
        known = {_nonce(each): each for each in self._waiting if _nonce(each) >= used}
        for nonce in range(used, pending):
            if nonce not in known and (found := self._pooled(nonce)) is not None:
                known[nonce] = [found]
        self._waiting = [known[nonce] for nonce in sorted(known)]
        return max([pending, *(nonce + 1 for nonce in known)])

    def _pooled(self, nonce: int) -> Attempt | None:
        """Return what the pool holds at a nonce, if it is of the kind that we sign."""
        found = pool.waiting(self.rpc, self.signer.address, nonce)
        if found is None:
            return None
        # It had its blocks when it was sent.
        return Attempt(found.hash, found.raw, self.rpc.block("latest").number - PATIENCE)

    def _first(self, nonce: int, to: Address | None, value: Wei, data: bytes) -> list[Attempt]:
        """Sign a new transaction and hand it over."""
        if self._waiting:
            log.warning("%s of this account wait before it", ", ".join(x[-1].hash for x in self._waiting))
        priced = price(self.rpc, self.signer.address, to, data, value, max_fee=self.signer.max_fee)
        signed = sign(self.account, priced.numbered(nonce))
        attempts = [Attempt(signed.hash, signed.raw, self.rpc.block("latest").number)]
        try:
            taken = hand_over(self.rpc, signed.raw)
        except RpcAnswerError:
            raise
        except RpcError as error:
            # Whether it has it is seen when it answers again.
            log.warning("%s: %s may be on its way all the same", error, signed.hash)
            taken = Taken.POOLED
        # Bytes that a lost answer left behind are in the pool, or mined in the meantime.
        if taken not in {Taken.POOLED, Taken.CHEAP} and self.rpc.receipt(signed.hash) is None:
            raise RpcError(
                f"{self.rpc.name} does not take {signed.hash} with nonce {nonce} ({taken}): something else is sent "
                "with this key; run this again"
            )
        self._waiting.append(attempts)
        return attempts

    def _follow(self, attempts: list[Attempt], timeout_s: float) -> Receipt:
        """Return the receipt once one of the attempts is in a block; what waits before it is brought along."""
        deadline, pause = time.monotonic() + timeout_s, POLL_S
        pushed_at, trouble = -1, ""
        while True:
            try:
                seen = self._look(attempts)
                if seen.receipt is not None:
                    break
                other = self._other(attempts, seen.head) if seen.used else None
                if not seen.used and seen.head != pushed_at:
                    pushed_at = seen.head
                    self._push(attempts)
                    trouble = ""
            except HapticError as error:  # fees or nodes may recover, and it may get into a block as it is
                other, trouble = None, f": {error}"
            if other is not None:
                self._waiting.remove(attempts)
                raise ChainError(
                    f"nonce {_nonce(attempts)} of {self.signer.address} went to {other}: {attempts[-1].hash} will never "
                    "be in a block; see what else sends with this key, then run this again"
                )
            if time.monotonic() > deadline:
                what, still = _left(attempts)
                raise RpcError(f"{what} after {timeout_s:g} s{trouble}; {still}")
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_POLL_S)
        self._waiting.remove(attempts)
        return must_succeed(self.rpc, seen.receipt)

    def _look(self, attempts: Sequence[Attempt]) -> Sight:
        return look(self.rpc, self.signer.address, _nonce(attempts), attempts)

    def _other(self, attempts: list[Attempt], head: int) -> Hash32 | None:
        """Return the transaction that has the nonce, if it says something else.

        The same, replaced by another process of the account, is one of the attempts.
        """
        blocks = range(attempts[0].stored_at + 1, head + 1)
        found = pool.mined(self.rpc, self.signer.address, _nonce(attempts), blocks)
        if found is None:
            return None
        if _meaning(found.content) != _says(attempts):
            return found.hash
        if all(known.hash != found.hash for known in attempts):
            attempts.append(Attempt(found.hash, found.raw, head))
        return None

    def _push(self, attempts: list[Attempt]) -> None:
        """Hand over all that waits up to this one, replacing what was overtaken: no nonce goes before a lower one."""
        for each in [x for x in self._waiting if _nonce(x) <= _nonce(attempts)]:
            seen = self._look(each)
            if seen.receipt is not None or seen.used:
                continue
            dearer = push(self.rpc, self.signer, each, seen)
            if dearer is not None:
                log.warning(
                    "%s was overtaken: %s takes its place and pays up to %s per gas",
                    each[-1].hash, dearer.hash, show_gwei(dearer.content.max_fee),
                )  # fmt: skip
                # Before it is sent: its receipt is asked for whether or not the answer arrives.
                each.append(Attempt(dearer.hash, dearer.raw, seen.head))
                hand_over(self.rpc, dearer.raw)


def _says(attempts: Sequence[Attempt]) -> tuple[Address | None, Wei, bytes]:
    return _meaning(decode(attempts[0].raw).content)


def _meaning(content: Content) -> tuple[Address | None, Wei, bytes]:
    """Return what a transaction does, whatever it pays for that."""
    return content.to, content.value, content.data


def _nonce(attempts: Sequence[Attempt]) -> int:
    return decode(attempts[0].raw).content.nonce


def _left(attempts: Sequence[Attempt]) -> tuple[str, str]:
    """Return in words what waits, and that it may not wait forever."""
    hashes = " and ".join(each.hash for each in attempts)
    verb = "is" if len(attempts) == 1 else "are"
    return f"{hashes} {verb} in no block", "it may still get into one: look before you run this again"


def transact(
    rpc: Rpc,
    account: Payer,
    contract: Contract,
    function: str,
    *args: Any,
    value: int = 0,
) -> Receipt:
    """Call a contract by a transaction and return its receipt, as `Courier.send` does.

    `value` is what is sent along, in wei of the chain's own coin.
    """
    data = contract.encode(function, *args)
    return Courier(rpc, account).send(contract.address, data, value)


def _reason(rpc: Rpc, receipt: Receipt) -> str:
    """Return why a transaction was reverted, by running it again on the block before its own."""
    sent = rpc.request("eth_getTransactionByHash", receipt.transaction_hash) or {}
    try:
        data = bytes.fromhex(sent.get("input", "0x")[2:])
        rpc.call(sent["to"], data, receipt.block - 1, sent["from"])
    except RpcAnswerError as error:
        return revert_reason(error.data)
    except (KeyError, ValueError):
        pass
    return "the state it met was another than when it was sent; run this again"
