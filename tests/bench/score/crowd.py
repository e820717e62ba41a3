"""Who takes part in the attack bench, and what each kind of contributor's answer follows.

Every response has a quality, drawn from a normal distribution, of which a quarter of the variance is its model's.
Whoever looks at it sees quality plus noise (Thurstone's case V): close pairs are hard for everybody, which is why
labels of this crowd can never be as good as those of a crowd that errs at an even rate. `accuracy` is the chance to
order two random responses right, which fixes the noise: noise = 1 / tan(π·(accuracy - 1/2)).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from chain.hashing import keccak256
from chain.types import Address

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of contributor; an answer is the sum of what it follows, plus noise."""

    name: str
    accuracy: tuple[float, float] = (0.5, 0.5)
    """Least and most of its people, evenly spread; without effect unless the truth is followed."""
    truth: float = 0
    """1 follows the quality of a response, -1 says the opposite of what was seen."""
    length: float = 0
    """Follows the length of a response."""
    model: float = 0
    """Follows the mean quality of the model behind a response, recognised in spite of the blinding."""
    key: float = 0
    """Follows a key that a ring shares and that has nothing to do with the truth."""
    copies: str = ""
    """"confederates": of the same group, where one has the same task; "stale": an expert's answers of the last epoch."""
    knows_gold: bool = False
    """Was told which tasks are gold, and answers those right."""
    effort: float = 1
    """Judgements, relative to everybody else."""
    late: bool = False
    """Holds one token until the last twentieth of the last epoch."""
    turns: int | None = None
    """Epoch from which it answers at random."""

    def noise(self, people: int) -> Floats:
        """Return the noise of so many people's view."""
        if not self.truth:
            return np.full(people, 0.0 if self.length or self.model or self.key else 1.0)
        low, high = self.accuracy
        spread = np.linspace(low, high, people) if people > 1 else np.array([(low + high) / 2])
        return np.clip(1 / np.tan(np.pi * np.maximum(spread - 0.5, 1e-9)), 0.0, None)


EXPERT: Final = Kind("expert", (0.80, 0.90), truth=1)
AVERAGE: Final = Kind("average", (0.65, 0.75), truth=1)
POOR: Final = Kind("poor", (0.54, 0.62), truth=1)
CLICKER: Final = Kind("random clicker")
ADVERSARY: Final = Kind("adversary", (0.80, 0.90), truth=-1)
PICKS_LONGER: Final = Kind("picks the longer", length=1)
LEADER: Final = replace(AVERAGE, name="copied confederate")
COPYCAT: Final = Kind("copies a confederate", copies="confederates")
STALE: Final = Kind("copies old answers", copies="stale")
LATE: Final = replace(AVERAGE, name="stakes late", late=True)
TURNED: Final = replace(EXPERT, name="expert, then clicks")
LAZY_WHALE: Final = Kind("lazy whale", effort=0.14)
EXPERT_WHALE: Final = replace(EXPERT, name="expert whale", effort=0.14)
RING: Final = Kind("ring, truth reversed", (1.0, 1.0), truth=-1)
KEYED: Final = Kind("ring, arbitrary key", key=1)
INFORMED: Final = replace(RING, name="ring that knows the gold", knows_gold=True)
RECOGNISES: Final = Kind("recognises the models", model=1)

LITTLE: Final = 0.007
"""Share of all work that whales do together."""
WHALES_STAKE: Final = 0.8
"""Share of all stake that the whales of a population hold together."""


@dataclass(frozen=True)
class Population:
    """So many of each kind, in a row; wallets are named so that their order says nothing of their kind."""

    groups: tuple[tuple[Kind, int], ...]
    seed: int
    splits: tuple[tuple[int, int], ...] = ()
    """Person by number, and over how many wallets this person's work and stake are spread."""
    merged: tuple[tuple[int, ...], ...] = ()
    """People who share one wallet, that of the first."""

    @cached_property
    def kinds(self) -> list[Kind]:
        """Everybody's kind."""
        return [kind for kind, count in self.groups for _ in range(count)]

    @cached_property
    def noise(self) -> Floats:
        """Everybody's noise."""
        return np.concatenate([kind.noise(count) for kind, count in self.groups])

    @cached_property
    def wallets(self) -> list[tuple[Address, ...]]:
        """Everybody's wallets: one, unless a person splits or shares."""
        found: list[tuple[Address, ...]] = [(_address(self.seed, n, 0),) for n in range(len(self.kinds))]
        for person, parts in self.splits:
            found[person] = tuple(_address(self.seed, person, part) for part in range(parts))
        for people in self.merged:
            for person in people:
                found[person] = (_address(self.seed, people[0], 0),)
        return found

    @cached_property
    def stakes(self) -> Floats:
        """Everybody's tokens: log-normal, independent of skill, 100 on average; whales as rich as `WHALES_STAKE`."""
        luck = np.random.default_rng([self.seed, 7])
        stakes = 100 * np.exp(luck.normal(-0.5, 1, len(self.kinds)))
        whales = np.array(["whale" in kind.name for kind in self.kinds])
        if whales.any():
            rest = stakes[~whales].sum()
            stakes[whales] = rest * WHALES_STAKE / (1 - WHALES_STAKE) / whales.sum()
        return stakes

    def kind_of(self) -> dict[Address, str]:
        """Return the kind of each wallet by name."""
        return {w: kind.name for kind, mine in zip(self.kinds, self.wallets, strict=True) for w in mine}

    def people(self, kind: str) -> list[int]:
        """Return the numbers of everybody of a kind."""
        return [n for n, k in enumerate(self.kinds) if k.name == kind]


def _address(seed: int, person: int, part: int) -> Address:
    return Address("0x" + keccak256(f"{seed} {person} {part}".encode())[12:].hex())


def of_shares(seed: int, wallets: int, shares: Iterable[tuple[Kind, float]]) -> Population:
    """Return a population of so many wallets by shares; what rounding leaves goes to the first kind."""
    counted = [(kind, round(share * wallets)) for kind, share in shares if share]
    first, count = counted[0]
    counted[0] = first, count + wallets - sum(n for _, n in counted)
    return Population(tuple(counted), seed)


BENIGN: Final = ((EXPERT, 0.15), (AVERAGE, 0.50), (POOR, 0.25), (CLICKER, 0.10))
"""People who want to answer right, as well as they can, and a tenth who do not look."""


def one_whale(kind: Kind, seed: int, wallets: int) -> Population:
    """Return a benign crowd and one more wallet, with `WHALES_STAKE` of the stake and `LITTLE` of the work."""
    whale = replace(kind, name=f"one whale: {kind.name}", effort=wallets * LITTLE / (1 - LITTLE))
    return Population((*of_shares(seed, wallets, BENIGN).groups, (whale, 1)), seed)


def with_hostile(kind: Kind, share: float) -> tuple[tuple[Kind, float], ...]:
    """Return a benign crowd of which a share was replaced."""
    return *((k, s * (1 - share)) for k, s in BENIGN), (kind, share)


def everybody(epochs: int) -> tuple[tuple[Kind, float], ...]:
    """Return shares of a crowd in which every kind is, half of it hostile or useless; wholly fixed before any run."""
    turned = replace(TURNED, turns=epochs // 2)
    return (
        (AVERAGE, 0.37), (EXPERT, 0.12), (POOR, 0.20), (CLICKER, 0.07), (ADVERSARY, 0.05), (PICKS_LONGER, 0.03),
        (LEADER, 0.01), (COPYCAT, 0.03), (STALE, 0.02), (LATE, 0.02), (turned, 0.03), (LAZY_WHALE, 0.05),
    )  # fmt: skip
