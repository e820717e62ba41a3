"""What a contributor sees of a closed epoch: what came of each ranking, what that earned, and where it stands by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from chain.canonical import text_hash
from chain.feedback import Task, dense_ranks
from chain.rules import Rules
from service.arena import Plan
from service.leaderboard import LEAST, interval
from service.ledger import queries, results
from service.terminal import show_score
from tests.integration.conftest import _database
from tests.integration.service.conftest import quality
from tests.integration.service.shell import Shell

SIXTH = 6_000_000
RULES = Rules(methods=("ranking",), overlap_min=6, overlap=6, overlap_max=6)
PLACES = ("wallet", "quality", "low", "high", "comparisons", "epochs", "score")


@dataclass
class Story:
    """Two epochs: all rank in the first; in the second `idle` does not, and `few` ranks little in either."""

    net: Any
    people: dict[str, Any] = field(default_factory=dict)
    early: dict[str, Any] = field(default_factory=dict)
    """What was answered before the first close."""

    def path(self, name: str, rest: str = "") -> str:
        return f"/contributors/{self.people[name].address}{rest}"

    def line(self, name: str, epoch: int) -> dict[str, Any]:
        """Return a wallet's line of the published bundle."""
        lines = map(json.loads, self.net.ctx.place.bundle_path(epoch).read_text().splitlines())
        who = self.people[name].address
        return next(x for x in lines if x["kind"] == "wallet" and x["wallet"] == who)

    def judged(self, name: str, epoch: int, limit: int = 500) -> list[dict[str, Any]]:
        """Return what came of a wallet's judgements, page by page."""
        pages = self.net.api.pages(self.path(name, f"/epochs/{epoch}"), limit=limit)
        return [judged for page in pages for judged in page["judgements"]]


def _plans(epoch: int, count: int) -> list[Plan]:
    """Return tasks whose better answers tend to be longer; the first three are gold, the third with a wrong key."""
    luck, made = Random(epoch), []
    for n in range(count):
        texts = [f"{'long ' * (luck.randrange(3) + i)}answer {n} of {epoch}: good {i}" for i in range(4)]
        task = Task.of(f"prompt {n} of epoch {epoch}", texts, ("ranking",))
        right = dense_ranks([quality(t) for t in task.responses])
        gold = () if n > 2 else right if n < 2 else tuple(5 - r for r in right)
        made.append(Plan(task, ("model-0", "model-1") * 2, gold))
    return made


def _rank(net: Any, who: Any, luck: Random, error: float, count: int) -> None:
    """Let somebody rank; each quality is misread by chance, the fourth task in doubt is flagged, the fifth tied."""
    doubted = 0
    for n in range(count):
        task = who.next_task()
        assert task is not None
        # Of the gold with a wrong key nobody is in doubt, whenever it comes: it has to prove wrong.
        sure = task.prompt.startswith("prompt 2 ")
        marks = [
            quality(t) + (luck.randint(-2, 2) if not sure and luck.random() < error else 0)
            for t in task.shown
        ]
        doubted += not sure
        flag = "unsafe" if doubted == 4 and not sure else ""
        ranks = [1] * 4 if flag or (doubted == 5 and not sure) else dense_ranks(marks)
        if n == 5:
            who.send(who.ranking(task, [1, 2, 3, 4], now=net.now()))
        who.send(who.ranking(task, ranks, now=net.now(), flag=flag, revision=int(n == 5)))


