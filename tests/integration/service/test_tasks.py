"""Who is handed which task, for how long, and that nobody learns more from it than a blind judge may."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from chain.board import Arrival, Board, in_order, replay
from chain.canonical import text_hash
from chain.contracts import Contract
from chain.errors import VerifyError
from chain.feedback import Task
from chain.handout import STAKE_AFTER_S
from chain.keys import address_of
from chain.messages import Handout, Ranking, recover
from chain.rules import METHODS, Rules
from chain.transactions import transact
from chain.types import Address, Hash32
from service import jobs
from service.answers import ApiError
from service.arena import methods_for, task_of
from service.client import Contributor
from service.devnet import COIN
from service.epochs import open_epoch
from service.handouts import handout_entry, next_task
from service.ledger import queries
from service.redaction import Redaction
from service.routes import contributor

OVERLAP = 2
RULES = Rules(
    methods=("ranking",),
    overlap=OVERLAP,
    overlap_min=OVERLAP,
    overlap_max=OVERLAP,
    lease_s=50,
    skips_free=1,
    judged_per_skip=2,
)


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a service whose tasks are wanted twice and kept for 50 seconds; each test has an epoch of its own."""
    with network(tmp_path_factory.mktemp("net"), RULES) as made:
        yield made


@pytest.fixture
def epoch(net: Any) -> int:
    return int(net.new_epoch())


def _judge_all(net: Any, who: Any, right: Any) -> list[str]:
    """Let somebody judge all that it is handed, and return the tasks."""
    tasks = []
    while (task := who.next_task()) is not None:
        tasks.append(task.task)
        who.send(who.ranking(task, right(task), now=net.now()))
    return tasks


def _people(net: Any, epoch: int, count: int) -> list[Any]:
    return [net.person(stake=1, epoch=epoch) for _ in range(count)]


def test_the_same_task_is_handed_out_until_it_is_judged(net: Any, epoch: int, right: Any) -> None:
    net.open(epoch, net.plans(epoch, 5))
    (who,) = _people(net, epoch, 1)
    first = who.next_task()
    with net.nothing_written():
        assert who.next_task() == first
    who.send(who.ranking(first, right(first), now=net.now()))
    assert who.next_task().task != first.task


def test_nobody_gets_a_task_twice_and_no_task_is_judged_more_than_wanted(
    net: Any, epoch: int, right: Any
) -> None:
    net.open(epoch, net.plans(epoch, 6))
    people = _people(net, epoch, 4)
    got = [_judge_all(net, who, right) for who in people]
    assert all(len(set(tasks)) == len(tasks) for tasks in got)
    assert set(Counter(t for tasks in got for t in tasks).values()) == {OVERLAP}
    net.refused(404, "enough judgements", method="GET", path="/v1/tasks/next", token=people[0]._token)


def test_a_task_in_somebodys_hands_is_free_again_when_its_lease_is_over(
    net: Any, epoch: int, right: Any
) -> None:
    net.open(epoch, net.plans(epoch, 1))
    *holders, late = _people(net, epoch, OVERLAP + 1)
    task, *_ = [who.next_task() for who in holders]
    assert late.next_task() is None
    net.go_to(task.expires_at - 1)
    assert late.next_task() is None
    net.go_to(task.expires_at)
    given = late.next_task()
    assert given.task == task.task
    ranking = holders[0].ranking(task, right(task), now=net.now())
    net.refused_ranking(410, str(task.expires_at), "ask for another", ranking=ranking, by=holders[0].signer)
    late.send(late.ranking(given, right(given), now=net.now()))


def test_who_let_a_lease_run_out_may_be_handed_the_task_again(net: Any, epoch: int, right: Any) -> None:
    net.open(epoch, net.plans(epoch, 1))
    (who,) = _people(net, epoch, 1)
    task = who.next_task()
    net.go_to(task.expires_at)
    again = who.next_task()
    assert (again.task, again.shown) == (task.task, task.shown)
    assert who.send(who.ranking(again, right(again), now=net.now()))["position"] == 0


def test_a_judged_task_can_be_revised_after_its_lease(net: Any, epoch: int, right: Any) -> None:
    net.open(epoch, net.plans(epoch, 1))
    (who,) = _people(net, epoch, 1)
    task = who.next_task()
    who.send(who.ranking(task, right(task), now=net.now()))
    net.go_to(task.expires_at + 1)
    assert who.send(who.ranking(task, [1] * 4, now=net.now(), revision=1))["position"] == 1


