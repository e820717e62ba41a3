"""An operator's outbox on a chain that makes a block only when it is told to, for the tests of what is sent."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlmodel import Session, select

from chain import ledger, outbox
from chain.attempts import PATIENCE
from chain.devnet import mine
from chain.fees import GWEI, raised
from chain.keys import address_of, devnet_accounts
from chain.ledger import TransactionRow
from chain.outbox import TransactionKey
from chain.rpc import Rpc
from chain.signer import Payer, decode
from chain.types import Attempt, Hash32, Wei
from chain.wire import Receipt

Sessions = Callable[[], Session]
KEY = TransactionKey("post", 0, Hash32("0x" + "01" * 32))
OTHER = KEY._replace(about=Hash32("0x" + "02" * 32))
ACCOUNTS = devnet_accounts(31337)
ME, THEM = address_of(ACCOUNTS[0]), address_of(ACCOUNTS[1])
VALUE = 7


@dataclass
class Post:
    """An outbox on an Anvil that makes a block only when it is told to."""

    rpc: Rpc
    sessions: Sessions
    payer: Payer = ACCOUNTS[0]
    value: int = VALUE

    def send(self, key: TransactionKey = KEY, rpc: Rpc | None = None) -> TransactionRow:
        with self.sessions() as session:
            outbox.send(rpc or self.rpc, session, self.payer, THEM, b"", self.value, key=key)
        return self.row(key)

    def settle(self, key: TransactionKey = KEY, rpc: Rpc | None = None) -> Receipt | None:
        with self.sessions() as session:
            row = self.row(key, session)
            return outbox.settle(rpc or self.rpc, session, self.payer, row).receipt

    def row(self, key: TransactionKey = KEY, session: Session | None = None) -> TransactionRow:
        with self.sessions() as own:
            found = ledger.transaction(session or own, key.kind, key.epoch)
            assert found is not None
            return found

    def status(self) -> str:
        return self.row().status

    def attempts(self) -> list[Attempt]:
        with self.sessions() as session:
            return ledger.attempts(session, self.row())

    def nonces(self) -> list[int]:
        """Return the nonces of all that was ever stored."""
        with self.sessions() as session:
            return sorted(row.nonce for row in session.exec(select(TransactionRow)))

    def given(self) -> int:
        """Return how often the other account was paid."""
        return (self.rpc.balance(THEM) - 10_000 * 10**18) // VALUE

    def raise_fees(self, gwei: int = 100, blocks: int = PATIENCE) -> None:
        """Make blocks whose base fee is above what was offered; Anvil throws out of its pool what they cannot take."""
        for _ in range(blocks):
            self.rpc.request("anvil_setNextBlockBaseFeePerGas", hex(gwei * GWEI))
            mine(self.rpc)

    def lower_fees(self) -> None:
        """Let the next block take what was offered at first."""
        self.rpc.request("anvil_setNextBlockBaseFeePerGas", hex(GWEI))


def is_the_same(post: Post) -> None:
    """All that was ever signed for the row differs in its fees only, which rise by an eighth at least."""
    contents = [decode(each.raw).content for each in post.attempts()]
    assert {replace(c, max_fee=Wei(0), tip=Wei(0)) for c in contents} == {
        replace(contents[0], max_fee=Wei(0), tip=Wei(0))
    }
    for before, after in itertools.pairwise(contents):
        assert after.max_fee >= raised(before.max_fee)
        assert after.tip >= raised(before.tip)
