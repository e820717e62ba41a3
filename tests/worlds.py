"""Small worlds for tests: people with real keys, tasks of known quality, signed rankings, chained epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from chain.assignment import display_order, method_of
from chain.board import Arrival, Board
from chain.bundle import Evidence, Header, Run, SignedRanking, SignedSession
from chain.canonical import text_hash
from chain.epoch import Facts, Standing
from chain.feedback import Task, dense_ranks, summary_of
from chain.gold import Gold, gold_root
from chain.handout import HandoutEntry, SkipEntry
from chain.hashing import keccak256
from chain.keys import address_of
from chain.messages import Domain, Ranking, Session, sign
from chain.rules import METHODS, SIZES, Rules
from chain.types import ZERO_HASH, Address, Epoch, Hash32, Params, Ratio, Wei

GENESIS, LENGTH = 1_800_000_000, 600
DOMAIN = Domain(31_337, Address("0x" + "5f" * 20))
DISTRIBUTOR = Address("0x" + "d1" * 20)
NO_COMMENT = text_hash("")
"""commentHash of a ranking without a comment: keccak256 of no bytes."""
UNASKED: Any = None
"""Contract wallets, where whoever signs has a key: they are not asked, and nobody could be."""
GENEROUS = Rules(params=Params(c0=0, z_num=0, n1=6), overlap_min=5, overlap=6)
"""Pays from the first comparison on, so that small worlds have payouts, and asks everybody in them."""
PEOPLE: tuple[LocalAccount, ...] = tuple(
    sorted((Account.from_key(keccak256(b"person" + bytes([i]))) for i in range(8)), key=address_of)
)
RECEIPTS: LocalAccount = Account.from_key(keccak256(b"receipts"))
"""Signs the operator's receipts."""
KEYS: Mapping[Address, LocalAccount] = {
    address_of(a): Account.from_key(keccak256(b"session" + bytes([i]))) for i, a in enumerate(PEOPLE)
}
"""A session key for each."""


def seed_of(epoch: int) -> bytes:
    """Return an epoch's seed; by this one the first five people are asked by all four methods."""
    return keccak256(b"seed 212" + bytes([epoch]))


def task_of(name: str, texts: Sequence[str], methods: Sequence[str] = METHODS) -> Task:
    unfit = "best_worst" if len(texts) == 2 else "pairwise"
    return Task.of(f"prompt {name}", texts, [m for m in methods if m != unfit])