def test_a_task_for_certain_wallets_goes_to_each_of_them_and_to_nobody_else(
    net: Any, epoch: int, right: Any
) -> None:
    *chosen, stranger = _people(net, epoch, OVERLAP + 2)
    net.open(epoch, net.plans(epoch, 1, assignees=[c.address for c in chosen]))
    assert stranger.next_task() is None
    assert all(len(_judge_all(net, who, right)) == 1 for who in chosen)


def test_nobody_is_handed_an_own_prompt(net: Any, epoch: int, right: Any) -> None:
    author, other = _people(net, epoch, 2)
    net.open(epoch, net.plans(epoch, 1, author=author.address))
    assert author.next_task() is None
    assert len(_judge_all(net, other, right)) == 1


def test_a_skipped_task_never_comes_again_and_another_may_judge_it(net: Any, epoch: int, right: Any) -> None:
    net.open(epoch, net.plans(epoch, 4))
    (who,) = _people(net, epoch, 1)
    task = who.next_task()
    assert task.skips_left == 1
    assert who.skip(task, "unclear") == 0
    with net.nothing_written():
        assert who.skip(task, "unclear") == 0
    ranking = who.ranking(task, right(task), now=net.now())
    net.refused_ranking(422, "was skipped", ranking=ranking, by=who.signer)
    assert task.task not in _judge_all(net, who, right)
    net.go_to(task.expires_at + 1)
    assert who.next_task() is None
    assert task.task in _judge_all(net, *_people(net, epoch, 1), right)
    known = net.api.get(f"/epochs/{epoch}")
    assert (known["skips"], known["handouts"], known["judgements"]) == (1, 8, 7)


def test_skips_have_a_budget_that_judged_tasks_raise(net: Any, epoch: int, right: Any) -> None:
    net.open(epoch, net.plans(epoch, 6))
    (who,) = _people(net, epoch, 1)
    who.skip(who.next_task(), "offensive")
    for left in (0, 0):
        task = who.next_task()
        assert task.skips_left == left
        path = f"/v1/tasks/{task.task}/skip"
        net.refused(
            409, "no skip is left", method="POST", path=path, body={"reason": "other"}, token=who._token
        )
        who.send(who.ranking(task, right(task), now=net.now()))
    assert who.skip(who.next_task(), "other") == 0


def test_only_what_one_holds_can_be_skipped_and_for_a_reason_that_there_is(
    net: Any, epoch: int, right: Any
) -> None:
    net.open(epoch, net.plans(epoch, 3))
    who, other = _people(net, epoch, 2)
    task = who.next_task()
    asked = {"method": "POST", "path": f"/v1/tasks/{task.task}/skip"}
    net.refused(422, "was not handed to", **asked, body={"reason": "other"}, token=other._token)
    net.refused(400, "reason 'dull' is not one of", **asked, body={"reason": "dull"}, token=who._token)
    net.refused(400, **asked, body={"reason": "other", "more": 1}, token=who._token)
    net.refused(401, **asked, body={"reason": "other"})
    late = who.next_task()
    who.send(who.ranking(late, right(late), now=net.now()))
    net.refused(409, "a judged task can be revised", **asked, body={"reason": "other"}, token=who._token)
    held = who.next_task()
    net.go_to(held.expires_at)
    path = f"/v1/tasks/{held.task}/skip"
    net.refused(410, "was yours until", method="POST", path=path, body={"reason": "other"}, token=who._token)


def test_a_hand_out_is_promised_with_the_key_that_signs_receipts(net: Any, epoch: int) -> None:
    net.open(epoch, net.plans(epoch, 2))
    (who,) = _people(net, epoch, 1)
    found = [net.ask("GET", "/v1/tasks/next", token=who._token).json() for _ in range(2)]
    assert found[0] == found[1]
    f = found[0]
    shown = tuple(map(text_hash, f["shown"]))
    promise = Handout(who.address, epoch, f["task"], text_hash(f["prompt"]), shown, f["number"], f["at"])
    assert recover(promise.digest(net.ctx.domain), found[0]["signature"]) == address_of(net.ctx.desk.receipts)
    who.receipt_signer = who.address
    with pytest.raises(ApiError, match="did not sign this hand-out"):
        who.next_task()