def _tell(net: Any) -> Story:
    s, luck = Story(net), Random(7)
    net.go_to(net.start(0) + 1)
    net.open(0, _plans(0, 16))
    errors = {"ann": 0.0, "bob": 0.0, "cem": 0.1, "dee": 0.1, "idle": 0.3, "few": 0.0, "wrong": 0.0}
    s.people = {name: net.person(100) for name in errors}
    for name in ("ann", "bob", "cem", "dee", "idle"):
        _rank(net, s.people[name], luck, errors[name], 16)
    net.judge(s.people["few"], 2)
    net.judge(s.people["wrong"], 10, wrong=True)
    for what in ("/history", ""):
        s.early[what] = net.api.get(s.path("ann", what))
    s.early["board"] = net.api.get("/leaderboard")
    s.early["judged"] = net.ask("GET", "/v1" + s.path("ann", "/epochs/0"))
    assert net.new_epoch() == 1
    net.open(1, _plans(1, 12))
    for name in ("ann", "bob", "cem", "dee"):
        s.people[name].log_in(epoch=1, now=net.now())
        _rank(net, s.people[name], luck, errors[name], 12)
    s.people["few"].log_in(epoch=1, now=net.now())
    net.judge(s.people["few"], 1)
    net.new_epoch()
    return s


