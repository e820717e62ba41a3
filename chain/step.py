"""One transaction of an epoch, brought on the chain once: resumed after a crash, or only priced in a dry run."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from chain import ledger, outbox
from chain.attempts import look
from chain.errors import ChainError
from chain.hashing import keccak256
from chain.outbox import TransactionKey
from chain.quote import Quote, Wanted, quote
from chain.rpc import Rpc
from chain.signer import Payer, signer_of
from chain.transactions import must_succeed
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
    """What it took."""
    cost: Wei = NOTHING
    """What it cost, in wei of the chain's own coin."""
    quote: Quote | None = None
    """In a dry run: what it would cost at most, and what the account has."""


@dataclass(frozen=True, slots=True)
class Step:
    """A transaction that is not sent twice for its key, and all that is needed to get it on the chain."""

    rpc: Rpc
    session: Session
    """Committed before anything is sent."""
    to: Address
    account: Payer
    key: TransactionKey
    data: bytes
    dry_run: bool
    timeout_s: float

    def resume(self) -> tuple[bool, int]:
        """Bring what an earlier run stored or sent into a block.

        Return whether that did what is wanted now, and the block it is in, 0 if in none. A dry run only looks.
        """
        row = ledger.transaction(self.session, self.key.kind, self.key.epoch)
        if row is None:
            return False, 0
        if self.dry_run:
            attempts = ledger.attempts(self.session, row)
            receipt = look(self.rpc, Address(row.sender), row.nonce, attempts).receipt
        else:
            receipt = outbox.bring(self.rpc, self.session, self.account, row, self.key.about, self.timeout_s)
        if receipt is None:
            return row.status == "final" and row.about == self.key.about, 0
        return receipt.ok and row.about == self.key.about, receipt.block

    def take(self, what: str) -> Outcome:
        """Send the transaction and wait for its block; in a dry run only say what it takes."""
        signer = signer_of(self.account)
        if self.dry_run:
            found = quote(self.rpc, signer.address, [Wanted(self.to, self.data)], signer.max_fee)
            return Outcome(what, done=False, quote=found)
        row = outbox.send(self.rpc, self.session, signer, self.to, self.data, key=self.key)
        receipt = outbox.bring(self.rpc, self.session, signer, row, timeout_s=self.timeout_s)
        if receipt is None:
            raise ChainError(
                f"{row.hash} will never be in a block: its nonce {row.nonce} went to another transaction of "
                f"{row.sender}; run this again, and have nobody else send with this key"
            )
        must_succeed(self.rpc, receipt)
        return Outcome(
            what,
            done=True,
            transaction=receipt.transaction_hash,
            gas=int(receipt.gas_used, 16),
            cost=receipt.cost,
        )


def about(content: bytes) -> Hash32:
    """Return what a transaction is known by, whatever it costs: keccak256 of what it says."""
    return Hash32("0x" + keccak256(content).hex())
