"""Wallets that are contracts log in, rank and are verified by strangers, at the block at which they were asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from eth_account import Account
from eth_typing import Hash32 as EthHash32

from chain.bundle import read_evidence
from chain.contracts import creation
from chain.devnet import warp
from chain.errors import RpcError, VerifyError
from chain.evidence import FINAL_WITHIN_S, check_evidence
from chain.keys import address_of
from chain.lines import raw_lines, read_lines
from chain.messages import Session, sign
from chain.rules import Rules
from chain.siwe import SignIn, personal_hash
from chain.types import Address
from chain.verify import Checked
from chain.wallets import Asked
from service import jobs
from service.auth import terms_hash
from service.client import Contributor
from service.epochs import draft
from service.ledger import queries
from tests.integration.contracts import data_of, predicted, put, send, wrapped

SALT = b"\x09" * 32


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",))) as made:
        made.go_to(made.start(0) + 1)
        made.open(0, made.plans(0, 12))
        yield made


class Contract(Contributor):
    """A contract wallet by its owner's key, which signs each ranking itself."""

    def __init__(self, net: Any, owner: Any, wallet: Address, wrap: Any = lambda s: s) -> None:
        super().__init__(net.api, owner, net.ctx.domain, use_session_key=False)
        self.address, self.net, self.wrap = wallet, net, wrap

    def session(self, **changes: Any) -> dict[str, Any]:
        said = Session(self.address, self.address, 0, 10, self.net.now() + 9000, terms_hash())
        said = replace(said, **changes)
        return {"session": said.to_json(), "signature": self.wrap(sign(said, self.domain, self.wallet))}

    def enter(self, **changes: Any) -> None:
        self._enter(self.net.api.request("POST", "/v1/sessions", body=self.session(**changes)))

    def said(self, right: Any) -> dict[str, Any]:
        task = self.next_task()
        ranking = self.ranking(task, right(task), now=self.net.now())
        return {"ranking": ranking.to_json(), "signature": self.wrap(sign(ranking, self.domain, self.wallet))}


def _owned(net: Any) -> Contract:
    owner = Account.create()
    wallet = put(net.rpc, "OwnerWallet", address_of(owner))
    net.sponsor(wallet)
    return Contract(net, owner, wallet)


def _row(net: Any, answer: dict[str, Any]) -> Any:
    with net.ctx.db.read() as db:
        return queries.ranking_by_digest(db, 0, answer["digest"])


def test_a_contract_logs_in_and_ranks_and_its_block_is_kept(net: Any, right: Any) -> None:
    who = _owned(net)
    who.enter()
    answer = net.api.request("POST", "/v1/rankings", body=who.said(right))
    final = net.rpc.block("finalized").number
    row = _row(net, answer)
    assert (row.signer, row.block) == (who.address, final)
    with net.ctx.db.read() as db:
        (session,) = queries.sessions(db, 0, who.address)
    assert session.block == final


def test_the_key_of_a_wallet_that_is_one_needs_no_chain(net: Any, right: Any) -> None:
    who = net.person(stake=1)
    task = who.next_task()
    answer = who.send(who.ranking(task, right(task), now=net.now()))
    assert _row(net, answer).block is None


def test_a_wallet_that_is_not_deployed_yet_ranks(net: Any, right: Any) -> None:
    owner, factory = Account.create(), put(net.rpc, "WalletFactory")
    net.go_to(net.now())
    wallet = predicted(net.rpc, factory, owner, SALT)
    deployment = data_of("deploy(address,bytes32)", address_of(owner), SALT)
    net.sponsor(wallet)
    who = Contract(net, owner, wallet, lambda s: wrapped(factory, deployment, s))
    who.enter()
    assert _row(net, net.api.request("POST", "/v1/rankings", body=who.said(right))).block
    assert net.rpc.code(wallet) == b""


def test_a_contract_lets_a_session_key_sign(net: Any, right: Any) -> None:
    who, key = _owned(net), Account.create()
    who.enter(key=address_of(key))
    task = who.next_task()
    ranking = who.ranking(task, right(task), now=net.now())
    body = {"ranking": ranking.to_json(), "signature": sign(ranking, net.ctx.domain, key)}
    assert _row(net, net.api.request("POST", "/v1/rankings", body=body)).block is None