def answered(method: str, marks: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (ranks, likert) of somebody who gives these marks of 1 to 7, by a method."""
    if method == "likert":
        return dense_ranks(marks), tuple(marks)
    if method != "best_worst":
        return dense_ranks(marks), ()
    if len(set(marks)) == 1:
        return (1,) * len(marks), ()
    ranks = [2] * len(marks)
    ranks[marks.index(max(marks))], ranks[marks.index(min(marks))] = 1, 3
    return tuple(ranks), ()


def ranking_of(
    wallet: Address,
    task: Task,
    marks: Mapping[Hash32, int],
    *,
    epoch: int = 0,
    methods: Sequence[str] = METHODS,
    flag: str = "",
    revision: int = 0,
) -> Ranking | None:
    """Return what a wallet says of a task; None where the method that the seed drew does not fit."""
    seed = seed_of(epoch)
    method = method_of(seed, wallet, methods)
    if method not in task.methods:
        return None
    shown = display_order(seed, wallet, task.hash(), task.hashes)
    same = dict.fromkeys(shown, 4)
    ranks, likert = answered(method, [(same if flag else marks)[h] for h in shown])
    at = GENESIS + epoch * LENGTH + 100
    return Ranking(
        wallet, epoch, task.hash(), method, summary_of(ranks), shown, ranks, likert, flag, NO_COMMENT,
        revision, at,
    )  # fmt: skip


def logged(
    rankings: Sequence[Ranking], keys: Mapping[Address, LocalAccount], domain: Domain = DOMAIN
) -> tuple[SignedRanking, ...]:
    """Return rankings as the service records them, each signed by the key of its wallet."""
    return tuple(
        SignedRanking(r, sign(r, domain, keys[r.wallet]), i, GENESIS + r.epoch * LENGTH + 110 + i)
        for i, r in enumerate(rankings)
    )


def session_of(
    person: LocalAccount, *, epoch: int = 0, most: int = 1000, not_after: int = 2**40, domain: Domain = DOMAIN
) -> SignedSession:
    wallet = address_of(person)
    session = Session(wallet, address_of(KEYS[wallet]), epoch, most, not_after, NO_COMMENT)
    return SignedSession(session, sign(session, domain, person))


def header_of(
    epoch: int,
    standing: Standing,
    tasks: Mapping[Hash32, Task],
    gold: Mapping[Hash32, Gold],
    rules: Rules = GENEROUS,
) -> Header:
    return Header(
        epoch=Epoch(epoch), chain_id=DOMAIN.chain_id, vault=DOMAIN.vault, distributor=DISTRIBUTOR,
        genesis=GENESIS, length=LENGTH, snapshot_block=100 + epoch, snapshot_hash=text_hash(f"block {epoch}"),
        seed=Hash32("0x" + seed_of(epoch).hex()), gold_root=gold_root(tasks, gold, seed_of(epoch)),
        lam=standing.lam, rules=rules, previous=standing.previous, receipt_signer=address_of(RECEIPTS),
    )  # fmt: skip


class Log:
    """An epoch as it is played: whoever asks is handed what the rule gives, and all of it is written down."""

    def __init__(self, tasks: Mapping[Hash32, Task], rules: Rules, epoch: int) -> None:
        self.tasks, self.rules, self.epoch = tasks, rules, epoch
        self.board = Board(tasks, rules, seed_of(epoch))
        self.handouts: list[HandoutEntry] = []
        self.skips: list[SkipEntry] = []
        self.rankings: list[Ranking] = []

    @property
    def now(self) -> int:
        """When the next ranking comes in, as `logged` has it."""
        return GENESIS + self.epoch * LENGTH + 110 + len(self.rankings)

    @property
    def _number(self) -> int:
        return len(self.handouts) + len(self.skips)

    def ask(self, wallet: Address) -> Hash32 | None:
        """Hand a wallet its next task, if there is one."""
        self.board.expire(self.now)
        name = self.board.held(wallet) or self.board.choose(wallet)
        if name is not None and not self.board.held(wallet):
            entry = HandoutEntry(self._number, wallet, name, self.now, len(self.rankings))
            self.board.hand_out(entry)
            self.handouts.append(entry)
        return name

    def skip(self, wallet: Address, task: Hash32) -> None:
        entry = SkipEntry(self._number, wallet, task, "unclear", self.now, len(self.rankings))
        self.board.skip(entry)
        self.skips.append(entry)

    def rank(self, ranking: Ranking) -> None:
        self.board.rank(Arrival(len(self.rankings), ranking, self.now))
        self.rankings.append(ranking)


def evidence_of(
    luck: Random,
    standing: Standing,
    *,
    epoch: int = 0,
    people: int = 5,
    tasks: int = 4,
    runs: Sequence[Run] = (),
    domain: Domain = DOMAIN,
    rules: Rules = GENEROUS,
) -> Evidence:
    """Return an epoch in which the first people see best; half of them sign by session keys."""
    known, gold, truths = {}, {}, {}
    signers = {a: KEYS[a] if i % 2 else p for i, (p, a) in enumerate(_named(people))}
    for n in range(tasks):
        size = SIZES[n % len(SIZES)]
        task = task_of(f"{epoch}.{n}", [f"{'long ' * luck.randrange(4)}text {i}" for i in range(size)])
        task = task.sealed(seed_of(epoch))
        truths[task.hash()] = truth = {h: luck.randint(1, 7) for h in task.hashes}
        known[task.hash()] = task
        if luck.random() < 0.4 or n == 0:
            ranks = dense_ranks([truth[h] for h in task.hashes])
            gold[task.hash()] = Gold(task.hash(), ranks, text_hash(f"salt {epoch}.{n}"))
    log = Log(known, rules, epoch)
    for place, (_, wallet) in [(i, x) for _ in range(tasks) for i, x in enumerate(_named(people))]:
        name = log.ask(wallet)
        if name is not None:
            _answer(luck, log, wallet, name, truths[name], place)
    return Evidence(
        header_of(epoch, standing, known, gold, rules), known, gold,
        sessions=tuple(
            session_of(p, epoch=epoch, domain=domain) for i, (p, _) in enumerate(_named(people)) if i % 2
        ),
        rankings=logged(log.rankings, signers, domain), runs=tuple(runs), handouts=tuple(log.handouts),
        skips=tuple(log.skips),
    )  # fmt: skip


def _answer(
    luck: Random, log: Log, wallet: Address, name: Hash32, truth: Mapping[Hash32, int], place: int
) -> None:
    """Let a wallet judge what it was handed, once or twice, or give it back."""
    revisions = luck.choice([0, 1, 1, 1, 2])
    if not revisions and log.board.skips_left(wallet):
        log.skip(wallet, name)
    for revision in range(revisions):
        marks = {h: luck.randint(1, 7) if luck.random() < place / 8 else truth[h] for h in truth}
        flag = "unsafe" if luck.random() < 0.05 else ""
        said = ranking_of(wallet, log.tasks[name], marks, epoch=log.epoch, flag=flag, revision=revision)
        assert said is not None
        log.rank(said)


def facts_of(epoch: int, funded: Mapping[int, int], people: int = 5) -> Facts:
    """Return constant stakes, the first person's the largest and the last one's 0."""
    rate = {a: (people - 1 - i) * 10**18 for i, (_, a) in enumerate(_named(people))}
    return Facts(
        {a: s * LENGTH * epoch for a, s in rate.items()},
        {a: s * LENGTH * (epoch + 1) for a, s in rate.items()},
        {run: Wei(v) for run, v in funded.items()},
    )


def first_standing(rules: Rules = GENEROUS) -> Standing:
    return Standing(lam=Ratio(rules.params.lambda0_num, rules.params.lambda0_den), previous=ZERO_HASH)


def _named(people: int) -> list[tuple[LocalAccount, Address]]:
    return [(p, address_of(p)) for p in PEOPLE[:people]]