def test_which_tasks_are_gold_changes_nothing_of_what_is_handed_out(net: Any, epoch: int, right: Any) -> None:
    """What is asked of the rule, the tallies and the API's answers: nothing of them knows gold."""
    net.open(epoch, net.plans(epoch, 6, gold=3))
    (who,) = _people(net, epoch, 1)
    seen = []
    for _ in range(6):
        answer = net.ask("GET", "/v1/tasks/next", token=who._token).json()
        seen.append(answer)
        task = who.next_task()
        who.send(who.ranking(task, right(task), now=net.now()))
    with net.ctx.db.read() as db:
        gold = {t.task for t in queries.tasks(db, epoch) if t.gold_ranks}
        plain = Board(
            {t.hash(): t for t in map(task_of, queries.tasks(db, epoch))},
            net.rules,
            net.ctx.place.seed(epoch),
        )
        log = [handout_entry(h) for h in queries.handouts(db, epoch)]
        arrivals = [
            Arrival(r.position, Ranking.parse(r.message), r.received_at) for r in queries.rankings(db, epoch)
        ]
    replay(plain, in_order(log, [], arrivals))
    shapes = {
        a["task"] in gold: {(k, type(v), len(v) if isinstance(v, list) else 0) for k, v in a.items()}
        for a in seen
    }
    assert shapes[True] == shapes[False]


def _named(shown: Any, salt: str, wallets: Sequence[Address]) -> dict[Hash32, str]:
    """Return who is the author of each task that looks like this one, by hash."""
    choices = [c for n in range(len(METHODS)) for c in combinations(METHODS, n + 1)]
    fits = [c for c in choices if set(c) <= set(methods_for(len(shown.shown), METHODS))]
    people = [(a, some) for a in ("", *wallets) for some in ((), *((w,) for w in wallets))]
    return {
        Task.of(shown.prompt, shown.shown, methods, author, some, salt).hash(): author
        for methods in fits for author, some in people
    }  # fmt: skip


def test_nobody_can_try_by_its_hash_whom_a_task_names_before_the_close(
    net: Any, epoch: int, right: Any
) -> None:
    """Gold names nobody: where the prompts of all other tasks have authors, who can tell that finds gold."""
    author, me = _people(net, epoch, 2)
    plans = net.plans(epoch, 6, gold=3)
    plain = [replace(p, task=replace(p.task, author=author.address)) for p in plans[3:]]
    net.open(epoch, plans[:3] + plain)
    wallets, shown = (author.address, me.address), []
    while (task := me.next_task()) is not None:
        shown.append(task)
        assert task.task not in _named(task, "", wallets)
        me.send(me.ranking(task, right(task), now=net.now()))
    with net.ctx.db.read() as db:
        rows = {t.task: t for t in queries.tasks(db, epoch)}
    assert {task.task for task in shown} == {task_of(row).hash() for row in rows.values()}
    net.new_epoch()
    lines = map(json.loads, net.ctx.place.bundle_path(epoch).read_text().splitlines())
    salts = {x["task"]: x["salt"] for x in lines if x["kind"] == "task"}
    found = {t.task: _named(t, salts[t.task], wallets)[t.task] for t in shown}
    assert found == {name: "" if row.gold_ranks else author.address for name, row in rows.items()}


def test_what_is_asked_again_has_another_name(net: Any, epoch: int) -> None:
    plans = net.plans(epoch, 3)
    net.open(epoch, plans)
    later = net.new_epoch()
    net.open(later, plans)
    with net.ctx.db.read() as db:
        before, after = ({t.prompt: t.task for t in queries.tasks(db, e)} for e in (epoch, later))
    assert before.keys() == after.keys()
    assert set(before.values()).isdisjoint(after.values())


