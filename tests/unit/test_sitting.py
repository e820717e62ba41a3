"""A person who ranks at a service that cheats, breaks off or answers nonsense: what is kept, told and signed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account
from rich.console import Console

from chain.canonical import text_hash
from chain.messages import Domain, Handout, Ranking, Receipt, checksum, parse_address, sign
from chain.receipts import Kept, Unread, read_promises
from service import client
from service.cli import sitting
from service.client import Api, ApiError, BrokenPromiseError

DOMAIN = Domain(1, parse_address("0x" + "11" * 20))
ME, OPERATOR = Account.from_key("0x" + "01" * 32), Account.from_key("0x" + "02" * 32)
MINE, SIGNER = parse_address(ME.address), parse_address(OPERATOR.address)
TASK = "0x" + "ab" * 32
LEAST = 10**18
EVIL = "[link=http://evil]9[/]"


class Service:
    """Answers as a service does, but for what a test has it say."""

    url = "http://service"

    def __init__(self) -> None:
        self.says: dict[str, Any] = {}
        """Fields of a hand-out that are signed in its promise or merely said, over the honest ones."""
        self.promises: dict[str, Any] = {}
        """The same of a receipt."""
        self.rows: list[Any] = []
        self.staked: tuple[Any, int] = (5 * LEAST, 0)
        self.refusals: list[ApiError] = []
        """What rankings are answered before one is taken."""
        self.asked: list[Any] = []
        """The bodies of the rankings that came."""

    def domain(self) -> Domain:
        return DOMAIN

    def get(self, path: str) -> Any:
        if path == "/terms":
            return {"terms": "be kind"}
        if path == "/info":
            rules = {"stake_least": str(LEAST)}
            return {
                "epoch": 0, "now": 100, "genesis": 0, "epoch_length": 1000, "rules": rules,
                "receipt_signer": checksum(SIGNER),
            }  # fmt: skip
        staked, final = self.staked
        return {"staked": str(staked), "staked_final": str(final)}

    def every(self, _path: str, **_: Any) -> Iterator[Any]:
        yield from self.rows

    def request(self, _method: str, path: str, *, body: Any = None, **_: Any) -> Any:
        if path == "/v1/tasks/next":
            return self.hand_out()
        return self.take(body) if path == "/v1/rankings" else {"token": "x"}

    def hand_out(self) -> Any:
        fields = {"epoch": 0, "task": TASK, "number": 0, "at": 90} | self.says
        promise = Handout(MINE, fields["epoch"], fields["task"], fields["number"], fields["at"])
        said = {"prompt": "p", "method": "pairwise", "shown": ["x", "y"], "expires_at": 500, "skips_left": 3}
        return said | {"signature": sign(promise, DOMAIN, OPERATOR)} | fields

    def take(self, body: Any) -> Any:
        self.asked.append(body)
        if self.refusals:
            raise self.refusals.pop(0)
        digest = Ranking.parse(body["ranking"]).digest(DOMAIN)
        said = {"digest": digest, "epoch": 0, "position": 0, "received_at": 100} | self.promises
        receipt = Receipt(said["digest"], said["epoch"], said["position"], said["received_at"])
        return said | {"signature": sign(receipt, DOMAIN, OPERATOR), "notice": ""}


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what is told to the person."""
    found = io.StringIO()
    monkeypatch.setattr(sitting, "out", Console(file=found, width=1000))
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let waits take no time, and return the time."""
    now = [0.0]
    for module in (sitting, client):
        monkeypatch.setattr(module.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(sitting.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def sat(service: Any, tmp_path: Path, told: io.StringIO, clock: list[float]) -> sitting.Sitting:
    """Return a person who has signed in for epoch 0."""
    assert (told.getvalue(), clock) == ("", [0.0])
    found = sitting.Sitting(service, ME, tmp_path / "receipts.jsonl")
    found._sign_in()
    return found


def _kept(sat: sitting.Sitting) -> list[Kept | Unread]:
    return list(read_promises(sat.receipts.read_text().split("\n")))


def _row(**changes: Any) -> dict[str, Any]:
    said = Ranking(
        wallet=MINE, epoch=0, task=TASK, method="pairwise", summary="B > A", shown=(text_hash("x"), text_hash("y")),
        ranks=(2, 1), likert=(), flag="", comment_hash=text_hash("mine"), revision=0, signed_at=1,
    )  # fmt: skip
    return {
        "ranking": said.to_json(),
        "shown": ["x", "y"],
        "prompt": "p",
        "comment": "mine",
        "position": 7,
    } | changes


@pytest.mark.parametrize(
    "says",
    [
        {"epoch": 7}, {"number": True}, {"at": True}, {"number": 2**60}, {"task": TASK.upper().replace("X", "x")},
        {"method": "evil"}, {"method": ["pairwise"]}, {"shown": ["a"] * 5}, {"shown": []}, {"shown": "xy"},
        {"shown": [1, 2]}, {"prompt": None}, {"expires_at": "soon"}, {"expires_at": 10**30}, {"skips_left": EVIL},
        {"signature": 5}, {"signature": "0x" + "00" * 65},
    ],
)  # fmt: skip
def test_a_hand_out_that_is_none_is_refused_kept_as_evidence_and_spoils_nothing(
    sat: sitting.Sitting, service: Service, says: dict[str, Any]
) -> None:
    assert sat._next_task() is not None
    service.says = says
    with pytest.raises(BrokenPromiseError, match="the service's hand-out was refused"):
        sat._next_task()
    good, refused = _kept(sat)
    assert isinstance(good, Kept)
    assert isinstance(refused, Unread)
    assert "keeps an answer that was refused" in refused.fault


@pytest.mark.parametrize(
    "promises",
    [{"epoch": 999}, {"digest": TASK}, {"position": True}, {"position": 2**60}, {"received_at": False}],
)
def test_a_receipt_that_is_none_is_kept_as_evidence_and_the_ranking_is_not_called_unsent(
    sat: sitting.Sitting, service: Service, told: io.StringIO, promises: dict[str, Any]
) -> None:
    task = sat._next_task()
    assert task is not None
    service.promises = promises
    assert sat._send(task, "A > B # why")
    _, refused = _kept(sat)
    assert isinstance(refused, Unread)
    assert "keeps an answer that was refused: the service's receipt is not for what was sent" in refused.fault
    assert "sent, and not promised:" in told.getvalue()
    assert "not sent" not in told.getvalue()
    assert sat.done == 0


@pytest.mark.parametrize("torn", ['{"handout": {"wal', '{"handout": {"wal\n'])
def test_a_promise_behind_a_torn_line_can_be_read(sat: sitting.Sitting, torn: str) -> None:
    sat.receipts.write_text(torn)
    sat._next_task()
    spoiled, good = _kept(sat)
    before = sat.receipts.read_bytes()
    sat._next_task()
    assert sat.receipts.read_bytes() == before
    assert isinstance(spoiled, Unread)
    assert isinstance(good, Kept)


@pytest.mark.parametrize("status", [0, 200, 500, 503])
def test_what_is_lost_on_the_way_is_sent_again_as_it_was_signed(
    sat: sitting.Sitting, service: Service, told: io.StringIO, status: int
) -> None:
    task = sat._next_task()
    assert task is not None
    service.refusals = [ApiError("lost", status), ApiError("lost", status)]
    assert sat._send(task, "A > B")
    assert [body == service.asked[0] for body in service.asked] == [True] * 3
    assert [type(k) for k in _kept(sat)] == [Kept, Kept]
    assert "recorded as number 0" in told.getvalue()


def test_a_ranking_of_which_nothing_is_known_is_perhaps_recorded(
    sat: sitting.Sitting, service: Service, told: io.StringIO
) -> None:
    task = sat._next_task()
    assert task is not None
    # The last is of what was sent again: it does not say that the first was refused.
    service.refusals = [ApiError("lost"), ApiError("lost"), ApiError("lost"), ApiError("too many", 429)]
    assert not sat._send(task, "A > B")
    assert "perhaps recorded: too many" in told.getvalue()
    assert "not sent" not in told.getvalue()


def test_a_refusal_is_not_sent_again(sat: sitting.Sitting, service: Service, told: io.StringIO) -> None:
    task = sat._next_task()
    assert task is not None
    service.refusals = [ApiError("no such form", 422), ApiError("the ranking is for epoch 0", 409)]
    assert not sat._send(task, "A > B")
    assert sat._send(task, "A > B")
    assert len(service.asked) == 2
    assert "not sent: no such form" in told.getvalue()
    assert "not sent: the ranking is for epoch 0" in told.getvalue()


def test_who_ranks_again_what_was_recorded_is_told_how_to_correct_it(
    sat: sitting.Sitting, service: Service, told: io.StringIO
) -> None:
    task = sat._next_task()
    assert task is not None
    service.rows = [_row()]
    service.refusals = [ApiError("revision 0 is already recorded", 409)]
    assert sat._send(task, "A > B")
    assert "an earlier one is recorded as number 7: B > A # mine" in told.getvalue()
    assert "c corrects it" in told.getvalue()
    assert "not sent" not in told.getvalue()


def test_reasons_given_by_turns_are_waited_for_no_longer_than_each(
    sat: sitting.Sitting, service: Service, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter(range(5000))

    def refuse() -> Any:
        raise ApiError("not now", (403, 409)[next(turns) % 2])

    monkeypatch.setattr(service, "hand_out", refuse)
    with pytest.raises(ApiError, match="not now"):
        sat._next_task()
    assert clock[0] <= sitting.OPENING_S + 3


@pytest.mark.parametrize(
    ("staked", "waited"),
    [((LEAST - 1, 0), False), ((LEAST, LEAST - 1), True), ((LEAST + 1, LEAST), False), (("soon", 0), False)],
)
def test_stake_is_waited_for_only_where_it_will_be_enough(
    sat: sitting.Sitting, service: Service, clock: list[float], monkeypatch: pytest.MonkeyPatch,
    staked: tuple[Any, int], waited: object,
) -> None:  # fmt: skip
    def refuse() -> Any:
        raise ApiError("stake first", 403)

    service.staked = staked
    monkeypatch.setattr(service, "hand_out", refuse)
    with pytest.raises(ApiError, match="stake first"):
        sat._next_task()
    assert (clock[0] > 0) == waited


@pytest.mark.parametrize(
    "changes",
    [
        {"comment": "I was paid to say so"}, {"comment": None}, {"comment": "\ud800"}, {"position": EVIL},
        {"shown": None}, {"ranking": None}, {"ranking": _row()["ranking"] | {"epoch": 1}},
        {"ranking": _row()["ranking"] | {"method": "evil"}},
    ],
)  # fmt: skip
def test_what_a_service_says_in_the_persons_name_is_not_corrected(
    sat: sitting.Sitting, service: Service, changes: dict[str, Any]
) -> None:
    service.rows = [_row()]
    assert [one.comment for one in sat.me.recorded(0)] == ["mine"]
    service.rows = [_row(**changes)]
    with pytest.raises(ApiError, match="reads back what"):
        list(sat.me.recorded(0))


@pytest.mark.parametrize("row", [5, None, "row", {}])
def test_a_row_that_is_none_is_said_so(sat: sitting.Sitting, service: Service, row: Any) -> None:
    service.rows = [row]
    with pytest.raises(ApiError, match="reads back what"):
        list(sat.me.recorded(0))


def test_what_is_read_back_falls_and_so_ends(sat: sitting.Sitting, service: Service) -> None:
    service.rows = [_row(position=7), _row(position=6), _row(position=6)]
    with pytest.raises(ApiError, match="reads back what"):
        list(sat.me.recorded(0))
    service.rows.pop()
    assert [one.position for one in sat.me.recorded(0)] == [7, 6]


@pytest.mark.parametrize("answer", [{"skips_left": EVIL}, {"skips_left": True}, {}, []])
def test_how_many_may_still_be_skipped_is_a_number(
    sat: sitting.Sitting, service: Service, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    task = sat._next_task()
    assert task is not None
    monkeypatch.setattr(service, "request", lambda *_, **__: answer)
    with pytest.raises(ApiError, match="the service's skips_left is"):
        sat.me.skip(task, "other")


@pytest.mark.parametrize("page", [[], {}, {"epoch": 1, "rankings": []}])
def test_a_list_without_rows_does_not_go_on(page: Any) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        link = {} if len(asked) > 9 else {"Link": f'<?cursor=c{len(asked)}>; rel="next"'}
        return httpx.Response(200, json=page, headers=link)

    api = Api("http://service")
    api._http = httpx.Client(base_url=api.url, transport=httpx.MockTransport(answer))
    with pytest.raises(ApiError, match="gives an empty page of /rankings"):
        list(api.pages("/rankings"))
    assert len(asked) == 1


@pytest.mark.parametrize("page", [{}, 5, "rows", True])
def test_what_is_no_list_is_said_so(page: Any) -> None:
    api = Api("http://service")
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=page))
    api._http = httpx.Client(base_url=api.url, transport=transport)
    with pytest.raises(ApiError, match="answers no list at /runs"):
        list(api.every("/runs"))
