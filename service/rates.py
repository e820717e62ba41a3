"""Rate limits: token buckets by address and by wallet, in memory and bounded; the time is an argument.

Times are integers, nanoseconds of a clock that only goes forward.

A bucket is kept as the time at which it will be full again (GCRA), so that a full one needs no place: whoever has not
asked for a window's length is forgotten, and a flood of addresses costs no more than two generations of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from service.errors import ServiceError
from service.settings import Settings

WINDOW_S: Final = 60
WINDOW_NS: Final = WINDOW_S * 10**9
KEPT: Final = 50_000
"""Buckets of one generation; there are two."""
EXPORTS: Final = ("/exports/", "/bundle", "/bundles/", "/proof")
"""What makes a path one that costs: files of an epoch, and proofs that may need a tree to be built."""
LOGINS: Final = frozenset({"/v1/sessions", "/v1/login"})


class Quota(NamedTuple):
    """So many requests in a window; 0: as many as anybody likes."""

    name: str
    most: int
    whose: str = "address"

    @property
    def policy(self) -> str:
        """Return it as RateLimit-Policy has it (draft-ietf-httpapi-ratelimit-headers)."""
        return f'"{self.name}";q={self.most};w={WINDOW_S}'


class RateError(ServiceError):
    """More requests than are taken; nothing was done."""

    status = 429

    def __init__(self, quota: Quota, wait_ns: int) -> None:
        wait = -(-wait_ns // 10**9)
        super().__init__(
            f"more than {quota.most} requests of the kind {quota.name!r} by this {quota.whose} in {WINDOW_S} s: nothing "
            f"was done; try again in {wait} s"
        )
        self.headers = {
            "Retry-After": str(wait),
            "RateLimit-Policy": quota.policy,
            "RateLimit": f'"{quota.name}";r=0;t={wait}',
        }


class Buckets:
    """A bucket for each key, all of one quota: it holds a window's requests and fills evenly."""

    def __init__(self, quota: Quota, kept: int = KEPT) -> None:
        self.quota, self._kept = quota, kept
        self._step = WINDOW_NS // quota.most if quota.most else 0
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}
        self._turn = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def spend(self, key: str, now: int) -> int:
        """Take a request from a bucket and return how many are left; a RateError where it is empty."""
        if not self._step:
            return 0
        with self._lock:
            full_at = self._full_at(key, now) + self._step
            if full_at - now > WINDOW_NS:
                raise RateError(self.quota, full_at - now - WINDOW_NS)
            self._keep(key, full_at, now)
            return (WINDOW_NS - (full_at - now)) // self._step

    def check(self, key: str, now: int) -> None:
        """Raise a RateError where a bucket is empty, and take nothing."""
        if self._step:
            with self._lock:
                over = self._full_at(key, now) + self._step - now - WINDOW_NS
            if over > 0:
                raise RateError(self.quota, over)

    def charge(self, key: str, now: int) -> None:
        """Take a request from a bucket whether it is empty or not: it was done."""
        if self._step:
            with self._lock:
                self._keep(key, self._full_at(key, now) + self._step, now)

    def _full_at(self, key: str, now: int) -> int:
        known = self._young.get(key)
        if known is None:
            known = self._old.get(key, now)
        return max(known, now)

    def _keep(self, key: str, full_at: int, now: int) -> None:
        if now >= self._turn or len(self._young) >= self._kept:
            # Whoever is only in the old generation has not asked for a window, and its bucket is full.
            self._old = self._young if now < self._turn + WINDOW_NS else {}
            self._young, self._turn = {}, now + WINDOW_NS
        self._young[key] = full_at


class Limits:
    """All limits of a service."""

    def __init__(self, settings: Settings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._all = Buckets(Quota("address", settings.rate_address))
        self._login = Buckets(Quota("login", settings.rate_login))
        self._exports = Buckets(Quota("exports", settings.rate_exports))
        self._contracts = Buckets(Quota("contract wallets", settings.rate_contracts))
        self._wallets = Buckets(Quota("wallet", settings.rate_wallet, "wallet"))

    def arrive(self, address: str, method: str, path: str) -> tuple[Quota, int]:
        """Count a request of an address, and say what is left of which quota; a RateError where nothing is."""
        now = self._clock()
        found = self._all
        left = found.spend(address, now)
        if method == "POST" and path in LOGINS:
            found = self._login
        elif method in {"GET", "HEAD"} and any(part in path for part in EXPORTS):
            found = self._exports
        else:
            return found.quota, left
        return found.quota, found.spend(address, now)

    def ask_contract(self, address: str) -> None:
        """Count a signature that only the chain can judge: each is an eth_call."""
        self._contracts.spend(address, self._clock())

    def wallet(self, wallet: str) -> None:
        """Count a request of a wallet that showed who it is."""
        self._wallets.spend(wallet, self._clock())

    def check_wallet(self, wallet: str) -> None:
        """Refuse what names a wallet that has asked too much; what is not proven yet takes nothing from it."""
        self._wallets.check(wallet, self._clock())

    def charge_wallet(self, wallet: str) -> None:
        """Count what a wallet has signed."""
        self._wallets.charge(wallet, self._clock())