def test_how_many_were_redacted_is_public_at_once_and_how_much_gold_was_wrong_at_the_close(
    net: Any, epoch: int, right: Any
) -> None:
    wrong, *plans = net.plans(epoch, 20, gold=3)
    note = Redaction(wrong.task.responses[0], "I am GPT-4", 1)
    lie = replace(wrong, gold_ranks=tuple(5 - r for r in wrong.gold_ranks), redacted=(note,))
    net.open(epoch, [lie, *plans])
    for who in _people(net, epoch, OVERLAP):
        assert len(_judge_all(net, who, right)) == 20
    known = net.api.get(f"/epochs/{epoch}")
    assert (known["redacted"], known["retired_gold"]) == (1, 0)
    net.new_epoch()
    known = net.api.get(f"/epochs/{epoch}")
    assert (known["redacted"], known["retired_gold"]) == (1, 1)
    with net.ctx.db.read() as db:
        (row,) = [t for t in queries.tasks(db, epoch) if t.retired]
    assert (row.prompt, row.redacted) == (wrong.task.prompt, [note.note()])


def test_an_epoch_that_is_not_open_yet_hands_out_nothing_and_says_so(net: Any, epoch: int) -> None:
    (who,) = _people(net, epoch, 1)
    net.refused(409, f"epoch {epoch} is not open yet", method="GET", path="/v1/tasks/next", token=who._token)


def test_what_belongs_to_an_earlier_epoch_is_refused(net: Any, epoch: int, right: Any) -> None:
    net.open(epoch, net.plans(epoch, 1))
    (who,) = _people(net, epoch, 1)
    task = who.next_task()
    old = who.ranking(task, right(task), now=net.now())
    after = net.new_epoch()
    net.refused_ranking(409, f"epoch {epoch}", f"running one is {after}", ranking=old, by=who.wallet)
    said = (f"epoch {epoch} and has ended", f"sign one for epoch {after}")
    net.refused(401, *said, method="GET", path="/v1/tasks/next", token=who._token)
    renamed = replace(old, epoch=after)
    net.refused_ranking(409, f"epoch {after} is not open", ranking=renamed, by=who.wallet)
    net.open(after, net.plans(after, 1))
    net.refused_ranking(404, task.task, f"epoch {after}", ranking=renamed, by=who.wallet)


def test_places_in_the_log_have_no_gap_under_eight_threads(net: Any, epoch: int, right: Any) -> None:
    net.open(epoch, net.plans(epoch, 12))
    people = _people(net, epoch, 8)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda who: _judge_all(net, who, right), people))
    assert set(Counter(t for tasks in got for t in tasks).values()) == {OVERLAP}
    with net.ctx.db.read() as db:
        assert [r.position for r in queries.rankings(db, epoch)] == list(range(12 * OVERLAP))


def test_one_wallet_that_asks_from_eight_threads_is_handed_one_task(net: Any, epoch: int) -> None:
    net.open(epoch, net.plans(epoch, 12))
    (who,) = _people(net, epoch, 1)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: who.next_task().task, range(8)))) == 1


def test_the_order_on_the_screen_is_not_the_same_for_everybody(net: Any, epoch: int) -> None:
    people = _people(net, epoch, 8)
    net.open(epoch, net.plans(epoch, 1, assignees=[p.address for p in people]))
    orders = [who.next_task().shown for who in people]
    assert len({tuple(sorted(o)) for o in orders}) == 1
    assert len(set(orders)) > 1


def test_nothing_that_anybody_can_get_tells_a_secret_before_the_close(
    net: Any, epoch: int, right: Any
) -> None:
    net.open(epoch, net.plans(epoch, 4, gold=2, models=("secret-old", "secret-new")))
    me, other = _people(net, epoch, 2)
    _judge_all(net, other, right)
    task = me.next_task()
    me.send(me.ranking(task, right(task), now=net.now()))
    with net.ctx.db.read() as db:
        theirs = queries.rankings_of(db, other.address, epoch)
        salts = [s for t in queries.tasks(db, epoch) for s in (t.salt, t.gold_salt) if s]
    secrets = [
        net.ctx.place.seed(epoch).hex(),
        net.ctx.settings.secret.get_secret_value(),
        "secret-old",
        "secret-new",
    ]
    secrets += [
        x.removeprefix("0x") for r in theirs for x in (r.signature, r.digest, r.receipt, other.address)
    ]
    secrets += [s.removeprefix("0x") for s in salts] + ["gold_ranks", "origins", '"salt', '"label']
    assert theirs
    assert len(salts) == 4 + 2
    found = "\n".join(_everything(net, epoch, me)).lower()
    assert task.task in found
    assert [s for s in secrets if s.lower() in found] == []
    net.new_epoch()
    revealed = "\n".join(_everything(net, epoch, me)).lower()
    assert [
        s for s in [secrets[0], "secret-new", *salts] if s.lower().removeprefix("0x") not in revealed
    ] == []


