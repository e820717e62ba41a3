"""A distributor in tests whose reports give one account all revenue: posted, thrown out, paid and claimed."""

from __future__ import annotations

from dataclasses import dataclass

from chain.contracts import Contract
from chain.tree import SumTree
from chain.types import Hash32, Leaf, Wei
from tests.integration.conftest import EPOCH_S, GENESIS, Chain

BROKEN = b"no node of a tree"
WORD = Hash32("0x" + "ab" * 32)


@dataclass
class Payer:
    """A distributor whose reports give one account all revenue."""

    chain: Chain
    epoch: int = 0

    @property
    def distributor(self) -> Contract:
        return self.chain.deployment.revenue_distributor()

    def tree(self, amount: int) -> SumTree:
        return SumTree.build([Leaf(self.chain.address(6), Wei(amount))])

    def post(self, amount: int = 0, root: Hash32 | None = None) -> None:
        tree = self.tree(amount)
        end = GENESIS + (self.epoch + 1) * EPOCH_S
        if self.chain.rpc.block("latest").timestamp < end:
            self.chain.warp(end)
        snapshot = self.chain.rpc.block("latest")
        report = (
            self.epoch, root or tree.root_hash, amount, tree.depth, WORD, WORD, WORD, snapshot.number, snapshot.hash
        )  # fmt: skip
        self.chain.act(0, self.distributor, "post", report)

    def activate(self) -> None:
        self.chain.warp(self.chain.view(self.distributor, "pending")[-1])
        self.chain.act(3, self.distributor, "activate")
        self.epoch += 1

    def claim(self, amount: int) -> None:
        self.chain.act(3, self.distributor, "claim", self.chain.address(6), amount, 0, b"")

    def pay(self, amount: int) -> None:
        """Bring an epoch to its end, and let the account claim."""
        self.chain.fund(4, 1, amount - int(self.chain.view(self.distributor, "funded")))
        self.post(amount)
        self.activate()
        self.claim(amount)

    def veto(self) -> None:
        self.chain.act(1, self.distributor, "veto", self.chain.view(self.distributor, "pending")[1])

    def challenge(self) -> None:
        """Prove that a root is the hash of BROKEN, which is no node of a tree."""
        self.chain.act(5, self.distributor, "challengeMalformed", BROKEN, 0, 0, b"")

    def give(self, amount: int) -> None:
        """Send the distributor tokens that are no revenue."""
        token = Contract("DevnetDollar", self.chain.deployment.payment_token)
        self.chain.act(5, token, "mint", self.chain.deployment.distributor, amount)
