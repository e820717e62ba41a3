"""The whole loop over three epochs: opened by the arena, judged, slept through, closed, posted, paid, verified."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chain.canonical import hash_of
from chain.contracts import Contract
from chain.rules import Rules
from chain.transactions import transact
from chain.tree import SumTree
from chain.verify import bundle_source, verify
from service import jobs, training
from service.answers import Proof
from service.client import Contributor
from service.ledger import queries, results
from service.once import Once
from service.worker import Worker

TRAINER = (sys.executable, str(Path(__file__).with_name("small_trainer.py")))
DOLLAR = 10**6
NO_SUCH_RUN = 2**64 - 1
FUNDED = {0: 1000 * DOLLAR + 1, 1: 500 * DOLLAR, NO_SUCH_RUN: 7}


@dataclass
class Story:
    """What happened, and what was said of it."""

    net: Any
    people: dict[str, Contributor] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    again: list[tuple[str, str]] = field(default_factory=list)
    """(step, table) that a second run of a step changed."""
    locked: list[str] = field(default_factory=list)
    """What the node was asked while the database's write lock was held."""
    before_close: dict[str, Any] = field(default_factory=dict)

    def step(self, name: str) -> str:
        """Run a step of the clock twice and note what the second run changed."""
        said = jobs.STEPS[name](self.net.ctx)
        rows = self.net.rows()
        jobs.STEPS[name](self.net.ctx)
        self.again += [(name, t) for t, now in self.net.rows().items() if now != rows[t]]
        self.said.append(f"{name}: {said}")
        return said

    def work(self) -> None:
        """Run every job that waits for a worker."""
        worker = Worker(self.net.ctx.db, self.net.ctx.settings.folder("logs"), 1, command=TRAINER)
        while worker.run_one():
            pass

    def open(self) -> None:
        self.step("arena")
        self.work()
        self.step("arena")
        self.step("commit")

    def pay(self) -> None:
        """Index, close and post what has ended, wait out the window, activate."""
        for wait in (0, 0, 0, 601):
            if wait:
                self.net.go_to(self.net.now() + wait)
            self.step("index")
            self.step("commit")
            self.step("payout")


@contextmanager
def _watched(story: Story) -> Iterator[None]:
    """Look at the database's locks whenever the node is asked something."""
    transport, url = story.net.ctx.rpc._nodes.nodes[0].transport, story.net.ctx.settings.database
    ask, held = transport.results, _sqlite_lock if url.startswith("sqlite") else _postgresql_locks
    with held(url) as is_locked:

        def results(calls: Any, retries: int) -> Any:
            if is_locked():
                story.locked += [method for method, _ in calls]
            return ask(calls, retries)

        transport.results = results
        yield
        transport.results = ask


@contextmanager
def _sqlite_lock(url: str) -> Iterator[Callable[[], bool]]:
    def is_locked() -> bool:
        probe = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
        try:
            probe.execute("BEGIN IMMEDIATE")
            probe.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
        finally:
            probe.close()
        return False

    yield is_locked


@contextmanager
def _postgresql_locks(url: str) -> Iterator[Callable[[], bool]]:
    """Yield the way to tell whether any session holds what others wait for: a row, a name, a transaction's end."""
    held = (
        "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = current_database() "
        "AND backend_type = 'client backend' "  # the server's own vacuum locks too, a minute after its start
        "AND (locktype IN ('transactionid', 'advisory') OR mode IN ('RowShareLock', 'RowExclusiveLock'))"
    )
    with psycopg.connect(url, autocommit=True) as probe:
        yield lambda: probe.execute(held).fetchone() is not None