def test_while_an_epoch_runs_only_counts_and_who_ranked_how_many_are_public(
    net: Any, epoch: int, right: Any
) -> None:
    """Every GET route, as nobody and as a wallet that holds one task: no ranking, no other task's text."""
    net.open(epoch, net.plans(epoch, 5))
    judge, holder = _people(net, epoch, 2)
    _judge_all(net, judge, right)
    held = holder.next_task()
    with net.ctx.db.read() as db:
        tasks, rankings = list(queries.tasks(db, epoch)), list(queries.rankings(db, epoch))
        assert len(rankings) == 5
    others = [t for t in tasks if t.task != held.task]
    hidden = [x for t in others for x in (t.prompt, *t.responses, t.task)]
    hidden += [r.message["summary"] for r in rankings]
    found = "\n".join(_everything(net, epoch, holder))
    assert held.prompt in found
    assert [x for x in hidden if x in found] == []
    without = "\n".join(net.ask("GET", p).text for p in _paths(net, epoch, judge))
    assert [x for t in tasks for x in (t.prompt, *t.responses, t.task) if x in without] == []


def _paths(net: Any, epoch: int, who: Any) -> list[str]:
    paths = net.ask("GET", "/openapi.json").json()["paths"]
    none = "0x" + 64 * "0"
    values = {
        "epoch": epoch, "wallet": who.address, "data_hash": none, "digest": none, "kind": "rankings", "form": "jsonl",
    }  # fmt: skip
    # The events never end; that they tell counts alone has a test of its own.
    return [p.format(**values) for p, methods in paths.items() if "get" in methods and p != "/v1/events"]


def _everything(net: Any, epoch: int, who: Any) -> Iterator[str]:
    """Yield what each GET route of the API document answers, for the wallet and without one."""
    for path in _paths(net, epoch, who):
        yield from (net.ask("GET", path, token=t).text for t in (who._token, ""))


def test_a_wallet_without_the_least_stake_is_handed_nothing_and_told_what_it_takes(
    net: Any, epoch: int
) -> None:
    net.open(epoch, net.plans(epoch, 4))
    asks = {"method": "GET", "path": "/v1/tasks/next"}
    free, little = net.person(stake=0, epoch=epoch), net.person(stake=0, epoch=epoch)
    net.refused(403, "stake first", "has 0 wei", "from 1000000000000000000 wei", token=free._token, **asks)
    net.stake(net.site.owner, little.address, COIN - 1)
    net.refused(403, "has 999999999999999999 wei staked", "`haptic stake`", token=little._token, **asks)
    net.stake(net.site.owner, little.address, 1)
    assert little.next_task() is not None


def test_stake_counts_once_it_is_final_and_as_long_as_it_is_there(net: Any, epoch: int, right: Any) -> None:
    net.open(epoch, net.plans(epoch, 4))
    (who,) = _people(net, epoch, 1)
    task = who.next_task()
    net.unstake(who)
    # What it holds it is given again, and may still judge: it had stake when it was handed that.
    again = who.next_task()
    assert (again.task, again.promise) == (task.task, task.promise)
    who.send(who.ranking(task, right(task), now=net.now()))
    net.refused(403, "stake first", method="GET", path="/v1/tasks/next", token=who._token)
    vault = net.ctx.deployment.stake_vault()
    transact(net.rpc, who.wallet, vault, "cancelUnstake", COIN)
    net.refused(403, "the last final one", method="GET", path="/v1/tasks/next", token=who._token)
    net.go_to(net.now())
    assert who.next_task() is not None


