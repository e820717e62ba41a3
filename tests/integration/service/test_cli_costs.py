"""Before anything is sent, a command names the most it can cost and what the account has; that is never exceeded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account

from chain.fees import GWEI
from chain.rules import Rules
from service import jobs
from service.cli.shared import parse_amount
from service.devnet import COIN, DOLLAR
from tests.faulty import Faulty, Forward
from tests.integration.service.shell import Shell, operate, take_wallet

BOND = 10**17


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",))) as made:
        made.go_to(made.start(0) + 1)
        yield made


def most(said: str) -> int:
    """Return the most that a dry run says it can cost, in wei."""
    found = re.search(r"Cost at most\W+([\d.,]+) ETH", said)
    assert found is not None, said
    return parse_amount(found[1].replace(",", ""), 18)


def _owner(haptic: Shell, net: Any) -> str:
    """Let the shell be the devnet's owner and guardian."""
    path = net.site.folder / "owner.json"
    path.write_text(
        json.dumps(Account.encrypt(net.site.owner.key, net.site.environ["HAPTIC_PASSWORD"], iterations=2))
    )
    path.chmod(0o600)
    haptic.environ["HAPTIC_KEYFILE"] = str(path)
    return str(net.site.owner.address.lower())


def _deploying(net: Any) -> tuple[object, ...]:
    return (
        "deploy", "--genesis", net.now() + 3600, "--epoch-length", 600, "--challenge-window", 60, "--cooldown", 600,
        "--poster", "0x" + "11" * 20, "--guardian", "0x" + "22" * 20, "--deployment", "new.json",
    )  # fmt: skip


def test_no_command_costs_more_than_its_dry_run_said_and_the_dry_run_costs_nothing(
    haptic: Shell, net: Any
) -> None:
    me = take_wallet(haptic, net, "spender", staking=10 * COIN, dollars=10 * DOLLAR)
    for who, sent, command in (
        (me, 0, ("stake", 4)),
        (me, 0, ("unstake", 3)),
        (me, 0, ("unstake", 1, "--cancel")),
        (me, 0, ("fund", 2)),
        (me, BOND, ("bond", "0.1")),
        (me, 0, _deploying(net)),
        (_owner(haptic, net), 0, ("pause", "--staking")),
        (_owner(haptic, net), 0, ("pause", "--staking", "--end")),
        (_owner(haptic, net), 0, ("pause",)),
        (_owner(haptic, net), 0, ("pause", "--end")),
        (_owner(haptic, net), -BOND, ("bond", "0.1", "--take-back")),
    ):
        haptic.environ["HAPTIC_KEYFILE"] = str(
            net.site.folder / ("wallets/spender.json" if who == me else "owner.json")
        )
        before, nonce = net.rpc.balance(who), net.rpc.nonce(who)
        said = haptic.does(*command, "--dry-run")
        assert "nothing was sent" in said
        assert (net.rpc.balance(who), net.rpc.nonce(who)) == (before, nonce)
        assert haptic(*command, "--yes").status == 0
        spent = before - net.rpc.balance(who)
        gas, most_gas = spent - sent, most(said) - max(0, sent)
        assert 0 < gas <= most_gas, command
        # It is a price, not just any bound: twice the base fee, and half as much gas again.
        assert most_gas < 5 * gas, command
    haptic.environ["HAPTIC_KEYFILE"] = str(net.site.folder / "wallets" / "spender.json")
    net.go_to(net.view(net.ctx.deployment.stake_vault(), "pendingOf", me)[1])
    before = net.rpc.balance(me)
    said = haptic.does("withdraw", "--dry-run")
    haptic.does("withdraw", "--yes")
    assert 0 < before - net.rpc.balance(me) <= most(said)


