"""Ranking on the command line: what is shown, kept and sent, until one stops or the epoch ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from chain.canonical import text_hash
from chain.devnet import mine
from chain.messages import checksum, parse_address, recover
from chain.receipts import Kept, handout_of, read_promises
from chain.rules import Rules
from service import client, jobs
from service.answers import ApiError
from service.api import Api
from service.cli import entry, sitting
from service.devnet import COIN
from service.ledger import queries
from service.terminal import show_time
from tests.integration.service.shell import Shell, Talk, open_shell, take_wallet


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",))) as made:
        made.go_to(made.start(0) + 1)
        yield made


@pytest.fixture
def opened(net: Any) -> int:
    """Open a new epoch with tasks of four answers, and return its number."""
    epoch = int(net.new_epoch())
    net.open(epoch, net.plans(epoch, 5))
    return epoch


def _judged(net: Any, epoch: int) -> int:
    return int(net.api.get(f"/epochs/{epoch}")["judgements"])


def test_who_ranks_sees_how_far_they_are_and_until_when_the_task_is_theirs(
    haptic: Shell, net: Any, opened: int
) -> None:
    me = net.sponsor(take_wallet(haptic, net, "walker"))
    said = haptic.does("rank", typed="y\nskip\nA = B = C = D\nB > A = C > D\nq\n")
    assert "'SKIP' is not one of A, B, C, D; write for example: B > A = C > D" in said
    assert "A = B = C = D · ranked 1 so far" in said
    assert "B > A = C > D · ranked 2 so far" in said
    with net.ctx.db.read() as db:
        lease = queries.live_lease(db, opened, me, net.now())
    assert lease is not None
    until = show_time(lease.expires_at)
    assert f"This task is yours until {until}" in said
    assert f"Stopped; ranked 2 in all. The last task stays yours until {until}" in said
    assert "Ranked 1 in all." in haptic.does("rank", "--count", "1", typed="y\nbad\n")


def test_a_task_is_skipped_for_a_reason_and_the_next_is_shown(haptic: Shell, net: Any, opened: int) -> None:
    net.sponsor(take_wallet(haptic, net, "picky"))
    said = haptic.does("rank", "--count", "1", typed="y\ns\nnone\ns\nl\nA = B = C = D\n")
    assert "s to skip (3 left)" in said
    assert "Skipped; it does not come again. 2 more may be skipped" in said
    assert "s to skip (2 left)" in said
    assert "Ranked 1 in all." in said
    with net.ctx.db.read() as db:
        assert [s.reason for s in queries.skips(db, opened)] == ["not_my_language"]


def _kept(haptic: Shell, kind: str) -> list[Any]:
    """Return what the command line keeps of one kind of promise, in order."""
    file = Path(haptic.environ["HAPTIC_KEYFILE"]).with_suffix(".receipts.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [row for row in rows if kind in row]


def _recorded(net: Any, epoch: int, wallet: str) -> list[tuple[int, str, str, str]]:
    """Return revision, order, flag and comment of what a wallet sent, in the order of the log."""
    with net.ctx.db.read() as db:
        found = [(r.message, r.comment) for r in queries.rankings_of(db, wallet, epoch)][::-1]
    return [(m["revision"], m["summary"], m["flag"], comment) for m, comment in found]


def test_a_comment_is_typed_behind_the_order_and_signed_with_it(haptic: Shell, net: Any, opened: int) -> None:
    me = net.sponsor(take_wallet(haptic, net, "talker"))
    said = haptic.does("rank", typed="y\nB > A = C > D # C repeats A: why?\nbad#\nA # no\nbad # all\nq\n")
    assert "# begins a comment" in said
    assert "not sent: B, C, D is missing in 'A'" in said
    first = (0, "B > A = C > D", "", "C repeats A: why?")
    tied = "A = B = C = D"
    assert _recorded(net, opened, me) == [first, (0, tied, "all_bad", ""), (0, tied, "all_bad", "all")]
    for row in _kept(haptic, "receipt"):
        assert row["ranking"]["commentHash"] == text_hash(row["comment"])
    assert "not sent: commentHash" in haptic.does("rank", typed=f"y\nbad # {'x' * 4001}\nq\n")
    assert len(_recorded(net, opened, me)) == 3


def test_a_comment_in_another_encoding_is_refused_and_nothing_is_sent(
    haptic: Shell, net: Any, opened: int
) -> None:
    me = net.sponsor(take_wallet(haptic, net, "latin"))
    talk = Talk(haptic, "rank", environ={"LC_ALL": "C"})
    for line in ("y", "bad # caf\udce9", "q"):
        talk.type(line)
    talk.hears("not sent: the comment holds bytes that are no UTF-8", "Stopped; ranked 0")
    assert talk.ends() == 0
    assert _recorded(net, opened, me) == []


def test_what_was_sent_is_listed_and_corrected_and_the_last_word_counts(
    haptic: Shell, net: Any, opened: int
) -> None:
    me = net.sponsor(take_wallet(haptic, net, "second-thoughts"))
    haptic.does("rank", "--count", "2", typed="y\nA > B > C > D # sure\nB > A = C > D\n")
    typed = "y\n7\n0\nD > C > B > A\n1\nA >\nA = B = C = D # none\n0\nq\n2\nbad #\nq\n"
    said = haptic.does("rank", "--correct", typed=typed)
    assert "A > B > C > D # sure" in said
    assert f"7 is no number of yours in epoch {opened}" in said
    assert "You said A > B > C > D # sure." in said
    assert said.count("or the one you gave stays") == 3
    assert "answer 00" in said
    assert "recorded as number 2: D > C > B > A · in place of number 0" in said
    assert "not sent: '' is not one of A, B, C, D" in said
    assert "You said D > C > B > A # sure." in said
    assert _recorded(net, opened, me) == [
        (0, "A > B > C > D", "", "sure"), (0, "B > A = C > D", "", ""), (1, "D > C > B > A", "", "sure"),
        (1, "A = B = C = D", "", "none"), (2, "A = B = C = D", "all_bad", ""),
    ]  # fmt: skip
    receipts = _kept(haptic, "receipt")
    assert [r["receipt"]["position"] for r in receipts] == [0, 1, 2, 3, 4]
    assert [r["ranking"]["revision"] for r in receipts] == [0, 0, 1, 1, 2]


def test_a_typing_error_is_corrected_amid_ranking_and_the_task_is_shown_again(
    haptic: Shell, net: Any, opened: int
) -> None:
    me = net.sponsor(take_wallet(haptic, net, "fumbler"))
    said = haptic.does("rank", typed="y\nc\nA > B > C > D\nc\n0\nB > A > C > D\nA = B = C = D\nq\n")
    assert f"Nothing that you ranked is recorded in epoch {opened}" in said
    assert "in place of number 0" in said
    assert "Stopped; ranked 2 in all." in said
    orders = [(revision, order) for revision, order, _, _ in _recorded(net, opened, me)]
    assert orders == [(0, "A > B > C > D"), (1, "B > A > C > D"), (0, "A = B = C = D")]


def test_what_another_epoch_has_is_not_corrected(haptic: Shell, net: Any, opened: int) -> None:
    net.sponsor(take_wallet(haptic, net, "too-late"))
    haptic.does("rank", "--count", "1", typed="y\nA > B > C > D\n")
    talk = Talk(haptic, "rank", "--correct")
    talk.type("y\n0")
    talk.hears("You said A > B > C > D")
    net.go_to(net.start(opened + 1) + 1)
    talk.type("B > A > C > D")
    talk.hears(f"not sent: the ranking is for epoch {opened}", f"you are signed in for epoch {opened + 1}")
    talk.hears(f"Nothing that you ranked is recorded in epoch {opened + 1}")
    assert talk.ends() == 0


@pytest.mark.usefixtures("opened")
def test_only_the_newest_are_listed_and_older_ones_are_there_by_their_numbers(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sitting, "LISTED", 1)
    found = sitting.Sitting(net.api, net.site.wallet("many"), tmp_path / "receipts.jsonl")
    net.sponsor(found.me.address)
    found.entry.sign_in()
    net.judge(found.me, 3)
    monkeypatch.setattr(sitting, "_ask", lambda _: "0")
    chosen = found._chosen()
    assert chosen is not None
    assert chosen.position == 0
    assert "2 older ones are there by the numbers" in capsys.readouterr().out


def test_the_promise_of_a_hand_out_is_kept_once_before_the_task_is_judged(
    haptic: Shell, net: Any, opened: int
) -> None:
    me = net.sponsor(take_wallet(haptic, net, "careful"))
    signer = net.api.get("/info")["receipt_signer"]
    said = haptic.does("rank", typed="y\nq\n")
    assert f"checked as it comes: {signer} signs them" in said
    haptic.does("rank", typed="y\nA > B > C > D\nq\n")
    handed = [row["handout"] for row in _kept(haptic, "handout")]
    with net.ctx.db.read() as db:
        log = [h for h in queries.handouts(db, opened) if h.wallet == me]
    assert [(h["number"], h["task"], h["at"]) for h in handed] == [(h.number, h.task, h.at) for h in log]
    assert len(handed) == 2
    for h in handed:
        promise = handout_of(h)
        assert checksum(recover(promise.digest(net.ctx.domain), h["signature"])) == h["signer"] == signer


def test_who_reads_back_what_they_did_not_rank_is_told_so(
    net: Any, opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = net.person(epoch=opened)
    net.judge(who, 1)
    (row,) = net.api.request("GET", "/v1/rankings", token=who._token)
    (mine,) = who.recorded(opened)
    assert mine.task.shown == tuple(row["shown"])
    assert mine.task.prompt == row["prompt"]
    other = row["ranking"] | {"wallet": "0x" + "11" * 20}
    for wrong in ({"shown": row["shown"][::-1]}, {"ranking": other}):
        monkeypatch.setattr(who.api, "every", lambda *_, wrong=wrong, **__: iter([row | wrong]))
        with pytest.raises(ApiError, match="reads back what"):
            list(who.recorded(opened))


def test_a_task_is_kept_no_longer_than_its_epoch(haptic: Shell, net: Any, opened: int) -> None:
    net.sponsor(take_wallet(haptic, net, "late"))
    net.go_to(net.start(opened + 1) - 200)
    said = haptic.does("rank", typed="y\nq\n")
    assert f"stays yours until {show_time(net.start(opened + 1))}" in said


def test_an_input_that_ends_is_a_wish_to_stop_after_what_was_sent(
    haptic: Shell, net: Any, opened: int
) -> None:
    me = net.sponsor(take_wallet(haptic, net, "piped"))
    assert "nothing was signed" in haptic.does("rank", typed="")
    with net.ctx.db.read() as db:
        assert queries.sessions(db, opened, me) == []
    said = haptic("rank", typed="y\nA = B = C = D\n")
    assert (said.status, said.err) == (0, "")
    assert "Stopped; ranked 1 in all." in " ".join(said.out.split())
    assert _judged(net, opened) == 1


def test_ranking_goes_on_over_the_end_of_a_session_and_of_an_epoch(
    haptic: Shell, net: Any, opened: int
) -> None:
    net.sponsor(take_wallet(haptic, net, "night-owl"))
    talk = Talk(haptic, "rank")
    talk.type("y")
    talk.hears("q to stop")
    net.go_to(net.now() + 86_401)
    talk.type("A > B > C > D")
    talk.hears("not sent: the task was yours until", f"you are signed in for epoch {opened}", "q to stop")
    talk.type("A > B > C > D")
    talk.hears("ranked 1 so far", "q to stop")
    net.go_to(net.start(opened + 1) + 1)
    talk.type("A > B > C > D")
    talk.hears(f"not sent: the ranking is for epoch {opened}", f"you are signed in for epoch {opened + 1}")
    talk.hears("tasks are still being made")
    jobs.step_index(net.ctx)
    assert jobs.close_epoch(net.ctx, opened) is not None
    net.open(opened + 1, net.plans(opened + 1, 5))
    talk.hears(f"epoch {opened + 1} · ranking", "q to stop")
    talk.type("A = B = C = D")
    talk.hears("ranked 2 so far", "q to stop")
    assert talk.ends() == 0
    assert (_judged(net, opened), _judged(net, opened + 1)) == (1, 1)


def test_an_epoch_that_does_not_open_is_not_waited_for_without_end(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = net.new_epoch()
    monkeypatch.setattr(entry, "OPENING_S", 0.0)
    monkeypatch.setattr(entry, "POLL_S", 0.01)
    found = sitting.Sitting(net.api, net.site.wallet("patient"), tmp_path / "receipts.jsonl")
    found.entry.sign_in()
    with pytest.raises(ApiError, match=f"epoch {epoch} is not open yet"):
        found._next_task()


def test_stake_that_is_not_final_yet_is_waited_for(haptic: Shell, net: Any, opened: int) -> None:
    me = take_wallet(haptic, net, "hasty")
    net.stake(net.site.owner, parse_address(me), COIN, final=False)
    talk = Talk(haptic, "rank")
    talk.type("y")
    talk.hears("Your stake is not final yet", "waiting for that")
    mine(net.rpc, 3)
    talk.hears(f"epoch {opened} · ranking", "q to stop")
    talk.type("A = B = C = D")
    talk.hears("ranked 1 so far", "q to stop")
    assert talk.ends() == 0


def test_who_has_no_stake_is_told_to_stake_and_does_not_wait(haptic: Shell, net: Any, opened: int) -> None:
    take_wallet(haptic, net, "penniless")
    said = haptic("rank", typed="y\n")
    assert said.status == 1
    assert "stake first" in " ".join(said.err.split())
    assert _judged(net, opened) == 0


def test_what_waits_for_a_score_is_said_with_when_its_epoch_closes(
    haptic: Shell, net: Any, opened: int
) -> None:
    who = net.person(epoch=opened)
    assert f"`haptic rank` makes the first. Epoch {opened} closes in 28 h" in haptic.does(
        "score", who.address
    )
    net.judge(who, 1)
    task = who.next_task()
    for revision in (0, 1):
        who.send(who.ranking(task, [1] * 4, now=net.now(), revision=revision))
    net.go_to(net.start(opened + 1) - 179)
    said = haptic.does("score", who.address)
    assert f"Waiting for a score: 2 rankings in epoch {opened}, which closes in 3 min." in said
    net.go_to(net.start(opened + 1))
    assert f"2 rankings in epoch {opened}, which has ended" in haptic.does("score", who.address)
    net.new_epoch()
    assert "Waiting for a score" not in haptic.does("score", who.address)
    nobody = "0x" + "11" * 20
    assert "no epoch is open: look again later" in haptic.does("score", nobody)


# -- a service that is not to be believed ---------------------------------------------------------------------


class Liar(Api):
    """The service, but for what it says of the network."""

    says: Mapping[str, Any] = MappingProxyType({})

    def get(self, path: str, **params: Any) -> Any:
        found = super().get(path, **params)
        return found | dict(self.says) if path == "/info" else found


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("what", ["epoch", "genesis", "length", "vault", "chain"])
def test_a_wallet_signs_for_no_epoch_but_the_one_that_the_chain_says(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(entry, "TURN_S", 0.0)
    d, info = net.ctx.deployment, net.api.info()
    now, epoch, genesis, length = info.now, info.epoch, info.genesis, info.epoch_length
    # All fit themselves, so that only the chain shows that they are wrong.
    says, words = {
        "epoch": ({"now": now + length, "epoch": epoch + 1}, ("the running epoch", epoch + 1, epoch)),
        "genesis": ({"genesis": genesis - 1}, ("genesis", genesis - 1, genesis)),
        "length": (
            {"epoch_length": length + 1, "epoch": (now - genesis) // (length + 1)}, ("the length", length + 1, length),
        ),
        "vault": ({"vault": d.distributor}, ("the StakeVault", d.distributor, d.vault)),
        "chain": ({"chain_id": 1}, ("the chain's id", 1, d.chain_id)),
    }[what]  # fmt: skip
    account = net.site.wallet(f"believer-{what}")
    with Liar(net.api.url) as api:
        found = sitting.Sitting(api, account, tmp_path / "kept.jsonl", (net.rpc, d))
        api.says = says
        with net.nothing_written(), pytest.raises(ApiError, match="so nothing was signed") as caught:
            found.entry.sign_in()
        api.says = {}
        assert found.entry.sign_in() == epoch
    assert all(str(word) in str(caught.value) for word in words)


def test_with_a_node_the_contracts_that_are_signed_for_are_the_chains(net: Any, tmp_path: Path) -> None:
    d = net.ctx.deployment
    with Liar(net.api.url) as api:
        api.says = {"vault": d.distributor, "chain_id": 1}
        found = sitting.Sitting(api, net.site.wallet("chained"), tmp_path / "kept.jsonl", (net.rpc, d))
    assert found.me.domain == net.ctx.domain


class Lossy(Api):
    """The service, but every answer to a ranking is lost on the way until it is `mended`."""

    mended = False

    def request(self, method: str, path: str, **options: Any) -> Any:
        found = super().request(method, path, **options)
        if path == "/v1/rankings" and method == "POST" and not self.mended:
            raise ApiError("the answer was lost")
        return found


@pytest.mark.parametrize("again", ["A > B > C > D", "D > C > B > A"])
def test_the_first_receipt_is_had_although_its_answer_was_lost(
    net: Any, opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    again: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(client, "RESENT_AFTER_S", (0, 0))
    with Lossy(net.api.url) as api:
        account = net.site.wallet(f"unlucky-{again[0]}")
        found = sitting.Sitting(api, account, tmp_path / "kept.jsonl", (net.rpc, net.ctx.deployment))
        net.sponsor(found.me.address)
        found.entry.sign_in()
        task = found._next_task()
        assert task is not None
        assert not found._send(task, "A > B > C > D")
        api.mended = True
        for typed in (again, "D > C > B > A"):
            assert found._send(task, typed)
        ((order, digest),) = [(r.ranking.summary, r.receipt["digest"]) for r in found.me.recorded(opened)]
    handed, kept, *more = read_promises(found.receipts.path.read_text().split("\n"))
    assert isinstance(handed, Kept)
    assert isinstance(kept, Kept)
    assert kept.ranking is not None
    assert kept.ranking.summary == order == "A > B > C > D"
    assert kept.ranking.digest(net.ctx.domain) == digest
    assert found.me.receipt_signer == recover(kept.promise.digest(net.ctx.domain), kept.signature)
    assert more == []
    said = capsys.readouterr().out
    assert "perhaps recorded" in said
    assert ("✓ recorded as number 0" in said) == (again == "A > B > C > D")


# -- before anything has happened ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def young(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a service before genesis."""
    with network(tmp_path_factory.mktemp("young"), Rules(methods=("ranking",))) as made:
        yield made


def test_where_nothing_is_posted_verify_says_so_and_is_neither_ok_nor_failed(
    forker: subprocess.Popen[str], young: Any, tmp_path: Path
) -> None:
    haptic = open_shell(forker, young, tmp_path)
    for arguments in ((), ("--epoch", "0")):
        said = haptic("verify", *arguments)
        assert (said.status, said.err) == (2, "")
        assert "Nothing to verify yet: no epoch has been posted. Epoch 0 ends in 29 h" in said.out
        assert "verify:" not in said.out
    assert "2 when nothing was checked" in haptic.does("verify", "--help")


def test_before_epoch_0_nobody_signs_in_and_is_told_when_it_begins(
    forker: subprocess.Popen[str], young: Any, tmp_path: Path
) -> None:
    haptic = open_shell(forker, young, tmp_path)
    take_wallet(haptic, young, "early")
    haptic.fails("rank", typed="y\n", words=("epoch 0 begins in", "min"))
