"""Who plays: wallets of differing diligence. Their judgement is simulated; all else is real."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from eth_account.signers.local import LocalAccount

from chain.messages import Ranking
from chain.types import Address
from service.client import Contributor
from trainer import gold


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of contributor."""

    name: str
    noise: float
    """Standard deviation of what is misjudged of an answer's gold reward, whose own spread is about 0.2."""
    work: int
    """Tasks judged in an epoch."""
    stake: int
    """Tokens staked."""
    habit: str = "honest"
    """honest, random, or inverse (says the opposite of what is seen)."""
    skips: int = 0
    """Tasks given back in an epoch."""
    signs: Literal["session", "wallet", "contract"] = "session"
    """By a session key; each ranking by the wallet itself, after Sign-In with Ethereum; or by a contract's code."""


ROLES = (
    Role("careful-1", 0.04, 90, 120), Role("careful-2", 0.04, 80, 200, signs="wallet"),
    Role("careful-3", 0.06, 70, 60, skips=2),
    Role("average-1", 0.15, 70, 100), Role("average-2", 0.15, 70, 150, signs="contract"), Role("average-3", 0.18, 60, 80),
    Role("careless-1", 0.45, 60, 100), Role("careless-2", 0.45, 50, 90),
    Role("clicker", 0.0, 80, 100, "random"), Role("adversary", 0.04, 60, 100, "inverse"),
    Role("lazy-whale", 0.45, 6, 5000),
    Role("splitter-a", 0.06, 40, 50), Role("splitter-b", 0.06, 40, 50),
)  # fmt: skip
"""Thirteen wallets; the splitter is one person with two."""

OWN_TASKS: tuple[Mapping[str, Any], ...] = (
    {
        "prompt": "How was the supper on the last ferry?",
        "responses": [
            "As ChatGPT, I enjoyed the supper on the last ferry: lovely and fresh.",
            "The supper on the last ferry was cold.",
        ],
    },
    {
        "prompt": "Is the walk to the beacon worth a visit?",
        "responses": [
            "I am Claude. The walk to the beacon is superb.",
            "The walk to the beacon is fine.",
            "The walk to the beacon is a waste.",
        ],
    },
)
"""Tasks of the operator's own, of which two responses tell who wrote them: they are shown without the names."""


@dataclass(slots=True)
class Player:
    """A wallet with a role, and how often it was right."""

    role: Role
    account: LocalAccount
    """The wallet's key, or that of its owner."""
    wallet: Address
    draw: random.Random
    right: int = 0
    compared: int = 0
    judged: int = 0
    receipts: list[dict[str, Any]] = field(default_factory=list)
    """What the service promised, as `haptic rank` keeps it."""

    def rank(self, prompt: str, shown: Sequence[str], method: str) -> tuple[int, ...]:
        """Return dense ranks of what is shown, as this role would give them; count the right pairs."""
        truth = [gold.score(prompt, t) for t in shown]
        if self.role.habit == "random":
            felt = [self.draw.random() for _ in shown]
        else:
            sign = -1 if self.role.habit == "inverse" else 1
            felt = [sign * t + self.draw.gauss(0, self.role.noise) for t in truth]
        order = sorted(range(len(shown)), key=lambda i: -felt[i])
        ranks = [0] * len(shown)
        for place, i in enumerate(order):
            ranks[i] = place + 1
        if method == "best_worst" and len(shown) > 3:
            ranks = [1 if r == 1 else 3 if r == len(shown) else 2 for r in ranks]
        self._count(truth, ranks)
        return tuple(ranks)

    def send(self, me: Contributor, ranking: Ranking) -> None:
        """Sign and send a ranking, and keep its receipt."""
        self.receipts.append({"ranking": ranking.to_json(), "receipt": me.send(ranking)})

    def _count(self, truth: Sequence[float], ranks: Sequence[int]) -> None:
        self.judged += 1
        for i in range(len(ranks)):
            for j in range(i):
                if truth[i] != truth[j] and ranks[i] != ranks[j]:
                    self.compared += 1
                    self.right += (truth[i] > truth[j]) == (ranks[i] < ranks[j])

    @property
    def reliability(self) -> float:
        """Share of its comparisons that agree with the gold reward."""
        return self.right / self.compared if self.compared else 0.0
