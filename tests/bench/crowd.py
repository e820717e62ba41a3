"""An epoch of a hundred thousand wallets: tasks, really signed rankings and stake changes, the same at each run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Final

from coincurve import PrivateKey

from chain.assignment import display_order
from chain.board import Arrival, Board
from chain.bundle import Evidence, Header, SignedRanking
from chain.canonical import text_hash
from chain.epoch import NO_RUN, Facts, Standing
from chain.feedback import Task, summary_of
from chain.gold import gold_root
from chain.handout import HandoutEntry
from chain.hashing import keccak256
from chain.messages import Domain, Ranking
from chain.rules import Rules
from chain.stake import Change, fold, stake_seconds
from chain.types import Address, Epoch, Hash32, Params, Ratio, WalletState, Wei
from tests.worlds import DISTRIBUTOR, DOMAIN, GENESIS, LENGTH, NO_COMMENT

SIZE: Final = 4
PAIRS: Final = SIZE * (SIZE - 1) // 2
OVERLAP: Final = 5
RULES: Final = Rules(
    params=Params(c0=0, z_num=0, n1=6),
    methods=("ranking",),
    overlap_min=OVERLAP,
    overlap=OVERLAP,
    overlap_max=OVERLAP,
)
"""Pays from the first comparison on, so that most of the crowd has a payout; every ranking gives all its pairs."""
_WORDS: Final = (
    "the",
    "harbour",
    "opens",
    "early",
    "and",
    "closes",
    "when",
    "last",
    "boat",
    "is",
    "in",
    "so",
    "ask",
)
PAID: Final = Wei(10**6)
"""What everybody was paid before."""
SEED: Final = keccak256(b"a crowd")


@dataclass(frozen=True)
class Crowd:
    """So many wallets, and rankings of four responses each that make so many comparisons."""

    wallets: int
    comparisons: int
    epoch: int = 0
    start: int = GENESIS
    """First second of the epoch, which lasts LENGTH."""
    seed: bytes = SEED
    domain: Domain = DOMAIN
    spare: int = 0
    """Tasks beyond those that it gives all judgements that are wanted: so that some are left to hand out."""

    @property
    def rankings(self) -> int:
        return self.comparisons // PAIRS

    @cached_property
    def people(self) -> list[tuple[Address, PrivateKey]]:
        """Return everybody's address and key."""
        keys = [PrivateKey(keccak256(b"crowd" + i.to_bytes(8, "big"))) for i in range(self.wallets)]
        return [(_address(key), key) for key in keys]

    def evidence(self) -> Evidence:
        """Return what this crowd signed: wallets in turn, so that each ranks a task or two; better ones mostly agree."""
        return self.work()[0]

    def work(self) -> tuple[Evidence, Board]:
        """Return the same, and the board as it is after that."""
        luck = Random(1)
        count = -(-self.rankings // OVERLAP) + self.spare
        tasks = {t.hash(): t for t in (_task(n, luck).sealed(self.seed) for n in range(count))}
        board, log, handouts = Board(tasks, RULES, self.seed), [], []
        for position in range(self.rankings):
            wallet, key = self.people[position % self.wallets]
            at = self.start + 110 + position * (LENGTH - 120) // self.rankings
            name = board.choose(wallet)
            if name is None:
                raise SystemExit(f"the crowd of the bench has no task left for ranking {position}")
            handouts.append(HandoutEntry(position, wallet, name, at, after=position))
            board.hand_out(handouts[-1])
            said = self._ranking(wallet, tasks[name], name, luck)
            board.rank(Arrival(position, said, at))
            log.append(SignedRanking(said, sign(said, self.domain, key), position, at))
        header = Header(
            epoch=Epoch(self.epoch), chain_id=DOMAIN.chain_id, vault=DOMAIN.vault, distributor=DISTRIBUTOR,
            genesis=GENESIS, length=LENGTH, snapshot_block=100, snapshot_hash=text_hash("block"),
            seed=Hash32("0x" + self.seed.hex()), gold_root=gold_root(tasks, {}, self.seed), lam=standing({}).lam,
            rules=RULES, previous=standing({}).previous, receipt_signer=DISTRIBUTOR,
        )  # fmt: skip
        return Evidence(header, tasks, {}, (), tuple(log), (), tuple(handouts)), board

    def _ranking(self, wallet: Address, task: Task, name: Hash32, luck: Random) -> Ranking:
        """Return an order of all responses: the true one, which is that of their hashes, or any."""
        shown = display_order(self.seed, wallet, name, task.hashes)
        order = list(shown) if luck.random() < 0.3 else sorted(shown)
        ranks = tuple(order.index(h) + 1 for h in shown)
        return Ranking(
            wallet, self.epoch, name, "ranking", summary_of(ranks), shown, ranks, (), "", NO_COMMENT, 0, self.start + 100
        )  # fmt: skip


def standing(paid: dict[Address, Wei]) -> Standing:
    """Return what the epochs before handed on: everybody has a history and was paid before."""
    params = RULES.params
    states = {a: WalletState(3_000_000, 6_000_000, 9_000_000, 12_000_000, 1_000_000) for a in paid}
    return Standing(Ratio(params.lambda0_num, params.lambda0_den), states=states, cumulative=paid)


def changes(wallets: list[Address], rounds: int = 3, start: int = GENESIS) -> Iterator[Change]:
    """Yield the vault's events: each account changes its stake so many times, before and within the epoch."""
    for turn in range(rounds):
        for place, wallet in enumerate(wallets):
            yield Change(wallet, Wei((place % 97 + turn + 1) * 10**18), start - 200 + 150 * turn)


def facts(found: Iterable[Change], header: Header, revenue: int) -> Facts:
    """Return what the chain says of an epoch, as service and verifier fold it from the vault's events."""
    listed = list(found)
    starts, ends = fold(listed, header.start), fold(listed, header.end)
    return Facts(
        {a: stake_seconds(s, header.start) for a, s in starts.items()},
        {a: stake_seconds(s, header.end) for a, s in ends.items()},
        {NO_RUN: Wei(revenue)},
    )


def sign(message: Ranking, domain: Domain, key: PrivateKey) -> str:
    """Return the signature as `chain.messages.sign` makes it, without an account object for each of the crowd."""
    raw = key.sign_recoverable(bytes.fromhex(message.digest(domain)[2:]), hasher=None)
    return "0x" + (raw[:64] + bytes([raw[64] + 27])).hex()


def _address(key: PrivateKey) -> Address:
    return Address("0x" + keccak256(key.public_key.format(compressed=False)[1:])[12:].hex())


def _task(number: int, luck: Random) -> Task:
    texts = [f"{number}.{i}: " + " ".join(luck.choices(_WORDS, k=luck.randint(20, 60))) for i in range(SIZE)]
    return Task.of(
        f"question {number}: " + " ".join(luck.choices(_WORDS, k=20)), texts, ["ranking", "likert"]
    )