def test_who_holds_no_task_any_more_once_it_is_its_turn_is_handed_none_unasked_for_stake(
    net: Any, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked twice at once, a wallet that unstaked could have judged what it held in between."""
    net.open(epoch, net.plans(epoch, 4))
    (who,) = _people(net, epoch, 1)
    task = who.next_task()
    net.unstake(who)
    held = contributor._held

    def late(ctx: Any, wallet: Any, now: int) -> int | None:
        found = held(ctx, wallet, now)
        who.skip(task, "unclear")
        return found

    monkeypatch.setattr(contributor, "_held", late)
    answer = net.ask("GET", "/v1/tasks/next", token=who._token)
    assert answer.status_code == 409, answer.text
    assert "judged or skipped meanwhile" in answer.text
    with net.ctx.db.read() as db:
        assert [h.number for h in queries.handouts(db, epoch)] == [0]


def test_stake_of_a_block_long_after_one_asked_hands_nothing_out(
    net: Any, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch whose log holds a hand-out before its stake could not be closed."""
    net.open(epoch, net.plans(epoch, 4))
    (who,) = _people(net, epoch, 1)
    net.go_to(net.now() + 200)
    final = net.rpc.block("finalized").timestamp
    for slow, status in ((STAKE_AFTER_S + 1, 503), (STAKE_AFTER_S, 200)):
        monkeypatch.setattr(net.ctx.clock, "now", lambda slow=slow: final - slow)
        answer = net.ask("GET", "/v1/tasks/next", token=who._token)
        assert answer.status_code == status, answer.text


def test_an_epoch_in_which_a_wallet_without_stake_was_handed_a_task_is_not_closed(
    network: Any, tmp_path: Any
) -> None:
    with network(tmp_path, Rules(methods=("ranking",))) as net:
        net.go_to(net.start(0) + 1)
        net.open(0, net.plans(0, 3))
        who = net.person(stake=0)
        with net.ctx.db.write() as db:
            row, seed = queries.epoch_row(db, 0, lock=True), net.ctx.place.seed(0)
            next_task(db, seed, net.rules, row, who.address, net.now())
            db.commit()
        net.go_to(net.start(1) + 1)
        jobs.step_index(net.ctx)
        with pytest.raises(
            VerifyError, match=f"hand-out 0 of {who.address} at .* its stake was 0 wei, expected"
        ):
            jobs.close_epoch(net.ctx, 0)


def test_who_is_told_to_stake_makes_nobody_wait(net: Any, epoch: int) -> None:
    """Wallets that cost nothing are as many as anybody likes."""
    net.open(epoch, net.plans(epoch, 4))
    free = net.person(stake=0, epoch=epoch)
    with net.ctx.db.write() as db:
        queries.epoch_row(db, epoch, lock=True)
        net.refused(403, "stake first", method="GET", path="/v1/tasks/next", token=free._token)


def test_stake_that_a_reorg_takes_back_does_not_keep_an_epoch_from_being_closed(
    network: Any, tmp_path: Any
) -> None:
    with network(tmp_path, Rules(methods=("ranking",))) as net:
        net.go_to(net.start(0) + 1)
        net.open(0, net.plans(0, 3))
        late = Contributor(net.api, net.site.wallet("late", staking=COIN), net.ctx.domain)
        late.log_in(epoch=0, now=net.now())
        token, vault = Contract("HapticToken", net.ctx.deployment.token), net.ctx.deployment.stake_vault()
        transact(net.rpc, late.wallet, token, "approve", vault.address, COIN)
        transact(net.rpc, late.wallet, vault, "stake", COIN)
        net.refused(403, "the last final one", method="GET", path="/v1/tasks/next", token=late._token)
        net.rpc.request("anvil_reorg", 1, [])
        assert net.view(vault, "stakedOf", late.address) == 0
        net.go_to(net.start(1) + 1)
        jobs.step_index(net.ctx)
        assert jobs.close_epoch(net.ctx, 0) is not None


def test_no_task_is_handed_out_before_the_chain_knows_what_the_epoch_was_opened_with(
    net: Any, epoch: int
) -> None:
    with net.ctx.db.write() as db:
        open_epoch(db, net.ctx.place, epoch, net.plans(epoch, 3), net.rules, net.now())
        db.commit()
    (who,) = _people(net, epoch, 1)
    with pytest.raises(ApiError, match="is not open yet"):
        who.next_task()
    assert net.api.get(f"/epochs/{epoch}")["state"] == "opening"
    jobs.step_commit(net.ctx)
    assert who.next_task() is not None
    assert net.api.get(f"/epochs/{epoch}")["state"] == "open"