def _is_lucky(s: Story) -> bool:
    """Tell whether ann has proven something by each close: who meets whom on a task follows from a secret seed."""
    scores = [s.net.api.get(f"/epochs/{epoch}/scores") for epoch in (0, 1)]
    ann = s.people["ann"].address
    return all(int(x["score"]) > 0 for found in scores for x in found if x["wallet"].lower() == ann)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def story(
    network: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    for _ in range(12):
        with (
            _database(request, tmp_path_factory.mktemp("database")) as url,
            network(tmp_path_factory.mktemp("net"), RULES, database_url=url) as net,
        ):
            told = _tell(net)
            if _is_lucky(told):
                yield told
                return
    pytest.fail("in twelve stories ann, who is always right, has not proven anything")


@pytest.fixture
def net(story: Story) -> Any:
    """Return the story's network, for the command line."""
    return story.net


# -- what came of each ranking --------------------------------------------------------------------------------


def test_before_the_close_nobody_is_told_what_came_out(story: Story) -> None:
    assert story.early["judged"].status_code == 404
    assert "epoch 0 is not closed" in story.early["judged"].json()["detail"]
    assert (story.early["/history"], story.early[""]["earned"]) == ([], None)
    board = story.early["board"]
    assert (board["entries"], board["wallets"], board["first"], board["last"]) == ([], 0, None, None)


@pytest.mark.parametrize("epoch", [0, 1])
def test_what_the_judgements_earned_is_the_wallets_line_to_the_last_unit(story: Story, epoch: int) -> None:
    names = story.people if epoch == 0 else ("ann", "bob", "cem", "dee", "few")
    for name in names:
        line, judged = story.line(name, epoch), story.judged(name, epoch)
        assert sum(int(j["surplus"]) for j in judged) == int(line["deltaG"])
        assert sum(round(6 * j["comparisons"]) for j in judged) == line["comparisons"]
        assert all(int(j["surplus"]) == sum(int(p["surplus"]) for p in j["pairs"]) for j in judged)
        head = story.net.api.get(story.path(name, f"/epochs/{epoch}"), limit=1)
        assert (head["earned"], head["reliability"]) == (line["deltaG"], line["a"] / 1e6)
        assert any(head["style_bias"])


def test_pages_are_one_order_in_which_each_task_stands_once_by_its_last_ranking(story: Story) -> None:
    whole = story.judged("ann", 0)
    assert story.judged("ann", 0, limit=3) == whole
    assert [j["position"] for j in whole] == sorted(j["position"] for j in whole)
    assert len({j["task"] for j in whole}) == len(whole) == 16
    with story.net.ctx.db.read() as db:
        signed = queries.rankings_of(db, story.people["ann"].address, 0)
    last = {r.task: r for r in sorted(signed, key=lambda r: r.revision)}
    assert len(signed) == 17
    assert {j["task"]: (j["said"], j["position"]) for j in whole} == {
        task: (r.message["summary"], r.position) for task, r in last.items()
    }


def test_the_letters_are_those_under_which_the_responses_were_shown(story: Story) -> None:
    with story.net.ctx.db.read() as db:
        texts = {text_hash(t): t for task in queries.tasks(db, 0) for t in task.responses}
        shown = {
            r.position: r.message["shown"] for r in queries.rankings_of(db, story.people["ann"].address, 0)
        }
    right = 0
    for j in story.judged("ann", 0):
        good = {letter: quality(texts[h]) for letter, h in zip("ABCD", shown[j["position"]], strict=True)}
        assert j["prompt"].endswith("of epoch 0")
        for p in j["pairs"]:
            better = max(p["first"], p["second"], key=good.__getitem__)
            assert {p["first"], p["second"]} >= {p["said"], p["label"], p["gold"]} - {""}
            # She is never wrong, so what she said is what the letters must say.
            assert p["said"] in {"", better}
            right += p["label"] == better
    assert right > 80


def test_a_tie_and_a_flag_earn_nothing_and_are_held_against_nothing(story: Story) -> None:
    judged = story.judged("ann", 0)
    even = [j for j in judged if j["flag"] or ">" not in j["said"]]
    assert [j["flag"] for j in even] == ["unsafe", ""]
    for j in even:
        assert (j["surplus"], j["comparisons"]) == ("0", 0)
        assert j["pairs"]
        assert all(p["said"] == "" and p["agreed"] is None for p in j["pairs"])


def test_gold_and_gold_that_proved_wrong_are_told_apart(story: Story) -> None:
    judged = [j for name in story.people for j in story.judged(name, 0)]
    kinds = {(j["prompt"].split(" of ")[0], j["gold"], j["retired"]) for j in judged}
    with story.net.ctx.db.read() as db:
        golden = [t for t in queries.tasks(db, 0) if t.gold_ranks]
    # Whether the third, whose key is wrong, is refuted hangs on who was asked it.
    assert {(p, g, r) for p, g, r in kinds if g or r} == {
        (t.prompt.split(" of ")[0], not t.retired, t.retired) for t in golden
    }
    assert len(golden) == 3
    for j in judged:
        assert all(bool(p["gold"]) == j["gold"] for p in j["pairs"])
        for p in j["pairs"]:
            if p["said"]:
                assert p["agreed"] == (p["said"] == (p["gold"] or p["label"]))


def test_who_took_no_part_is_told_so(story: Story) -> None:
    for who, epoch, words in (
        (story.people["idle"].address, 1, "counts in epoch 1"), ("0x" + "11" * 20, 0, "counts in epoch 0"),
        ("0x" + "11" * 20, 9, "epoch 9 is not closed"),
    ):  # fmt: skip
        story.net.refused(404, words, method="GET", path=f"/v1/contributors/{who}/epochs/{epoch}")


# -- earned against proven ------------------------------------------------------------------------------------


def test_what_is_proven_is_said_in_the_numbers_of_the_last_line(story: Story) -> None:
    for name in story.people:
        found = story.net.api.get(story.path(name))
        line = story.line(name, next(story.net.api.every(story.path(name, "/epochs")))["epoch"])
        e = found["earned"]
        assert (e["earned"], e["stands"], e["proven"]) == (line["payG"], line["h"], line["payHmax"])
        assert int(e["earned"]) - int(e["chance"]) - int(e["entry"]) == int(e["stands"])
        assert int(e["held_back"]) == max(0, int(line["payG"]) - int(line["payHmax"]))
        assert (
            f"its surplus is {int(line['payG']) // 60_000 / 100:.2f}, twice its standard deviation"
            in e["words"]
        )
    ann, wrong = (story.net.api.get(story.path(n))["earned"] for n in ("ann", "wrong"))
    assert ann["words"].endswith("are proven") == (int(ann["stands"]) > 0)
    assert ann["next_payment"] > 0
    assert "nothing is proven" in wrong["words"]
    assert wrong["next_payment"] is None


def test_contribution_times_quality_times_reputation_is_the_score(story: Story) -> None:
    found = [s for epoch in (0, 1) for s in story.net.api.get(f"/epochs/{epoch}/scores")]
    # Who has proven something by either epoch is a matter of luck: who met whom on which task.
    assert any(int(s["score"]) for s in found)
    for s in found:
        product = s["comparisons"] * s["quality"] * s["reputation"] * SIXTH
        assert product == pytest.approx(int(s["score"]))
        assert 0 <= s["reputation"] <= 1


def test_the_history_is_the_wallets_lines_in_comparisons(story: Story) -> None:
    points = story.net.api.get(story.path("ann", "/history"))
    assert [p["epoch"] for p in points] == [0, 1]
    for p in points:
        line = story.line("ann", p["epoch"])
        assert p["earned"] == int(line["deltaG"]) / SIXTH
        assert (p["surplus"], p["proven"]) == (int(line["payG"]) / SIXTH, int(line["payHmax"]) / SIXTH)
        assert p["surplus"] - p["chance"] - p["entry"] == pytest.approx(p["stands"])
        assert p["quality"] * p["comparisons"] == pytest.approx(p["earned"])
        assert p["low"] < p["quality"] <= p["high"]
    assert points[0]["surplus"] + points[1]["earned"] == pytest.approx(points[1]["surplus"])
    assert story.net.api.get(story.path("ann", "/history"), limit=1) == points[:1]
    assert list(story.net.api.every(story.path("ann", "/history"), limit=1)) == points
    assert [p["epoch"] for p in story.net.api.get(story.path("idle", "/history"))] == [0]


# -- the leaderboard ------------------------------------------------------------------------------------------


def _expected(story: Story, epochs: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Return who compared enough in some epochs, from the published lines."""
    found = {}
    for name in story.people:
        took_part = [
            e["epoch"] for e in story.net.api.every(story.path(name, "/epochs")) if e["epoch"] in epochs
        ]
        lines = [story.line(name, e) for e in took_part]
        work = sum(x["comparisons"] for x in lines)
        earned, squares = (sum(int(x[n]) for x in lines) for n in ("deltaG", "deltaV"))
        quality, low, high = interval(earned / SIXTH, squares / 36_000_000, work / 6)
        row = (quality, low, high, work / 6, len(lines))
        if work >= 6 * LEAST:
            found[story.people[name].address] = dict(zip(PLACES[1:-1], row, strict=True))
    return found


def test_a_leaderboard_looks_back_over_a_few_windows_and_no_others(story: Story) -> None:
    for epochs in (3, 9, -1, 2**31, "x"):
        answer = story.net.ask("GET", f"/v1/leaderboard?epochs={epochs}")
        assert answer.status_code in {400, 422}
        assert answer.headers["content-type"] == "application/problem+json"
    story.net.refused(400, "epochs is 3", "0, 1, 2, 4, 13", method="GET", path="/v1/leaderboard?epochs=3")


@pytest.mark.parametrize(("window", "epochs"), [(0, (0, 1)), (2, (0, 1)), (13, (0, 1)), (1, (1,))])
def test_places_go_by_the_lower_bound_over_the_epochs_asked_for(
    story: Story, window: int, epochs: tuple[int, ...]
) -> None:
    board = story.net.api.get("/leaderboard", epochs=window)
    assert (board["first"], board["last"], board["least_comparisons"]) == (epochs[0], 1, LEAST)
    expected = _expected(story, epochs)
    entries = board["entries"]
    assert [e["wallet"].lower() for e in entries] == sorted(expected, key=lambda w: (-expected[w]["low"], w))
    assert [e["place"] for e in entries] == list(range(1, board["wallets"] + 1))
    scores = {s["wallet"]: s["score"] for s in story.net.api.get("/epochs/1/scores")}
    for e in entries:
        assert {n: e[n] for n in PLACES[1:-1]} == pytest.approx(expected[e["wallet"].lower()])
        assert e["score"] == scores.get(e["wallet"], "0")
    assert story.people["few"].address not in expected
    assert (story.people["idle"].address in expected) == (0 in epochs)


def test_places_come_page_by_page(story: Story) -> None:
    whole = story.net.api.get("/leaderboard")["entries"]
    assert len(whole) > 3
    pages = list(story.net.api.pages("/leaderboard", limit=2))
    assert [e for page in pages for e in page["entries"]] == whole
    assert {len(page["entries"]) for page in pages[:-1]} == {2}


def test_who_is_always_wrong_stands_last_by_quality_however_much_it_does(story: Story) -> None:
    # Of somebody who did very little so little is known that it may stand lower still.
    little = story.people["few"].address
    last = [e for e in story.net.api.get("/leaderboard")["entries"] if e["wallet"].lower() != little][-1]
    assert last["wallet"].lower() == story.people["wrong"].address
    assert last["high"] < 0


def test_by_score_the_places_are_those_of_the_last_epoch(story: Story) -> None:
    board = story.net.api.get("/leaderboard", by="score")
    scores = story.net.api.get("/epochs/1/scores")
    assert [(e["place"], e["wallet"], e["score"]) for e in board["entries"]] == [
        (s["place"], s["wallet"], s["score"]) for s in scores
    ]
    assert board["wallets"] == len(scores) == 5
    by_quality = {e["wallet"]: e for e in story.net.api.get("/leaderboard")["entries"]}
    for e in board["entries"]:
        if e["wallet"] in by_quality:
            assert e | {"place": 0} == by_quality[e["wallet"]] | {"place": 0}


def test_what_was_closed_since_is_not_on_a_leaderboard_of_the_epochs_before(story: Story) -> None:
    ann = story.people["ann"].address
    with story.net.ctx.db.read() as db:
        (until_first,) = results.merits(db, 0, 0, [ann])
        (until_last,) = results.merits(db, 0, 1, [ann])
    assert (until_first.epochs, until_last.epochs) == (1, 2)
    assert until_first.surplus == int(story.line("ann", 0)["deltaG"])


def test_an_epoch_that_is_taken_back_leaves_no_merit_and_no_label(story: Story) -> None:
    ctx = story.net.ctx
    with ctx.db.write() as db:
        before = {m.wallet: m.epochs for m in results.merits(db, 0, 1)}
        results.forget_results(db, 1)
        after = {m.wallet: m.epochs for m in results.merits(db, 0, 1)}
        ann = story.people["ann"].address
        assert (before[ann], after[ann]) == (2, 1)
        assert all(label is None for _, _, label in results.judged_page(db, 1, ann, -1, 99))
        row = queries.epoch_row(db, 1)
        assert row is not None
        assert row.style_bias is None
        db.rollback()


# -- the command ----------------------------------------------------------------------------------------------


def test_the_command_tells_what_is_proven_and_how_it_grew(story: Story, haptic: Shell) -> None:
    who = story.people["ann"].address
    said = " ".join(haptic.does("score", who).split())
    earned = story.net.api.get(story.path("ann"))["earned"]
    steadily = int(earned["proven"]) and not int(earned["missing"])
    then = "every epoch pays it" if steadily else "it is paid again after about"
    assert f"Over all epochs {earned['words']}; going on like this, {then}" in said
    history = haptic.does("score", who, "--history")
    for p in story.net.api.get(story.path("ann", "/history")):
        assert f"{p['quality']:.2f} ({p['low']:.2f} to {p['high']:.2f})" in history
        assert show_score(round(p["proven"] * 6_000_000)) in history
    assert "going on like this, it is not paid again" in " ".join(
        haptic.does("score", story.people["wrong"].address).split()
    )


def test_the_command_tells_what_came_of_each_ranking(story: Story, haptic: Shell) -> None:
    said = haptic.does("score", story.people["ann"].address, "--epoch", 0)
    judged = story.judged("ann", 0)
    assert all(j["task"][:10] in said for j in judged)
    for name, kind in (("gold", True), ("the others", False)):
        pairs = [p for j in judged for p in j["pairs"] if bool(p["gold"]) is kind and p["said"]]
        agreed = sum(p["agreed"] for p in pairs if p["agreed"] is not None)
        assert (
            f"Agreed with {name} in {agreed} of {len([p for p in pairs if p['agreed'] is not None])} pairs."
            in said
        )
    assert "(unsafe)" in said
    assert ("proved wrong" in said) == any(j["retired"] for j in judged)
    haptic.fails("score", story.people["ann"].address, "--epoch", 7, words=("epoch 7 is not closed",))
