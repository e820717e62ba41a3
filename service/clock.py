"""The service's clock: block time of the chain's head, and what has happened above the finalized block."""

from __future__ import annotations

import logging
import threading
import time

from anyio import to_thread

from chain.contracts import call
from chain.deployment import Deployment
from chain.errors import HapticError, RpcError
from chain.head import Head
from chain.rpc import Rpc
from chain.types import Address, Wei
from service.errors import UnavailableError

log = logging.getLogger(__name__)


class ChainClock:
    """Tells the head's timestamp; asks the node at most once in `ttl_s` seconds, silent or not."""

    def __init__(self, rpc: Rpc, ttl_s: float = 0.5) -> None:
        self._rpc, self._ttl_s = rpc, ttl_s
        self._read_at, self._now, self._error = -1.0e9, 0, ""
        self._lock = threading.Lock()

    def known(self) -> int | None:
        """Return what `now` would, if it need not ask the node nor wait for who does."""
        fresh = not self._error and time.monotonic() - self._read_at <= self._ttl_s
        return self._now if fresh else None

    def now(self) -> int:
        """Return the head's block time, Unix seconds; UnavailableError when the node does not answer."""
        with self._lock:
            if time.monotonic() - self._read_at > self._ttl_s:
                try:
                    self._now, self._error = self._rpc.block("latest").timestamp, ""
                except RpcError as error:
                    self._error = f"the chain cannot be read, so nothing was recorded; try again: {error}"
                self._read_at = time.monotonic()
            # Those who waited for the lock get the same answer: else each would wait out all retries in turn.
            if self._error:
                raise UnavailableError(self._error)
            return self._now


class HeadView:
    """Stake that is not final yet, for show; follows the head when somebody asks, at most once in `ttl_s` seconds."""

    def __init__(self, head: Head, ttl_s: float = 2.0) -> None:
        self._head, self._ttl_s, self._read_at = head, ttl_s, -1.0e9
        self._lock = threading.Lock()

    def staked(self, account: Address) -> Wei | None:
        """Return an account's stake as blocks that are not final leave it; None where none of them changed it."""
        with self._lock:
            if time.monotonic() - self._read_at > self._ttl_s:
                try:
                    self._head.follow()
                except HapticError as error:
                    # It is only shown: what was known stays, and the jobs say loudly what is wrong with the chain.
                    log.info("the head is not followed: %s", error)
                self._read_at = time.monotonic()
            return self._head.staked().get(account)


class Stakes:
    """What wallets have staked at the chain's head, for show; asks the node for each at most once in `ttl_s` seconds."""

    KEPT = 100_000
    NONE_S = 2.0
    """A wallet without stake is asked for again so soon: it may have staked since."""

    def __init__(self, rpc: Rpc, deployment: Deployment, ttl_s: float = 30.0) -> None:
        self._rpc, self._vault, self._ttl_s = rpc, deployment.stake_vault(), ttl_s
        self._known: dict[Address, tuple[float, Wei]] = {}

    async def of(self, wallet: Address) -> Wei | None:
        """Return a wallet's stake; None while the chain cannot be read."""
        read_at, staked = self._known.get(wallet, (-1.0e9, Wei(0)))
        if time.monotonic() - read_at < (self._ttl_s if staked else self.NONE_S):
            return staked
        try:
            found = Wei(int(await to_thread.run_sync(call, self._rpc, self._vault, "stakedOf", wallet)))
        except RpcError as error:
            log.info("the stake of %s cannot be read: %s", wallet, error)
            return None
        if len(self._known) >= self.KEPT:
            self._known.clear()
        self._known[wallet] = (time.monotonic(), found)
        return found