@pytest.fixture(scope="module")
def story(network: Any, module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder, options = (
        tmp_path_factory.mktemp("net"),
        {"tasks_per_epoch": 24, "retrain_after": 20, "gate_epochs": 1},
    )
    with network(
        folder, Rules(methods=("ranking",), overlap_min=5), database_url=module_url, **options
    ) as net:
        s = Story(net)
        with _watched(s):
            _play(s)
        yield s


@contextmanager
def _lagging() -> Iterator[None]:
    """Hand out tasks by the stake of a while ago, as a node that lags tells it: it may be two hours old."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.routes.contributor._check_stake", lambda *_: None)
        yield


def _play(s: Story) -> None:
    net = s.net
    s.step("arena")
    poor = net.person(1, epoch=None)
    net.unstake(poor)
    net.go_to(net.start(0) + 1)
    s.step("arena")
    with net.ctx.db.write() as db:
        training.ask_bootstrap(db, net.ctx.settings)
        db.commit()
    s.work()
    s.open()
    s.people = {n: net.person(40 + 10 * i) for i, n in enumerate(("ann", "bob", "cem", "dee"))}
    s.people |= {"poor": poor, "wrong": net.person(100)}
    poor.log_in(epoch=0, now=net.now())
    for name, who in s.people.items():
        with _lagging() if name == "poor" else nullcontext():
            net.judge(who, 20, wrong=name == "wrong")
    net.fund(0, FUNDED[0])
    net.fund(NO_SUCH_RUN, FUNDED[NO_SUCH_RUN])
    s.before_close = {p: net.api.get(p) for p in ("/epochs/0", "/leaderboard", "/epochs/0/scores", "/models")}
    net.go_to(net.start(1) + 1)
    s.pay()
    s.step("retrain")
    s.work()
    net.fund(1, FUNDED[1])
    # Nobody opens epoch 1: the service sleeps.
    net.go_to(net.start(2) + 1)
    s.pay()
    s.open()
    for name in ("ann", "bob", "cem"):
        who = s.people[name]
        who.log_in(epoch=2, now=net.now())
        net.judge(who, 12)
    net.go_to(net.start(3) + 1)
    s.pay()


def test_a_step_that_runs_twice_changes_nothing_the_second_time(story: Story) -> None:
    assert story.again == []


def test_the_database_is_never_locked_while_the_chain_is_asked(story: Story) -> None:
    assert story.locked == []


def test_the_clock_says_what_it_does_and_waits_for(story: Story) -> None:
    said = "\n".join(story.said)
    for words in (
        "epoch 0 is open on the chain", "epoch 0 is closed on the chain", "waits until its close is on the chain",
        "before genesis", "waiting for the first model", "waiting for the models' answers",
        "epoch 0 opened with 24 tasks", "epoch 0 is posted", "challenge window ends", "epoch 0 is active",
        "run 1 queued: epochs 0 to 0", "epoch 1 is active", "epoch 2 opened with 24 tasks", "epoch 2 is active",
    ):  # fmt: skip
        assert words in said, said


def test_before_the_close_only_counts_are_public(story: Story) -> None:
    epoch = story.before_close["/epochs/0"]
    assert (epoch["state"], epoch["tasks"], epoch["judgements"], epoch["root"]) == ("open", 24, 120, None)
    assert story.before_close["/epochs/0/scores"] == []
    assert story.before_close["/leaderboard"]["entries"] == []
    assert story.before_close["/models"] == []


def test_a_stranger_verifies_all_of_it_from_the_bundles(story: Story) -> None:
    net = story.net
    folder = bundle_source(str(net.ctx.place.bundles))
    found = verify(net.rpc, net.ctx.deployment, folder)
    assert [(e.epoch, e.rankings, e.active) for e in found] == [(0, 120, True), (1, 0, True), (2, 36, True)]
    assert verify(net.rpc, net.ctx.deployment, bundle_source(net.api.url)) == found


def test_an_epoch_that_the_service_slept_through_is_empty_and_closed(story: Story) -> None:
    epoch = story.net.api.get("/epochs/1")
    assert (epoch["state"], epoch["tasks"], epoch["judgements"]) == ("active", 0, 0)


def test_who_was_right_and_staked_is_paid_and_nobody_else(story: Story) -> None:
    scores = {s["wallet"].lower(): int(s["score"]) for s in story.net.api.get("/epochs/0/scores")}
    paid = {n for n, who in story.people.items() if scores[who.address]}
    assert paid == {"ann", "bob", "cem", "dee"}


def test_the_scores_stand_from_the_highest_to_the_lowest(story: Story) -> None:
    every = story.net.api.get("/epochs/0/scores")
    assert every == sorted(every, key=lambda s: (-int(s["score"]), s["wallet"].lower()))
    assert len({s["score"] for s in every}) < len(every)
    assert [s["place"] for s in every] == list(range(1, len(every) + 1))
    assert list(story.net.api.every("/epochs/0/scores", limit=2)) == every


def test_a_run_is_paid_by_the_scores_of_the_epochs_that_it_learned_from(story: Story) -> None:
    with story.net.ctx.db.read() as db:
        shares = [s for w in story.people.values() for s in results.shares_of(db, w.address)]
    zero = {s.wallet: int(s.amount) for s in shares if (s.run, s.epoch) == (0, 0)}
    one = {s.wallet: int(s.amount) for s in shares if s.run == 1}
    assert set(zero) == set(one)
    assert (sum(zero.values()), sum(one.values())) == (FUNDED[0], FUNDED[1])
    assert sorted(zero, key=zero.__getitem__) == sorted(one, key=one.__getitem__)


def test_every_unit_is_allotted_or_carried(story: Story) -> None:
    with story.net.ctx.db.read() as db:
        allotted = sum(results.cumulative(db, 2).values())
        carried = results.carried(db, 2)
    assert carried == {NO_SUCH_RUN: FUNDED[NO_SUCH_RUN]}
    assert allotted + sum(carried.values()) == sum(FUNDED.values())


def test_a_claim_by_the_services_proof_pays_exactly_what_it_says(story: Story) -> None:
    net, who = story.net, story.people["ann"]
    dollar = Contract("DevnetDollar", net.ctx.deployment.payment_token)
    before = net.api.get(f"/contributors/{who.address}")
    proof = Proof.parse(net.api.get(f"/proofs/{who.address}"))
    assert before["claimable"] == before["allotted"] == str(proof.cumulative)
    distributor = net.ctx.deployment.revenue_distributor()
    held = net.view(dollar, "balanceOf", who.address)
    transact(
        net.rpc, who.wallet, distributor, "claim", who.address, proof.cumulative, proof.index, proof.path
    )
    assert net.view(dollar, "balanceOf", who.address) == held + proof.cumulative
    after = net.api.get(f"/contributors/{who.address}")
    assert (after["claimable"], after["claimed"]) == ("0", str(proof.cumulative))


def test_the_tree_of_the_active_root_is_built_once_for_all_proofs(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, built = story.net, []
    build = SumTree.build
    monkeypatch.setattr(SumTree, "build", lambda leaves: built.append(len(leaves)) or build(leaves))
    monkeypatch.setattr(net.ctx.trees, "_made", Once(1))
    proofs = [net.api.get(f"/proofs/{story.people[n].address}") for n in ("ann", "bob", "ann")]
    assert (proofs[0]["root"], proofs[0]["epoch"]) == (net.api.get("/epochs/2")["root"], 2)
    assert proofs[0] == proofs[2] != proofs[1]
    assert built == [4]


def test_a_wallet_without_a_payout_has_no_proof_and_is_told_so(story: Story) -> None:
    who = story.people["wrong"]
    story.net.refused(404, "no payout under an active root", method="GET", path=f"/v1/proofs/{who.address}")


def _epochs_of(story: Story, name: str) -> list[dict[str, Any]]:
    return list(story.net.api.every(f"/contributors/{story.people[name].address}/epochs"))


def test_a_contributor_is_shown_with_every_epoch_it_took_part_in(story: Story) -> None:
    found = story.net.api.get(f"/contributors/{story.people['ann'].address}")
    assert [e["epoch"] for e in _epochs_of(story, "ann")] == [2, 0]
    assert int(found["staked"]) == 40 * 10**18
    nobody = story.net.api.get("/contributors/0x" + "11" * 20)
    assert (nobody["allotted"], nobody["claimable"]) == ("0", "0")
    assert story.net.api.get("/contributors/0x" + "11" * 20 + "/epochs") == []


def test_a_wallet_without_stake_scores_nothing_though_it_was_right(story: Story) -> None:
    (epoch,) = _epochs_of(story, "poor")
    assert (epoch["score"], epoch["stake"]) == ("0", "0")
    assert int(epoch["proven"]) > 0
    assert epoch["reason"].startswith("no stake stood behind it over the epoch")


def test_who_scored_nothing_is_told_why_and_who_scored_is_not(story: Story) -> None:
    for epoch in (0, 2):
        for found in story.net.api.get(f"/epochs/{epoch}/scores"):
            assert bool(found["reason"]) == (found["score"] == "0"), found
    (wrong,) = _epochs_of(story, "wrong")
    assert "not proven yet" in wrong["reason"]
    assert "no more than a coin does" in wrong["reason"]


def test_the_leaderboard_by_score_is_that_of_the_last_closed_epoch(story: Story) -> None:
    board = story.net.api.get("/leaderboard", by="score")
    scores = [(s["wallet"], s["score"]) for s in story.net.api.get("/epochs/2/scores")]
    assert [(e["wallet"], e["score"]) for e in board["entries"]] == scores
    assert board["last"] == 2
    assert len(story.net.api.get("/leaderboard", limit=1)["entries"]) == 1


def test_who_is_always_wrong_stands_last_and_who_did_nothing_lately_is_not_on_a_late_leaderboard(
    story: Story,
) -> None:
    names = {who.address: name for name, who in story.people.items()}
    whole, late = (story.net.api.get("/leaderboard", epochs=n)["entries"] for n in (0, 2))
    assert names[whole[-1]["wallet"].lower()] == "wrong"
    assert {names[e["wallet"].lower()] for e in late} <= {"ann", "bob", "cem"}
    assert all(e["epochs"] == 1 for e in late)


def test_the_models_are_rated_by_what_people_said_of_them(story: Story) -> None:
    found = {m["model"]: m for m in story.net.api.get("/models")}
    assert set(found) == {"sft-0", "policy-1"}
    assert all(m["low"] < m["rating"] < m["high"] for m in found.values())
    assert found["sft-0"]["wins"] == found["policy-1"]["losses"]
    assert sum(m["wins"] for m in found.values()) > 0


def test_a_run_is_shown_with_its_data_and_its_results(story: Story) -> None:
    (run,) = story.net.api.get("/runs")
    assert (run["run"], run["first_epoch"], run["last_epoch"]) == (1, 0, 0)
    assert (run["model"], run["state"], run["attempts"], run["error"]) == ("policy-1", "done", 1, "")
    assert run["metrics"] == {"accuracy": 0.75}
    assert run["progress"]["metrics"] == {"loss": 0.5}
    assert (run["gate"]["decision"], run["gate"]["needed"]) == ("rolled back", 200)


def test_the_next_bundle_declares_the_run_with_the_hash_of_its_file(story: Story) -> None:
    lines = story.net.ask("GET", "/v1/epochs/1/bundle").text.splitlines()
    (run,) = [x for x in map(json.loads, lines) if x["kind"] == "run"]
    (shown,) = story.net.api.get("/runs")
    assert (int(run["run"]), run["first"], run["last"], run["snapshot"]) == (1, 0, 0, shown["snapshot"])


def test_the_jobs_are_listed_with_what_became_of_them(story: Story) -> None:
    work = {j["name"]: j["state"] for j in story.net.api.get("/jobs")["work"]}
    answered = {"answer/0/sft-0", "answer/2/sft-0", "answer/2/policy-1"}
    assert work == dict.fromkeys(answered | {"bootstrap", "retrain/1"}, "done")


def test_prompts_that_were_never_asked_come_first(story: Story) -> None:
    with story.net.ctx.db.read() as db:
        first, second = ({t.prompt for t in queries.tasks(db, e)} for e in (0, 2))
    assert first.isdisjoint(second)


def test_what_the_epoch_committed_to_is_what_the_bundle_reveals(story: Story) -> None:
    from chain.assignment import seed_commitment

    epoch = story.net.api.get("/epochs/0")
    head = json.loads(story.net.ask("GET", "/v1/epochs/0/bundle").text.splitlines()[0])
    assert seed_commitment(bytes.fromhex(head["seed"][2:])) == epoch["seed_hash"]
    assert (head["goldRoot"], head["rulesHash"]) == (epoch["gold_root"], epoch["rules_hash"])


def test_a_bundle_has_an_address_by_its_hash_at_which_it_never_changes(story: Story) -> None:
    epoch = story.net.api.get("/epochs/0")
    by_hash = story.net.ask("GET", f"/v1/bundles/{epoch['data_hash']}")
    assert by_hash.content == story.net.ask("GET", "/v1/epochs/0/bundle").content
    assert hash_of(by_hash.content) == epoch["data_hash"]
    assert "immutable" in by_hash.headers["cache-control"]
    assert by_hash.headers["etag"] == f'"{epoch["data_hash"]}"'
    nothing = "0x" + 64 * "0"
    story.net.refused(404, nothing, "was published here", method="GET", path=f"/v1/bundles/{nothing}")
    for wrong in ("0x12", "..%2fepoch-0", nothing.upper()):
        assert story.net.ask("GET", f"/v1/bundles/{wrong}").status_code in {400, 404}


def test_the_information_is_that_of_the_chain(story: Story) -> None:
    net = story.net
    info = net.api.get("/info")
    assert (info["chain_id"], info["now"], info["epoch"]) == (31337, net.now(), 3)
    assert info["vault"].lower() == net.ctx.deployment.vault
    assert (info["token_symbol"], info["token_decimals"]) == ("HPT", 18)
    assert (info["payment_symbol"], info["payment_decimals"]) == ("DUSD", 6)


def test_a_closed_epoch_is_not_closed_again(story: Story) -> None:
    from service.errors import ConflictError

    with story.net.nothing_written(), pytest.raises(ConflictError, match="epoch 0 is closed already"):
        jobs.close_epoch(story.net.ctx, 0)


@pytest.mark.parametrize("epoch", [-1, 2**31, 10**30])
def test_an_epoch_that_cannot_be_is_refused(story: Story, epoch: int) -> None:
    for path in ("", "/bundle", "/scores"):
        story.net.refused(400, "epoch", method="GET", path=f"/v1/epochs/{epoch}{path}")


def test_an_epoch_that_was_not_opened_is_not_found(story: Story) -> None:
    story.net.refused(404, "epoch 9 was not opened", method="GET", path="/v1/epochs/9")
    story.net.refused(404, "epoch 9 is not closed", method="GET", path="/v1/epochs/9/bundle")


def test_every_get_route_of_the_document_answers(story: Story) -> None:
    paths = story.net.ask("GET", "/openapi.json").json()["paths"]
    assert len(paths) > 12
    who = story.people["ann"]
    who.log_in(epoch=3, now=story.net.now())
    with story.net.ctx.db.read() as db:
        digest = queries.ledger_entries(db, 0)[0][0]
    data_hash = story.net.api.get("/epochs/0")["data_hash"]
    known = {
        "epoch": 0, "wallet": who.address, "digest": digest, "data_hash": data_hash,
        "kind": "preference", "form": "jsonl",
    }  # fmt: skip
    for path, methods in paths.items():
        # The events never end; they have tests of their own.
        if "get" in methods and path not in {"/v1/tasks/next", "/v1/events"}:
            answer = story.net.ask("GET", path.format(**known), token=who._token)
            assert answer.status_code == 200, (path, answer.text)


def test_every_answer_of_the_document_is_described(story: Story) -> None:
    document = story.net.ask("GET", "/openapi.json").json()
    routes = [r for methods in document["paths"].values() for r in methods.values()]
    assert all(r["description"] for r in routes)


def test_the_start_page_names_the_way_and_nobody_may_frame_it(story: Story) -> None:
    page = story.net.ask("GET", "/")
    assert "/v1/info" in page.text
    assert page.headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_health_is_well_until_a_job_fails_and_well_again_when_it_works(story: Story) -> None:
    net = story.net
    jobs.run_step(net.ctx, net.ctx.pulse, "payout")
    assert net.ask("GET", "/healthz").status_code == 200
    missing = net.ctx.place.preferences_path(2)
    aside = missing.rename(missing.with_suffix(".aside"))
    with pytest.raises(FileNotFoundError):
        jobs.run_step(net.ctx, net.ctx.pulse, "retrain")
    sick = net.ask("GET", "/healthz")
    assert sick.status_code == 503
    assert "FileNotFoundError" in sick.json()["errors"]["retrain"]
    aside.rename(missing)
    jobs.run_step(net.ctx, net.ctx.pulse, "retrain")
    assert net.ask("GET", "/healthz").json()["ok"]
