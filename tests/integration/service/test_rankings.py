"""What POST /v1/rankings refuses: each with the value that is wrong, and nothing half-written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account

from chain.canonical import text_hash
from chain.messages import Domain, Ranking, Receipt, parse_address, recover, sign
from chain.types import Address, Hash32
from service.answers import ApiError

WRONG = Hash32("0x" + "ab" * 32)


def _hold(net: Any, right: Any, **session: Any) -> tuple[Any, Ranking]:
    """Return somebody who holds a task, and the ranking that would be accepted."""
    who = net.person(**session)
    task = who.next_task()
    return who, who.ranking(task, right(task), now=net.now())


@pytest.fixture(scope="module")
def held(net: Any, right: Any) -> tuple[Any, Ranking]:
    """Return one for all tests in which nothing is accepted."""
    return _hold(net, right)


@pytest.fixture
def fresh(net: Any, right: Any) -> tuple[Any, Ranking]:
    return _hold(net, right, stake=1)


def test_an_accepted_ranking_gets_a_receipt_that_the_published_key_signed(net: Any, fresh: Any) -> None:
    who, ranking = fresh
    body = {"ranking": ranking.to_json(), "signature": sign(ranking, net.ctx.domain, who.signer)}
    got = net.api.request("POST", "/v1/rankings", body=body)
    receipt = Receipt(got["digest"], got["epoch"], got["position"], got["received_at"])
    signer = recover(receipt.digest(net.ctx.domain), got["signature"])
    assert signer == parse_address(net.api.get("/info")["receipt_signer"])
    assert receipt.digest_of == ranking.digest(net.ctx.domain)


def test_a_wallet_with_stake_is_told_how_much_and_nothing_else(net: Any, right: Any) -> None:
    who, ranking = _hold(net, right, stake=7)
    answer = who.send(ranking)
    assert (answer["staked"], answer["notice"]) == (str(7 * 10**18), "")


def test_a_signature_by_somebody_else_is_refused(net: Any, held: Any) -> None:
    who, ranking = held
    other = Account.create()
    net.refused_ranking(422, other.address.lower(), who.address, ranking=ranking, by=other)


@pytest.mark.parametrize(
    "signature", ["0x", "0x" + "00" * 65, "0x" + "11" * 64 + "02", "0x" + "ff" * 64 + "1b"]
)
def test_a_signature_that_no_key_gives_is_refused(net: Any, held: Any, signature: str) -> None:
    _, ranking = held
    body = {"ranking": ranking.to_json(), "signature": signature}
    net.refused(422, "signature", method="POST", path="/v1/rankings", body=body)


def test_a_signature_for_another_chain_is_refused_and_the_chain_is_named(net: Any, held: Any) -> None:
    who, ranking = held
    elsewhere = Domain(1, net.ctx.deployment.vault)
    net.refused_ranking(422, "chain id (31337)", ranking=ranking, by=who.signer, domain=elsewhere)


def test_a_signature_for_another_contract_is_refused_and_the_contract_is_named(net: Any, held: Any) -> None:
    who, ranking = held
    vault, elsewhere = net.ctx.deployment.vault, Domain(31337, net.ctx.deployment.distributor)
    net.refused_ranking(422, f"contract ({vault})", ranking=ranking, by=who.signer, domain=elsewhere)


def test_a_task_that_does_not_exist_is_refused(net: Any, held: Any) -> None:
    who, ranking = held
    net.refused_ranking(404, WRONG, "tasks/next", ranking=replace(ranking, task=WRONG), by=who.signer)


def test_a_task_that_was_handed_to_somebody_else_is_refused(net: Any, held: Any) -> None:
    _, ranking = held
    other = net.person()
    mine = replace(ranking, wallet=other.address)
    net.refused_ranking(422, ranking.task, other.address, "not handed", ranking=mine, by=other.signer)


def test_a_response_that_was_not_shown_is_refused_and_named(net: Any, held: Any) -> None:
    who, ranking = held
    shown = (WRONG, *ranking.shown[1:])
    net.refused_ranking(422, f"{WRONG} was not shown", ranking=replace(ranking, shown=shown), by=who.signer)


def test_what_was_shown_in_another_order_is_refused(net: Any, held: Any) -> None:
    who, ranking = held
    turned = replace(ranking, shown=ranking.shown[::-1])
    net.refused_ranking(422, "order", ranking=turned, by=who.signer)


def test_a_summary_that_does_not_say_the_ranks_is_refused_with_the_right_one(net: Any, held: Any) -> None:
    who, ranking = held
    lie = replace(ranking, summary="A = B = C = D")
    net.refused_ranking(422, "'A = B = C = D'", repr(ranking.summary), ranking=lie, by=who.signer)


@pytest.mark.parametrize("change", [{"method": "likert"}, {"likert": (1, 2, 3, 4)}, {"flag": "dull"}])
def test_what_the_method_cannot_say_is_refused(net: Any, held: Any, change: dict[str, Any]) -> None:
    who, ranking = held
    net.refused_ranking(422, *change, ranking=replace(ranking, **change), by=who.signer)


def test_ranks_with_a_gap_are_refused(net: Any, held: Any) -> None:
    who, ranking = held
    gap = replace(ranking, ranks=(1, 2, 4, 4), summary="A > B > C = D")
    net.refused_ranking(422, "[1, 2, 4, 4]", ranking=gap, by=who.signer)


def test_the_same_revision_twice_is_refused_with_the_one_to_send(net: Any, fresh: Any) -> None:
    who, ranking = fresh
    who.send(ranking)
    again = replace(ranking, ranks=(1, 1, 1, 1), summary="A = B = C = D")
    net.refused_ranking(409, "revision 0", "send revision 1", ranking=again, by=who.signer)


def test_a_skipped_revision_is_refused_with_the_next_one(net: Any, fresh: Any) -> None:
    who, ranking = fresh
    net.refused_ranking(
        422, "revision 3", "the next is 0", ranking=replace(ranking, revision=3), by=who.signer
    )
    who.send(ranking)
    net.refused_ranking(
        422, "revision 2", "the next is 1", ranking=replace(ranking, revision=2), by=who.signer
    )


def test_a_ranking_can_be_revised_and_all_revisions_stay(net: Any, fresh: Any) -> None:
    who, ranking = fresh
    first = who.send(ranking)
    second = who.send(replace(ranking, revision=1, ranks=(1, 1, 1, 1), summary="A = B = C = D"))
    assert second["position"] > first["position"]
    own = net.api.request("GET", "/v1/rankings", token=who._token)
    assert [r["ranking"]["revision"] for r in own] == [1, 0]


def test_the_same_ranking_again_gets_its_first_receipt_and_is_not_recorded_again(
    net: Any, fresh: Any
) -> None:
    who, ranking = fresh
    first = who.send(ranking)
    who.send(replace(ranking, revision=1))
    with net.nothing_written():
        assert who.send(ranking) == first


def test_sent_again_it_is_answered_by_200_and_not_201(net: Any, fresh: Any) -> None:
    who, ranking = fresh
    body = {"ranking": ranking.to_json(), "signature": sign(ranking, net.ctx.domain, who.signer)}
    answers = [net.api._http.post("/v1/rankings", json=body) for _ in range(2)]
    assert [a.status_code for a in answers] == [201, 200]


def test_a_wallet_without_stake_is_recorded_and_told_so(net: Any, right: Any) -> None:
    who = net.person(stake=1)
    task = who.next_task()
    net.unstake(who)
    answer = who.send(who.ranking(task, right(task), now=net.now()))
    assert answer["staked"] == "0"
    assert "no stake" in answer["notice"]
    assert "HapticScore is 0" in answer["notice"]


def test_a_comment_is_kept_and_its_hash_is_what_was_signed(net: Any, right: Any) -> None:
    who = net.person()
    task = who.next_task()
    said = "B is wrong about Lyon; «Paris»"
    who.send(who.ranking(task, right(task), now=net.now(), comment=said), said)
    (own,) = net.api.request("GET", "/v1/rankings", token=who._token)
    assert own["comment"] == said
    assert own["ranking"]["commentHash"] == text_hash(said)


def test_a_comment_that_is_too_long_is_refused_with_the_limit(net: Any, held: Any) -> None:
    who, ranking = held
    long = "x" * 4001
    signed = replace(ranking, comment_hash=text_hash(long))
    net.refused_ranking(422, "4000", ranking=signed, by=who.signer, comment=long)


def test_a_comment_that_not_every_database_can_hold_is_refused(net: Any, held: Any) -> None:
    who, ranking = held
    signed = replace(ranking, comment_hash=text_hash("a\0b"))
    net.refused_ranking(422, "NUL", ranking=signed, by=who.signer, comment="a\0b")


def test_a_comment_of_another_hash_is_refused(net: Any, held: Any) -> None:
    who, ranking = held
    net.refused_ranking(422, "commentHash", ranking=ranking, by=who.signer, comment="never signed")


def test_a_ranking_from_the_future_is_refused_with_both_times(net: Any, held: Any) -> None:
    who, ranking = held
    ahead = net.now() + 100_000
    net.refused_ranking(422, str(ahead), "future", ranking=replace(ranking, signed_at=ahead), by=who.signer)


def test_my_session_key_cannot_sign_in_the_name_of_another_wallet(net: Any, held: Any) -> None:
    _, ranking = held
    thief = net.person()
    net.refused_ranking(
        422, ranking.wallet, parse_address(thief.signer.address), ranking=ranking, by=thief.signer
    )


def test_the_wallet_itself_can_always_sign(fresh: Any) -> None:
    who, ranking = fresh
    who.signer = who.wallet
    assert who.send(ranking)["epoch"] == 0


def test_a_session_key_signs_as_much_as_it_was_allowed_and_revisions_count(net: Any, right: Any) -> None:
    who, ranking = _hold(net, right, stake=1, judgements=2)
    who.send(ranking)
    who.send(replace(ranking, revision=1))
    more = replace(ranking, revision=2)
    net.refused_ranking(422, "may sign 2 judgements", "new session", ranking=more, by=who.signer)


def test_a_used_up_session_key_bars_neither_the_wallet_nor_its_next_key(net: Any, right: Any) -> None:
    who, ranking = _hold(net, right, stake=1, judgements=1)
    who.send(ranking)
    who.signer, used = who.wallet, who.signer
    who.send(replace(ranking, revision=1))
    who.signer = Account.create()
    who.log_in(epoch=0, now=net.now(), judgements=1)
    who.send(replace(ranking, revision=2))
    net.refused_ranking(422, "may sign 1 judg", ranking=replace(ranking, revision=3), by=used)


def test_a_ranking_for_another_epoch_is_refused_with_the_running_one(net: Any, held: Any) -> None:
    who, ranking = held
    later = replace(ranking, epoch=1)
    net.refused_ranking(409, "epoch 1", "running one is 0", ranking=later, by=who.signer)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("wallet", "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA9604"),
        ("wallet", "0xD8dA6BF26964aF9D7eEd9e03E53415D37aA96045"),
        ("epoch", "0"),
        ("epoch", -1),
        ("epoch", 2**64),
        ("ranks", [1, 2, 3, 256]),
        ("ranks", "1234"),
        ("shown", ["0xAB"]),
        ("revision", True),
        ("revision", 70_000),
        ("summary", 7),
        ("commentHash", None),
    ],
)
def test_a_field_of_the_wrong_form_is_refused_by_name(net: Any, held: Any, field: str, value: Any) -> None:
    who, ranking = held
    body = {
        "ranking": ranking.to_json() | {field: value},
        "signature": sign(ranking, net.ctx.domain, who.signer),
    }
    net.refused(400, f"Ranking.{field}", method="POST", path="/v1/rankings", body=body)


def test_half_a_surrogate_pair_is_no_json(net: Any, held: Any) -> None:
    who, ranking = held
    body = {
        "ranking": ranking.to_json() | {"flag": "\ud800"},
        "signature": sign(ranking, net.ctx.domain, who.signer),
    }
    net.refused(400, "body", "Invalid JSON", method="POST", path="/v1/rankings", body=body)


def test_unknown_fields_are_refused_by_name(net: Any, held: Any) -> None:
    who, ranking = held
    signature = sign(ranking, net.ctx.domain, who.signer)
    body = {"ranking": ranking.to_json() | {"mood": 1}, "signature": signature}
    net.refused(400, "unknown field", "mood", method="POST", path="/v1/rankings", body=body)
    body = {"ranking": ranking.to_json(), "signature": signature, "stake": "much"}
    net.refused(400, "stake", method="POST", path="/v1/rankings", body=body)


def test_an_address_with_a_wrong_checksum_is_refused_with_what_to_do(net: Any) -> None:
    wrong = "0xD8dA6BF26964aF9D7eEd9e03E53415D37aA96045"
    for path in ("/v1/contributors/", "/v1/proofs/"):
        net.refused(400, wrong, "EIP-55", "copy it again", method="GET", path=path + wrong)


def test_a_ranking_that_is_not_signed_at_all_is_refused(net: Any, held: Any) -> None:
    _, ranking = held
    net.refused(400, "signature", method="POST", path="/v1/rankings", body={"ranking": ranking.to_json()})


def test_the_client_refuses_a_receipt_by_another_key_than_the_published(fresh: Any) -> None:
    who, ranking = fresh
    who.receipt_signer = Address("0x" + "11" * 20)
    with pytest.raises(ApiError, match="keep this answer as evidence"):
        who.send(ranking)