@pytest.mark.parametrize(
    "command", [("stake", 4), ("fund", 2), ("bond", "0.1"), ("deploy",)], ids=lambda c: c[0]
)
def test_an_account_that_cannot_pay_is_told_so_beside_all_the_rest(
    haptic: Shell, net: Any, command: tuple[Any, ...]
) -> None:
    first = not (net.site.folder / "wallets" / "broke.json").exists()
    me = take_wallet(
        haptic, net, "broke", **({"staking": 10 * COIN, "dollars": 10 * DOLLAR} if first else {})
    )
    net.rpc.request("anvil_setBalance", me, "0x5")
    given = _deploying(net) if command == ("deploy",) else command
    said = haptic.does(*given, "--dry-run")
    assert "has 0.000000000000000005 ETH" in said
    assert most(said) > 10**13
    missing = re.search(
        r"The account cannot pay for it: ([\d.]+) ETH are missing. Dry run: nothing was sent", said
    )
    assert missing is not None, said
    assert parse_amount(missing[1], 18) == most(said) - 5
    haptic.fails(*given, "--yes", words=("has 0.000000000000000005 ETH (5 wei)", "are missing"))
    asked = haptic(*given, typed="y\n")
    assert (asked.status, "Send it?" in asked.out) == (1, False)
    assert (net.rpc.balance(me), net.rpc.nonce(me)) == (5, 0)


def test_a_refusal_is_said_after_what_would_have_been_done(haptic: Shell, net: Any) -> None:
    take_wallet(haptic, net, "nobody")
    for flag in ("--dry-run", "--yes"):
        said = haptic("pause", flag)
        assert (said.status, "Pause claims" in said.out, "NotGuardian" in said.err) == (1, True, True)


def test_the_limit_on_fees_is_named_and_kept(haptic: Shell, net: Any) -> None:
    take_wallet(haptic, net, "thrifty", staking=COIN)
    said = haptic.does("stake", 1, "--dry-run", "--max-fee", 7)
    assert "at most 7 gwei per gas: 0.00" in said
    assert "at most 9 gwei" in haptic.does("stake", 1, "--dry-run", HAPTIC_MAX_FEE_GWEI="9")
    net.rpc.request("anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
    net.go_to(net.now() + 1)
    haptic.fails("stake", 1, "--yes", "--max-fee", 7, words=("more than the limit of 7 gwei",))
    net.rpc.request("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    net.go_to(net.now() + 1)


def test_a_node_that_cannot_simulate_leaves_out_what_it_cannot_tell_and_says_so(
    haptic: Shell, net: Any
) -> None:
    take_wallet(haptic, net, "plain", staking=COIN)
    with Faulty(net.chain.url) as node:

        def fault(calls: list[dict[str, Any]], forward: Forward) -> list[dict[str, Any]]:
            answers = forward(calls)
            for call, answer in zip(calls, answers, strict=True):
                if call["method"] == "eth_simulateV1":
                    answer.pop("result", None)
                    answer["error"] = {"code": -32601, "message": "the method eth_simulateV1 does not exist"}
            return answers

        node.fault = fault
        said = haptic.does("stake", 1, "--dry-run", HAPTIC_RPC_URL=node.url)
        assert most(said) > 0
        assert "Not counted" in said
        assert "the last 1: this node cannot tell" in said
        assert "1 HPT staked" in haptic.does("stake", 1, "--yes", HAPTIC_RPC_URL=node.url)


def test_a_step_of_an_epoch_says_what_it_costs_and_what_only_the_database_hears_costs_nothing(
    haptic: Shell, net: Any
) -> None:
    epoch = net.new_epoch()
    net.open(epoch, net.plans(epoch, 3))
    net.go_to(net.start(epoch + 1) + 1)
    jobs.step_index(net.ctx)
    operate(haptic, net)
    poster = net.ctx.poster.address
    assert "It costs nothing" in haptic.does("epoch", "close", "--epoch", epoch, "--dry-run")
    haptic.does("epoch", "close", "--epoch", epoch)
    assert "nothing: no transaction" in haptic.does("epoch", "reopen", "--epoch", epoch, "--dry-run")

    def step(*command: object) -> None:
        before = net.rpc.balance(poster)
        net.rpc.request("anvil_setBalance", poster, "0x5")
        assert "The account cannot pay for it" in haptic.does(*command, "--dry-run")
        net.rpc.request("anvil_setBalance", poster, hex(before))
        said = haptic.does(*command, "--dry-run")
        haptic.does(*command, "--yes")
        assert 0 < before - net.rpc.balance(poster) <= most(said)

    step("epoch", "commit", "--epoch", epoch)
    for number in range(epoch + 1):
        step("epoch", "post", "--epoch", number)
        net.go_to(net.now() + 601)
        step("epoch", "activate", "--epoch", number)
