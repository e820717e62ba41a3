"""Sent again with its key, a ranking is answered as before; once closed, it is proven to be in the log, or missed."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.merkle import verify_ledger_proof
from chain.messages import sign, sign_with
from chain.receipts import handout_of
from chain.rules import Rules
from service import jobs
from service.database import Database, migrate, open_engine
from service.errors import RejectedError
from service.idempotency import Repeatable
from service.ledger import queries
from tests.integration.service.shell import Shell, take_wallet

ME, YOU = "0x" + "a" * 40, "0x" + "b" * 40


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",))) as made:
        made.go_to(made.start(0) + 1)
        made.open(0, made.plans(0, 12))
        yield made


def _body(net: Any, who: Any, right: Any, **changes: Any) -> dict[str, Any]:
    task = who.next_task()
    said = replace(who.ranking(task, right(task), now=net.now()), **changes)
    return {"ranking": said.to_json(), "signature": sign(said, net.ctx.domain, who.signer)}


def _send(net: Any, body: dict[str, Any], key: str) -> Any:
    return net.ask("POST", "/v1/rankings", body=body, headers={"idempotency-key": key})


def test_the_same_request_with_the_same_key_is_answered_the_same(net: Any, right: Any) -> None:
    body = _body(net, net.person(stake=1), right)
    first = _send(net, body, "key-1")
    with net.nothing_written():
        again = _send(net, body, "key-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()


def test_another_request_with_the_same_key_is_refused(net: Any, right: Any) -> None:
    who = net.person(stake=1)
    body = _body(net, who, right)
    _send(net, body, "key-2")
    other = _body(net, who, right)
    net.refused(
        422, "'key-2'", "another request", method="POST", path="/v1/rankings", body=other,
        headers={"idempotency-key": "key-2"},
    )  # fmt: skip
    assert _send(net, other, "key-3").status_code == 201


def test_a_key_is_its_wallets_own_and_a_refusal_uses_none_up(net: Any, right: Any) -> None:
    body, other = (_body(net, net.person(stake=1), right) for _ in range(2))
    broken = body | {"comment": "not what was hashed"}
    with net.nothing_written():
        assert _send(net, broken, "key-4").status_code == 422
    assert _send(net, body, "key-4").status_code == 201
    assert _send(net, other, "key-4").status_code == 201


def test_who_names_another_epoch_deletes_no_answer(net: Any, right: Any) -> None:
    """The key is looked up before the signature is known to be good: anybody may name any wallet and epoch."""
    body = _body(net, net.person(stake=1), right)
    first = _send(net, body, "key-5")
    forged = {"ranking": body["ranking"] | {"epoch": 7}, "signature": body["signature"]}
    with net.nothing_written():
        assert _send(net, forged, "key-5").status_code == 409
        again = _send(net, body, "key-5")
    assert (again.status_code, again.json()) == (201, first.json())


def test_an_answer_is_told_again_while_somebody_writes(net: Any, right: Any) -> None:
    body = _body(net, net.person(stake=1), right)
    first = _send(net, body, "key-6")
    with net.ctx.db.write() as db, net.nothing_written():
        queries.last_closed(db)  # from here on the one write lock is taken
        again = _send(net, body, "key-6")
    assert (again.status_code, again.json()) == (201, first.json())


def test_without_a_key_nothing_of_the_answer_is_kept(net: Any, right: Any) -> None:
    before = net.rows()["answer"]
    net.api.request("POST", "/v1/rankings", body=_body(net, net.person(stake=1), right))
    assert net.rows()["answer"] == before


@pytest.mark.parametrize("key", ["", "a" * 201, "a b", "\xe9"])
def test_a_key_is_a_short_word(net: Any, right: Any, key: str) -> None:
    body = _body(net, net.person(stake=1), right)
    answer = net.ask("POST", "/v1/rankings", body=body, headers={"idempotency-key": key.encode("latin-1")})
    assert answer.status_code == 400, answer.text


def test_an_answer_is_kept_for_its_epoch_on_either_database(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    database = Database(engine)
    one, other = Repeatable("k", "1"), Repeatable("k", "2")
    with database.write() as db:
        assert one.recall(db, ME, 0) is None
        one.keep(db, ME, 0, 201, {"a": 1})
        one.keep(db, ME, 0, 200, {"a": 2})
        db.commit()
    with database.write() as db:
        row = one.recall(db, ME, 0)
        assert row is not None
        assert (row.status, row.answer) == (201, {"a": 1})
        assert one.recall(db, YOU, 0) is None
        with pytest.raises(RejectedError, match="another request in epoch 0"):
            other.recall(db, ME, 0)
    with database.write() as db:
        assert other.recall(db, ME, 1) is None
        other.keep(db, ME, 1, 201, {"a": 3})
        Repeatable("z", "1").keep(db, YOU, 2, 201, {})
        db.commit()
    with database.read() as db:
        assert queries.answer_row(db, ME, "k") is None
        assert queries.answer_row(db, YOU, "z") is not None
    engine.dispose()


def test_a_closed_log_proves_each_ranking_and_a_kept_receipt_finds_it(
    net: Any, haptic: Shell, tmp_path: Path
) -> None:
    """Runs last: it ends the epoch."""
    net.sponsor(take_wallet(haptic, net, "keeper"))
    haptic.does("rank", "--count", "2", typed="y\nA = B = C = D\nB > A = C > D\n")
    kept = Path(haptic.environ["HAPTIC_KEYFILE"]).with_suffix(".receipts.jsonl")
    lines = kept.read_text().splitlines()
    receipts = [line for line in lines if "receipt" in json.loads(line)]
    handed = [line for line in lines if "handout" in json.loads(line)]
    mine = [json.loads(line)["receipt"] for line in receipts]
    assert (len(receipts), len(handed), len(lines)) == (2, 2, 4)
    path = f"/v1/epochs/0/rankings/{mine[0]['digest']}/proof"
    net.refused(404, "not closed", method="GET", path=path)
    net.go_to(net.start(1) + 1)
    jobs.step_index(net.ctx)
    assert jobs.close_epoch(net.ctx, 0) is not None
    root = net.api.get("/epochs/0")["ledger_root"]
    for receipt in mine:
        found = net.api.get(f"/epochs/0/rankings/{receipt['digest']}/proof")
        assert (found["position"], found["received_at"]) == (receipt["position"], receipt["received_at"])
        assert found["ledger_root"] == root
        assert verify_ledger_proof(root, found["digest"], found["wallet"].lower(), found["proof"])
        assert not verify_ledger_proof(root, found["digest"], YOU, found["proof"])
    net.refused(404, "no ranking", method="GET", path=path.replace(mine[0]["digest"], "0x" + "ab" * 32))
    net.refused(400, "digest", method="GET", path=path.replace(mine[0]["digest"], "0x12"))
    jobs.step_commit(net.ctx)
    jobs.step_payout(net.ctx)
    (bundle,) = net.ctx.place.bundles.glob("epoch-0.jsonl")
    kinds = Counter(json.loads(line)["kind"] for line in bundle.read_text().splitlines())
    said = " ".join(haptic.does("verify", "--receipts", str(kept)).split())
    assert (
        f"checked: signatures {kinds['ranking'] + kinds['session']} (of contract wallets, by their code 0)"
        in said
    )
    assert (
        f"hand-outs replayed {kinds['handout']}, skips {kinds['skip']}; tasks 12 and gold 0 committed to"
        in said
    )
    assert re.search(
        r"committed to before the first hand-out \(\d+ s\); bundle 0x\w{8}… anchored at the close", said
    )
    assert "receipts 2, in the log as they promise 2" in said
    assert "hand-outs promised 2, in the log so 2" in said
    assert "verify: OK" in said
    _shown_otherwise_is_proven(net, haptic, tmp_path / "swapped.jsonl", json.loads(handed[0]))
    moved, never = json.loads(receipts[0]), json.loads(handed[0])
    moved["receipt"]["position"] += 1
    never["handout"]["number"] += 100
    odd_lines = (json.dumps(moved), receipts[1], handed[1], json.dumps(never), '{"handout": {"wal')
    (tmp_path / "odd.jsonl").write_text("\n".join(odd_lines) + "\n")
    odd = haptic("verify", "--receipts", str(tmp_path / "odd.jsonl"))
    said = " ".join(odd.out.split())
    for words in (
        "receipt in line 1, epoch 0: the ranking", "hand-out in line 4, epoch 0: the hand-out of task",
        "line 5 of the receipts is none that haptic keeps", "hand-outs promised 2, in the log so 1",
        "receipts 2, in the log as they promise 1",
    ):  # fmt: skip
        assert words in said
    assert not any(words in said for words in ("in line 2", "in line 3", "verify: OK"))
    (tmp_path / "torn.jsonl").write_bytes(b"\xff\n" + kept.read_bytes())
    torn = haptic("verify", "--receipts", str(tmp_path / "torn.jsonl"))
    assert "line 1 of the receipts is none that haptic keeps" in torn.out
    assert "receipts 2, in the log as they promise 2" in " ".join(torn.out.split())
    assert "verify: OK" not in torn.out
    assert (odd.status, torn.status) == (1, 1)


def _shown_otherwise_is_proven(net: Any, haptic: Shell, path: Path, kept: dict[str, Any]) -> None:
    """Who was shown another prompt has it signed; who merely says so has not."""
    other = kept["handout"] | {"prompt": "0x" + "ab" * 32}
    signed = sign_with(handout_of(other), net.ctx.domain, net.ctx.desk.key)
    for signature, words in (
        (signed, "was SHOWN with another prompt"),
        (other["signature"], "a promise signed by"),
    ):
        path.write_text(json.dumps({"handout": other | {"signature": signature}}) + "\n")
        said = haptic("verify", "--receipts", str(path))
        assert said.status == 1
        assert words in " ".join(said.out.split())
