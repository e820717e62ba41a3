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
from chain.errors import HapticError
from chain.messages import Domain, Handout, Ranking, Receipt, checksum, parse_address, sign
from chain.receipts import Kept, Unread, read_promises
from service import client
from service.answers import ApiError, BrokenPromiseError, UnsentError
from service.api import Api
from service.cli import entry, sitting

DOMAIN = Domain(1, parse_address("0x" + "11" * 20))
ME, OPERATOR = Account.from_key("0x" + "01" * 32), Account.from_key("0x" + "02" * 32)
MINE, SIGNER = parse_address(ME.address), parse_address(OPERATOR.address)
TASK = "0x" + "ab" * 32
LEAST = 10**18
EVIL = "[link=http://evil]9[/]"


class Service(Api):
    """Answers as a service does, but for what a test has it say."""

    def __init__(self) -> None:
        super().__init__("http://service")
        self.says: dict[str, Any] = {}
        """Fields of a hand-out that are signed in its promise or, as its texts, merely said, over the honest ones."""
        self.promises: dict[str, Any] = {}
        """The same of a receipt."""
        self.network: dict[str, Any] = {}
        """What is said of the network, over the honest."""
        self.token: Any = {"token": "x"}
        self.rows: list[Any] = []
        self.staked: tuple[Any, int] = (5 * LEAST, 0)
        self.refusals: list[ApiError] = []
        """What rankings are answered before one is taken."""
        self.asked: list[Any] = []
        """The bodies of the rankings that came."""
        self.logins: list[Any] = []
        """The bodies of what somebody signed to be let in."""

    def get(self, path: str, **_: Any) -> Any:
        if path == "/terms":
            return {"terms": "be kind"}
        if path == "/info":
            rules = {"stake_least": str(LEAST)}
            return {
                "chain_id": DOMAIN.chain_id, "vault": DOMAIN.vault, "epoch": 0, "now": 100, "genesis": 0,
                "epoch_length": 1000, "rules": rules, "receipt_signer": checksum(SIGNER),
            } | self.network  # fmt: skip
        staked, final = self.staked
        return {"staked": str(staked), "staked_final": str(final)}

    def every(self, _path: str, **_: Any) -> Iterator[Any]:
        yield from self.rows

    def request(self, _method: str, path: str, *, body: Any = None, **_: Any) -> Any:
        if path == "/v1/tasks/next":
            return self.hand_out()
        if path == "/v1/rankings":
            return self.take(body)
        self.logins.append(body)
        return self.token

    def hand_out(self) -> Any:
        fields = {"epoch": 0, "task": TASK, "number": 0, "at": 90} | self.says
        texts = (text_hash("p"), (text_hash("x"), text_hash("y")))
        promise = Handout(MINE, fields["epoch"], fields["task"], *texts, fields["number"], fields["at"])
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
    for module in (entry, sitting):
        monkeypatch.setattr(module, "out", Console(file=found, width=1000))
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let waits take no time, and return the time."""
    now = [0.0]
    for module in (entry, client):
        monkeypatch.setattr(module.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(entry.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def sat(service: Any, tmp_path: Path, told: io.StringIO, clock: list[float]) -> sitting.Sitting:
    """Return a person who has signed in for epoch 0."""
    assert (told.getvalue(), clock) == ("", [0.0])
    found = sitting.Sitting(service, ME, tmp_path / "receipts.jsonl")
    found.entry.sign_in()
    return found


def _kept(sat: sitting.Sitting) -> list[Kept | Unread]:
    return list(read_promises(sat.receipts.path.read_text().split("\n")))


def _row(**changes: Any) -> dict[str, Any]:
    said = Ranking(
        wallet=MINE, epoch=0, task=TASK, method="pairwise", summary="B > A", shown=(text_hash("x"), text_hash("y")),
        ranks=(2, 1), likert=(), flag="", comment_hash=text_hash("mine"), revision=0, signed_at=1,
    )  # fmt: skip
    receipt = Receipt(said.digest(DOMAIN), 0, 7, 100)
    return {
        "ranking": said.to_json(), "shown": ["x", "y"], "prompt": "p", "comment": "mine", "position": 7,
        "digest": receipt.digest_of, "received_at": 100, "receipt": sign(receipt, DOMAIN, OPERATOR),
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    "says",
    [
        {"epoch": 7}, {"number": True}, {"at": True}, {"number": 2**60}, {"task": TASK.upper().replace("X", "x")},
        {"method": "evil"}, {"method": ["pairwise"]}, {"shown": ["a"] * 5}, {"shown": []}, {"shown": "xy"},
        {"shown": [1, 2]}, {"shown": ["y", "x"]}, {"prompt": "q"}, {"prompt": None},
        {"expires_at": "soon"}, {"expires_at": 10**30}, {"skips_left": EVIL},
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
    sat.receipts.path.write_text(torn)
    sat._next_task()
    spoiled, good = _kept(sat)
    before = sat.receipts.path.read_bytes()
    sat._next_task()
    assert sat.receipts.path.read_bytes() == before
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


def test_what_was_never_sent_is_said_so_and_goes_out_later_as_it_was_signed(
    sat: sitting.Sitting, service: Service, told: io.StringIO
) -> None:
    task = sat._next_task()
    assert task is not None
    service.refusals = [UnsentError("no service answers") for _ in range(4)]
    assert not sat._send(task, "A > B # why")
    assert "not sent: no service answers" in told.getvalue()
    assert "perhaps recorded" not in told.getvalue()
    service.network = {"now": 200}
    assert sat._send(task, "A > B # why")
    assert len(service.asked) == 5
    assert [body == service.asked[0] for body in service.asked] == [True] * 5
    assert "recorded as number 0" in told.getvalue()
    assert [type(k) for k in _kept(sat)] == [Kept, Kept]


def test_a_refused_connection_after_a_lost_answer_does_not_say_that_nothing_was_sent(
    sat: sitting.Sitting, service: Service, told: io.StringIO
) -> None:
    task = sat._next_task()
    assert task is not None
    service.refusals = [ApiError("lost"), *(UnsentError("no service answers") for _ in range(3))]
    assert not sat._send(task, "A > B")
    assert "perhaps recorded: no service answers" in told.getvalue()
    assert "not sent" not in told.getvalue()


def test_what_is_typed_otherwise_is_signed_anew(sat: sitting.Sitting, service: Service) -> None:
    task = sat._next_task()
    assert task is not None
    service.refusals = [UnsentError("no service answers") for _ in range(4)]
    assert not sat._send(task, "A > B")
    assert sat._send(task, "B > A")
    assert [body["ranking"]["summary"] for body in service.asked] == ["A > B"] * 4 + ["B > A"]


def test_a_receipt_that_is_read_back_and_is_none_is_kept_as_evidence(
    sat: sitting.Sitting, service: Service, told: io.StringIO
) -> None:
    task = sat._next_task()
    assert task is not None
    service.rows = [_row(received_at=101)]
    service.refusals = [ApiError("revision 0 is already recorded", 409)]
    assert sat._send(task, "A > B")
    _, refused = _kept(sat)
    assert isinstance(refused, Unread)
    assert "keeps an answer that was refused: the service's receipt is not for what was sent" in refused.fault
    assert "sent, and not promised:" in told.getvalue()


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
    assert clock[0] <= entry.OPENING_S + 3


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


@pytest.mark.parametrize(
    "network",
    [
        {"epoch": 1}, {"epoch": False}, {"epoch": "0"}, {"genesis": "0"}, {"genesis": 1000}, {"epoch_length": 0},
        {"epoch_length": 50}, {"now": -1}, {"now": 1000}, {"now": 10**30}, {"chain_id": None}, {"vault": 5},
        {"receipt_signer": None},
    ],
)  # fmt: skip
def test_nothing_is_signed_where_a_service_says_what_is_no_network(
    sat: sitting.Sitting, service: Service, network: dict[str, Any]
) -> None:
    before = len(service.logins)
    service.network = network
    with pytest.raises(HapticError, match="the service"):
        sat.entry.sign_in()
    assert len(service.logins) == before


@pytest.mark.parametrize(
    "token", [{}, [], None, {"token": None}, {"token": 5}, {"token": "a\nb"}, {"token": ""}]
)
def test_a_login_that_brings_no_token_is_said_so(sat: sitting.Sitting, service: Service, token: Any) -> None:
    service.token = token
    with pytest.raises(ApiError, match="the service's token"):
        sat.entry.sign_in()


NONCE = {
    "domain": "service",
    "nonce": "a" * 16,
    "statement": "be kind",
    "now": 100,
    "longest": 9,
    "chain_id": 1,
}


@pytest.mark.parametrize(
    "says",
    [
        [], {}, {"domain": None}, {"nonce": "short"}, {"nonce": "a" * 16 + "\nIssued At: 1"}, {"nonce": 5},
        {"statement": None}, {"statement": "\ud800"}, {"statement": "be kind\n\nURI: http://evil"}, {"now": "soon"},
        {"now": 2**53 - 1},
    ],
)  # fmt: skip
def test_a_wallet_signs_no_login_that_is_none(
    sat: sitting.Sitting, service: Service, monkeypatch: pytest.MonkeyPatch, says: Any
) -> None:
    asked, before = NONCE | says if isinstance(says, dict) and says else says, len(service.logins)
    monkeypatch.setattr(service, "get", lambda *_, **__: asked)
    with pytest.raises(ApiError, match=r"the service's|nothing was signed"):
        sat.me.sign_in()
    assert len(service.logins) == before


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
