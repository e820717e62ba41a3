"""One transaction of an epoch, brought on the chain once: resumed after a crash, or only priced in a dry run."""

from __future__ import annotations

from dataclasses import dataclass

from eth_account.signers.local import LocalAccount
from sqlmodel import Session

from chain import ledger
from chain.hashing import keccak256
from chain.keys import address_of
from chain.ledger import TransactionRow
from chain.rpc import Rpc
from chain.transactions import TransactionKey, price, send, settle, wait
from chain.types import Address, Hash32, Wei

NOTHING = Wei(0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did, or would do."""

    what: str
    """In words."""
    done: bool
    """The chain is where the step leads to."""
    transaction: Hash32 | None = None
    """By which it got there; None if it was there already, or in a dry run."""
    gas: int = 0
    """What it takes at most."""
    cost: Wei = NOTHING
    """What it costs at most, in wei of the chain's own coin."""


@dataclass(frozen=True, slots=True)
class Step:
    """A transaction that is not sent twice for its key, and all that is needed to get it on the chain."""

    rpc: Rpc
    session: Session
    """Committed before anything is sent."""
    to: Address
    account: LocalAccount
    key: TransactionKey
    data: bytes
    dry_run: bool
    timeout_s: float

    def resume(self) -> tuple[TransactionRow | None, int]:
        """Bring what an earlier run sent or stored to its end; return it and the block it is in, 0 if in none."""
        row = ledger.transaction(self.session, self.key.kind, self.key.epoch)
        if row is None or self.dry_run:
            return row, 0
        receipt = settle(self.rpc, self.session, row, self.key.about)
        if row.status == "sent":
            receipt = wait(self.rpc, Hash32(row.hash), self.timeout_s)
            settle(self.rpc, self.session, row)
        return row, receipt.block if receipt else 0

    def take(self, what: str) -> Outcome:
        """Send the transaction and wait for its block; in a dry run only say what it takes."""
        if self.dry_run:
            priced = price(self.rpc, address_of(self.account), self.to, self.data)
            return Outcome(what, done=False, gas=priced.gas, cost=priced.cost)
        hash_ = send(self.rpc, self.session, self.account, self.to, self.data, key=self.key)
        receipt = wait(self.rpc, hash_, self.timeout_s)
        row = ledger.transaction(self.session, self.key.kind, self.key.epoch)
        if row is not None:
            settle(self.rpc, self.session, row)
        return Outcome(what, done=True, transaction=hash_, gas=int(receipt.gas_used, 16), cost=receipt.cost)


def about(content: bytes) -> Hash32:
    """Return what a transaction is known by, whatever it costs: keccak256 of what it says."""
    return Hash32("0x" + keccak256(content).hex())
