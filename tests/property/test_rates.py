"""Laws of the rate limits: no more than a window's requests at once, as many again in each window, bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rates import WINDOW_NS, WINDOW_S, Buckets, Limits, Quota, RateError
from service.settings import Settings

QUOTAS = st.integers(1, 50)
PAUSES = st.lists(st.integers(0, 2 * WINDOW_NS), min_size=1, max_size=150)


def _passes(buckets: Buckets, key: str, now: int) -> bool:
    try:
        buckets.spend(key, now)
    except RateError:
        return False
    return True


@given(QUOTAS, PAUSES)
def test_no_stretch_of_time_lets_through_more_than_its_share_and_one_window_more(
    quota: int, pauses: list[int]
) -> None:
    buckets, now, passed = Buckets(Quota("q", quota)), 0, []
    for pause in pauses:
        now += pause // 10
        if _passes(buckets, "a", now):
            passed.append(now)
    for i, first in enumerate(passed):
        for j, last in enumerate(passed[i:], start=1):
            assert (j - quota) * (WINDOW_NS // quota) <= last - first


@given(QUOTAS, st.integers(0, 10**18))
def test_a_rested_key_has_a_whole_window_of_requests_and_not_one_more(quota: int, now: int) -> None:
    buckets = Buckets(Quota("q", quota))
    assert [buckets.spend("a", now) for _ in range(quota)] == list(range(quota - 1, -1, -1))
    assert not _passes(buckets, "a", now)
    assert _passes(buckets, "b", now)


@given(QUOTAS, PAUSES)
def test_who_comes_again_when_it_was_told_is_let_in_and_not_before(quota: int, pauses: list[int]) -> None:
    buckets, now = Buckets(Quota("q", quota)), 0
    for pause in pauses:
        now += pause // 100
        try:
            buckets.spend("a", now)
        except RateError as refused:
            error = refused
        else:
            continue
        wait = int(error.headers["Retry-After"])
        assert error.headers["RateLimit"] == f'"q";r=0;t={wait}'
        assert error.headers["RateLimit-Policy"] == f'"q";q={quota};w={WINDOW_S}'
        buckets.check("a", now + wait * 10**9)
        with pytest.raises(RateError):
            buckets.check("a", now)


@given(QUOTAS, PAUSES)
def test_what_is_forgotten_was_full(quota: int, pauses: list[int]) -> None:
    """A key among others has what it would have alone, though generations come and go with those others."""
    alone, crowd, now = Buckets(Quota("q", quota)), Buckets(Quota("q", quota)), 0
    for n, pause in enumerate(pauses):
        now += pause // 3
        crowd.spend(f"other {n}", now)
        assert _passes(alone, "a", now) == _passes(crowd, "a", now)


def test_a_million_addresses_leave_no_more_than_two_generations() -> None:
    buckets = Buckets(Quota("q", 10), kept=1000)
    most = 0
    for n in range(1_000_000):
        buckets.spend(str(n), 1000 * n)
        if n % 1000 == 0:
            most = max(most, len(buckets))
    assert most <= 2000
    buckets.spend("late", 3 * WINDOW_NS)
    assert len(buckets) == 1


def test_naming_a_wallet_takes_nothing_from_it_and_what_it_signed_counts_even_over_its_quota() -> None:
    now = [0]
    limits = Limits(Settings(rate_wallet=2), lambda: now[0])
    for _ in range(10):
        limits.check_wallet("w")
    for _ in range(3):
        limits.charge_wallet("w")
    with pytest.raises(RateError, match="by this wallet"):
        limits.check_wallet("w")
    limits.check_wallet("x")
    now[0] = WINDOW_NS
    limits.wallet("w")


def test_what_costs_more_has_a_tighter_quota_beside_the_common_one() -> None:
    limits = Limits(Settings(rate_address=5, rate_login=1, rate_exports=2), lambda: 0)
    assert limits.arrive("a", "POST", "/v1/login") == (Quota("login", 1), 0)
    with pytest.raises(RateError, match="'login'"):
        limits.arrive("a", "POST", "/v1/sessions")
    for path in ("/v1/epochs/0/bundle", "/v1/bundles/0x11"):
        limits.arrive("a", "GET", path)
    for path in ("/v1/proofs/0x1", "/v1/epochs/0/exports/rankings.jsonl", "/v1/epochs/0/rankings/0x1/proof"):
        with pytest.raises(RateError, match=r"'exports'|'address'"):
            limits.arrive("a", "GET", path)
    with pytest.raises(RateError, match="'address'"):
        limits.arrive("a", "GET", "/v1/info")
    limits.arrive("b", "POST", "/v1/login")


def test_a_quota_of_zero_is_no_limit_and_keeps_nothing() -> None:
    buckets = Buckets(Quota("q", 0))
    for _ in range(10):
        buckets.spend("a", 0)
        buckets.charge("a", 0)
        buckets.check("a", 0)
    assert len(buckets) == 0
