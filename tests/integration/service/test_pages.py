"""Lists come page by page: every row once, whatever is added meanwhile, and by no cursor but the service's own."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from service.ledger import queries
from service.ledger.tables import EpochRow, JobRow, MeritRow, RankingRow, RunRow, ScoreRow, TaskRow
from tests.integration.service.conftest import RANKING_ONLY

COUNT = 7
ME = "0x" + "aa" * 20
NUMBERS = ("comparisons", "a", "stake", "w", "labelN", "labelD", "payG", "payV", "payHmax", "gold", "share")


def _epoch(n: int) -> EpochRow:
    return EpochRow(
        epoch=n, seed_hash="", gold_root="", rules_hash="", rules={}, lambda_num="1", lambda_den="1", opened_at=0,
        committed_at=0, closed_at=0,
    )  # fmt: skip


def _ranking(n: int, wallet: str) -> RankingRow:
    return RankingRow(
        epoch=n // 3, position=n, digest=f"0x{n:064x}", wallet=wallet, signer=wallet, task=f"0x{n:064x}", revision=0,
        message={"shown": []}, signature="", received_at=0, receipt="",
    )  # fmt: skip


def _task(n: int) -> TaskRow:
    """Return the task that ranking n is of."""
    lists: dict[str, Any] = {
        name: [] for name in ("responses", "methods", "origins", "assignees", "gold_ranks")
    }
    return TaskRow(epoch=n // 3, task=f"0x{n:064x}", prompt="", **lists)


def _score(epoch: int, place: int, wallet: str) -> ScoreRow:
    line: dict[str, Any] = dict.fromkeys(NUMBERS, 0) | {
        "score": "5",
        "w": "0",
        "stake": "0",
        "wallet": wallet,
        "deltaG": "0",
        "deltaV": "0",
        "payG": "0",
        "payHmax": "0",
    }
    return ScoreRow(epoch=epoch, wallet=wallet, place=place, line=line)


def _merit(epoch: int, wallet: str) -> MeritRow:
    return MeritRow(epoch=epoch, wallet=wallet, comparisons=6, delta_g=0, delta_v=0)


def _add(net: Any, *rows: Any) -> None:
    with net.ctx.db.write() as db:
        queries.add(db, *rows)
        db.commit()


@pytest.fixture(scope="module")
def full(network: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a service with more of everything than a page shows, and a wallet that is logged in."""
    with network(tmp_path_factory.mktemp("pages"), RANKING_ONLY) as net:
        net.go_to(net.start(COUNT) + 1)
        net.me = net.person(stake=1, epoch=COUNT)
        for n in range(COUNT):
            wallet = f"0x{n + 1:040x}"
            _add(
                net,
                _epoch(n),
                _task(n),
                _ranking(n, net.me.address),
                JobRow(name=f"retrain/{n}", arguments=[]),
            )
            _add(net, _score(n, 1, ME), _score(COUNT - 1, n + 2, wallet))
            _add(net, _merit(n, ME), _merit(COUNT - 1, wallet))
            _add(net, RunRow(run=n + 1, first=n, last=n, snapshot="", model=f"policy-{n}", job=n + 1))
        yield net


NEWEST = list(range(COUNT - 1, -1, -1))
LISTS: list[tuple[str, Callable[[Any], Any], list[Any]]] = [
    ("/epochs", lambda row: row["epoch"], NEWEST),
    ("/rankings", lambda row: row["position"], NEWEST),
    ("/runs", lambda row: row["run"] - 1, NEWEST),
    (f"/contributors/{ME}/epochs", lambda row: row["epoch"], NEWEST),
    (f"/epochs/{COUNT - 1}/scores", lambda row: row["place"], list(range(1, COUNT + 2))),
]


@pytest.mark.parametrize("limit", [1, 2, 3, COUNT, COUNT + 1, 500])
@pytest.mark.parametrize(("path", "key", "expected"), LISTS, ids=[path for path, *_ in LISTS])
def test_pages_of_any_size_are_the_whole_list_each_row_once(
    full: Any, path: str, key: Callable[[Any], Any], expected: list[Any], limit: int
) -> None:
    found = [key(row) for row in full.api.every(path, token=full.me._token, limit=limit)]
    assert found == expected


def _next(answer: httpx.Response) -> str | None:
    found = answer.links.get("next")
    return None if found is None else str(answer.url.join(found["url"]))


def test_work_comes_in_pages_too(full: Any) -> None:
    found, url = [], "/v1/jobs?limit=3"
    while url:
        answer = full.ask("GET", url)
        found += [work["name"] for work in answer.json()["work"]]
        url = _next(answer)
    assert found == [f"retrain/{n}" for n in NEWEST]


def test_what_is_added_between_two_pages_moves_nothing(full: Any) -> None:
    first = full.ask("GET", "/v1/rankings?limit=2", token=full.me._token)
    for n in (100, 101):
        _add(full, _task(n), _ranking(n, full.me.address))
    second = full.ask("GET", _next(first), token=full.me._token)
    assert [row["position"] for row in (*first.json(), *second.json())] == NEWEST[:4]


def test_a_leaderboard_stays_with_the_epoch_of_its_first_page(full: Any) -> None:
    first = full.ask("GET", "/v1/leaderboard?limit=2&by=score")
    _add(full, _epoch(COUNT), _score(COUNT, 1, ME), _merit(COUNT, ME))
    second = full.ask("GET", _next(first))
    assert second.json()["last"] == COUNT - 1
    assert [row["place"] for row in second.json()["entries"]] == [3, 4]
    assert full.api.get("/leaderboard", by="score")["last"] == COUNT


def test_a_leaderboard_has_no_page_of_an_epoch_that_is_not_closed(full: Any) -> None:
    """Each window is put together once and few are kept: nobody may push them out by epochs that there are not."""
    cursor = base64.urlsafe_b64encode(b"999.0").decode()
    for by in ("quality", "score"):
        full.refused(
            404, "epoch 999 is not closed", method="GET", path=f"/v1/leaderboard?by={by}&cursor={cursor}"
        )


def test_a_leaderboard_has_no_page_of_an_epoch_that_is_long_over(full: Any) -> None:
    closed = full.api.get("/leaderboard")["last"]
    for by in ("quality", "score"):
        paths = [
            f"/v1/leaderboard?by={by}&cursor={base64.urlsafe_b64encode(f'{n}.0'.encode()).decode()}"
            for n in (closed - 1, closed - 2)
        ]
        assert full.ask("GET", paths[0]).status_code == 200
        full.refused(404, f"epoch {closed - 2} is over", method="GET", path=paths[1])


def test_the_next_page_is_asked_as_the_first_was(full: Any) -> None:
    answer = full.ask("GET", "/v1/rankings?epoch=1&limit=2", token=full.me._token)
    following = _next(answer)
    assert following is not None
    assert {("epoch", "1"), ("limit", "2")} < set(httpx.URL(following).params.multi_items())
    assert [r["position"] for r in full.ask("GET", following, token=full.me._token).json()] == [3]


@pytest.mark.parametrize(
    "cursor", ["", "x", "MS4y", "LTE=", "MDE=", "NQ", "4oCm", "OTk5OTk5OTk5OTk5OTk5", "MQ==\n"]
)
def test_a_cursor_that_is_not_this_lists_is_refused(full: Any, cursor: str) -> None:
    full.refused(400, "cursor", method="GET", path="/v1/epochs", params={"cursor": cursor})
