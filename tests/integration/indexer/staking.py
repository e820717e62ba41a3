"""What tests of the index play on a chain, and how they index it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlmodel import Session

from chain.indexer import IndexResult, index
from chain.rpc import Rpc

TOKEN = 10**18
NOTHING = [[], [], [], [], [], []]
Sessions = Callable[[], Session]
Dump = Callable[[], list[Any]]


def play(chain: Any) -> None:
    """Stake, take back, withdraw, fund: every event of the vault and some of the distributor."""
    start = chain.rpc.block("latest").timestamp
    for who in (0, 2, 3):
        chain.stake(who, (who + 1) * TOKEN)
    chain.unstake(2, TOKEN)
    chain.warp(start + 100)
    chain.stake(2, 5)
    chain.unstake(3, 4 * TOKEN)
    chain.fund(4, 0, 7_000_000)
    chain.fund(5, (1 << 64) - 1, 11)
    chain.warp(start + 2_000)
    chain.act(2, chain.deployment.stake_vault(), "withdraw")
    chain.fund(4, 1, 1)


def run(chain: Any, sessions: Sessions, url: str = "") -> IndexResult:
    with Rpc(url or chain.url, retries=0) as rpc:
        return index(rpc, sessions, chain.deployment)


def drop(address: str, which: int) -> Callable[[list[dict[str, Any]], list[dict[str, Any]]], None]:
    """Return a lie that leaves out one of the logs that concern `address`."""

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            concerned = [log for log in answers[0]["result"] if address[2:] in "".join(log["topics"])]
            answers[0]["result"].remove(concerned[which])

    return lie
