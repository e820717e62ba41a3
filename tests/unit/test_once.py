"""What is costly is made once, and whoever waits for it leaves threads to others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import pytest

from service.errors import UnavailableError
from service.once import AT_ONCE, Once


def test_it_is_made_once_and_few_are_kept() -> None:
    once, made = Once[int, str](2), list[int]()

    def find(key: int) -> str:
        return once.find(key, lambda: made.append(key) or str(key))  # type: ignore[func-returns-value]

    assert [find(k) for k in (1, 1, 2, 2, 3, 2)] == list("112232")
    assert made == [1, 2, 3]
    assert find(1) == "1"
    assert made == [1, 2, 3, 1]


def test_few_wait_and_what_is_kept_is_had_meanwhile() -> None:
    once, begun, may_end = Once[int, str](2), threading.Event(), threading.Event()
    once.find(0, lambda: "known")

    def slow() -> str:
        begun.set()
        assert may_end.wait(10)
        return "slow"

    with ThreadPoolExecutor(2 * AT_ONCE) as pool:
        first = pool.submit(once.find, 1, slow)
        try:
            assert begun.wait(10)
            others = [pool.submit(once.find, 1 + n % 2, slow) for n in range(2 * AT_ONCE - 1)]
            # Those who are refused are done; who waits is not until it may end.
            ended = wait_for(others, timeout=1).done
            assert len(ended) == AT_ONCE
            assert all(isinstance(o.exception(), UnavailableError) for o in ended)
            assert once.find(0, slow) == "known"
        finally:
            may_end.set()
        assert first.result() == "slow"
        assert [o.exception() for o in others].count(None) == AT_ONCE - 1


def test_what_cannot_be_made_leaves_its_place() -> None:
    once = Once[int, str](1)
    for _ in range(2 * AT_ONCE):
        with pytest.raises(ZeroDivisionError):
            once.find(0, lambda: str(1 // 0))
    assert once.find(0, lambda: "at last") == "at last"