def test_a_contract_signs_in_with_ethereum(net: Any) -> None:
    who, asked = _owned(net), net.api.get("/login/nonce")
    times = (datetime.fromtimestamp(asked["now"] + t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for t in (0, 900))
    message = SignIn(
        asked["domain"], who.address, f"http://{asked['domain']}", 31337, asked["nonce"], *times,
        statement=asked["statement"],
    )  # fmt: skip
    digest = EthHash32(bytes.fromhex(personal_hash(message.text())[2:]))
    signature = "0x" + bytes(who.wallet.unsafe_sign_hash(digest).signature).hex()
    body = {"message": message.text(), "signature": signature}
    assert net.api.request("POST", "/v1/login", body=body)["token"]


@pytest.mark.parametrize("way", ["session", "login"])
def test_the_client_speaks_for_a_contract_by_its_owners_key(net: Any, right: Any, way: str) -> None:
    owner = Account.create()
    made = send(net.rpc, None, creation("DevnetWallet", address_of(owner)))["contractAddress"].lower()
    net.sponsor(made)
    me = Contributor(net.api, owner, net.ctx.domain, use_session_key=False, address=made)
    if way == "session":
        me.log_in(epoch=0, now=net.now(), hours=1, judgements=10)
    else:
        me.sign_in()
    task = me.next_task()
    row = _row(net, me.send(me.ranking(task, right(task), now=net.now())))
    assert (row.wallet, row.signer) == (made, made)
    assert row.block


def test_what_the_contract_refuses_is_refused_with_both_reasons(net: Any, right: Any) -> None:
    who = _owned(net)
    who.enter()
    body, stranger = who.said(right), Account.create()
    for signature, words in (
        (sign(who.ranking(who.next_task(), (1, 1, 1, 1), now=net.now()), net.ctx.domain, stranger), "neither the wallet"),
        (body["signature"][:-2] + "00", "v is 0, expected 27 or 28"),
        (body["signature"][:-2], "the 64 bytes of EIP-2098"),
        ("0x", "expected 65 bytes"),
    ):  # fmt: skip
        net.refused(
            422, words, "a contract that refuses it", method="POST", path="/v1/rankings",
            body=body | {"signature": signature},
        )  # fmt: skip
    for signature in ("0x" + "00" * 16_385, "0xAB", "0x" + "00" * 32 + "6492" * 16):
        net.refused(
            422, "signature", method="POST", path="/v1/rankings", body=body | {"signature": signature}
        )


def test_a_node_that_fails_is_no_refusal(net: Any, right: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    who = _owned(net)
    who.enter()
    body = who.said(right)

    def down(*_args: Any) -> bytes:
        raise RpcError("the node is down")

    with monkeypatch.context() as patch:
        patch.setattr(Asked, "verdict", down)
        net.refused(503, "nothing was recorded", method="POST", path="/v1/rankings", body=body)
        net.refused(
            503, "nothing was recorded", method="POST", path="/v1/sessions", body=who.session(not_after=2**40)
        )
    assert net.api.request("POST", "/v1/rankings", body=body)


def test_a_finality_that_lags_for_hours_is_waited_for(net: Any) -> None:
    who = _owned(net)
    who.enter()
    # Not to the last second: until the ranking is taken in, the block grows older.
    warp(net.rpc, net.now() + FINAL_WITHIN_S - 300)
    net.refused(503, "too long before", method="POST", path="/v1/sessions", body=who.session(not_after=2**40))
    net.go_to(net.now() + 5)
    who.enter(not_after=2**40 + 1)


def test_the_same_ranking_again_is_answered_though_the_owner_changed(net: Any, right: Any) -> None:
    who = _owned(net)
    who.enter()
    body = who.said(right)
    first = net.api.request("POST", "/v1/rankings", body=body)
    send(net.rpc, who.address, data_of("setOwner(address)", address_of(Account.create())))
    net.go_to(net.now())
    assert net.api.request("POST", "/v1/rankings", body=body) == first
    task = who.next_task()
    late = who.ranking(task, right(task), now=net.now())
    net.refused_ranking(422, "a contract that refuses it", ranking=late, by=who.wallet)


def test_an_owner_may_sign_its_key_in_after_the_code_accepted_a_ranking_by_it(net: Any, right: Any) -> None:
    """What the code accepted is not counted against the key; that the epoch closes all the same, the last test sees."""
    who = _owned(net)
    who.enter()
    assert _row(net, net.api.request("POST", "/v1/rankings", body=who.said(right))).block
    who.enter(key=address_of(who.wallet), max_judgements=1)
    assert _row(net, net.api.request("POST", "/v1/rankings", body=who.said(right))).block is None


def test_strangers_find_what_contracts_signed_as_it_was(net: Any, right: Any) -> None:
    """Runs last: it ends the epoch."""
    who = _owned(net)
    who.enter()
    answer = net.api.request("POST", "/v1/rankings", body=who.said(right))
    block = _row(net, answer).block
    send(net.rpc, who.address, data_of("setOwner(address)", address_of(Account.create())))
    net.go_to(net.start(1) + 1)
    jobs.step_index(net.ctx)
    with net.ctx.db.read() as db:
        found = draft(db, net.rpc, net.ctx.place, 0)
    assert found is not None
    found.bundle.seek(0)
    lines = list(read_lines(raw_lines(found.bundle)))
    assert lines[0]["receiptSigner"] == address_of(net.ctx.desk.receipts)
    (line,) = [x for x in lines if x["kind"] == "ranking" and x["position"] == answer["position"]]
    assert line["block"] == block

    evidence = read_evidence(lines)
    asked = Asked(net.rpc)
    assert check_evidence(evidence, net.ctx.domain, asked)
    by_code = sum(x.get("block", 0) > 0 for x in lines)
    assert Checked.of(evidence, None).contract_signatures == by_code > 1
    with pytest.raises(VerifyError, match="there is no chain to ask it at"):
        check_evidence(evidence, net.ctx.domain)

    def with_block(number: int) -> Any:
        changed = [
            replace(r, block=number) if r.position == answer["position"] else r for r in evidence.rankings
        ]
        return replace(evidence, rankings=tuple(changed))

    with pytest.raises(VerifyError, match="neither the wallet nor one"):
        check_evidence(with_block(0), net.ctx.domain, asked)
    with pytest.raises(VerifyError, match=r"block 1 is of .* outside"):
        check_evidence(with_block(1), net.ctx.domain, asked)
    with pytest.raises(VerifyError, match="outside"):
        check_evidence(with_block(net.rpc.block("latest").number), net.ctx.domain, asked)
