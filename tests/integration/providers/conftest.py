"""What tests of several nodes share: time that goes on when it is told to, and a chain to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlmodel import Session

from chain.devnet import Devnet, mine
from chain.providers import (
    LAG_BLOCKS,
)
from chain.rpc import Rpc
from tests.integration.conftest import GENESIS, Chain, contracts_on

KEY = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
FAR = 4 * LAG_BLOCKS
Sessions = Callable[[], Session]
Dump = Callable[[], list[Any]]


@dataclass
class Clock:
    """Time that goes on when it is told to, and how long somebody slept."""

    now: float = 1000.0

    def __post_init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def rpc(self, *urls: str, timeout_s: float = 0.25, retries: int = 4, chain_id: int | None = None) -> Rpc:
        text = ", ".join(urls)
        return Rpc(text, timeout_s, retries=retries, sleep=self.pauses.append, clock=self, chain_id=chain_id)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """Play a little on a chain that all these tests read."""
    with Devnet(0, timestamp=GENESIS) as anvil, contracts_on(anvil) as made:
        for who in (0, 2, 3):
            made.stake(who, (who + 1) * 10**18)
        mine(made.rpc, FAR)
        made.unstake(2, 10**18)
        made.stake(2, 5)
        made.fund(4, 0, 7_000_000)
        made.fund(5, 1, 11)
        made.finalize()
        yield made
