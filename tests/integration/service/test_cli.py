"""The command line as people use it: what it says, what it sends, and that an error is one line and exit status 1."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from eth_account import Account

from chain.contracts import Contract
from chain.keys import load_keyfile
from chain.messages import parse_address
from chain.rules import Rules
from chain.transactions import transact
from chain.types import Hash32
from service.cli import app, operators
from service.devnet import COIN, DOLLAR, PASSWORD
from service.terminal import show_when
from tests.integration.service.shell import Shell, holdings, operate, take_wallet


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",))) as made:
        made.go_to(made.start(0) + 1)
        yield made


# -- help ---------------------------------------------------------------------------------------------------


def _commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_says_what_it_does_and_what_each_option_means(
    haptic: Shell, path: tuple[str, ...]
) -> None:
    command = COMMANDS[path]
    text = haptic.does(*path, "--help")
    assert (command.help or "").split("\n")[0][:40] in text
    undescribed = [p.name for p in command.params if not getattr(p, "help", None) and p.name != "epoch"]
    assert undescribed == []


def test_the_installed_program_lists_every_command() -> None:
    program = Path(sys.executable).with_name("haptic")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert all(path[0] in done.stdout for path in COMMANDS if path)


def test_a_mistyped_command_ends_with_usage_and_status_2(haptic: Shell) -> None:
    said = haptic("steak", "5")
    assert said.status == 2
    assert "No such command 'steak'" in said.err


def _numbers() -> Iterator[tuple[tuple[str, ...], Any]]:
    for path, command in COMMANDS.items():
        for option in command.params:
            kind: Any = getattr(option, "type_descriptor", None)
            if getattr(kind, "annotation", None) in {int, float}:
                yield path, option


NUMBERS = list(_numbers())


@pytest.mark.parametrize(("path", "option"), NUMBERS, ids=lambda x: getattr(x, "name", None) or " ".join(x))
def test_a_number_outside_its_range_is_refused_before_anything_starts(
    haptic: Shell, path: tuple[str, ...], option: Any
) -> None:
    assert option.min is not None
    assert option.max is not None
    for wrong in (option.min - 1, option.max + 1):
        said = haptic(*path, f"{option.opts[0]}={wrong}")
        assert said.status == 2
        assert f"Invalid value for '{option.opts[0]}'" in said.err
    assert f"[{option.min}<=x<={option.max}]" in "".join(haptic.does(*path, "--help", COLUMNS="200").split())


def test_all_numbers_of_the_command_line_are_looked_at() -> None:
    assert {("rank",), ("devnet",), ("epoch", "veto")} <= {path for path, _ in NUMBERS}
    assert len(NUMBERS) == 33


def test_the_times_of_a_deployment_may_be_what_the_contracts_take(net: Any) -> None:
    d = net.ctx.deployment
    for contract, name, limit in (
        (d.revenue_distributor(), "MAX_EPOCH_LENGTH", operators.MAX_EPOCH_LENGTH_S),
        (d.revenue_distributor(), "MAX_CHALLENGE_WINDOW", operators.MAX_WINDOW_S),
        (d.stake_vault(), "MAX_COOLDOWN", operators.MAX_COOLDOWN_S),
    ):
        assert net.view(contract, name) == limit


# -- wallets ------------------------------------------------------------------------------------------------


def test_a_wallet_is_made_once_and_never_overwritten(haptic: Shell) -> None:
    said = haptic.does("wallet", "me.json")
    made = load_keyfile(haptic.folder / "me.json", PASSWORD)
    assert made.address in said
    before = (haptic.folder / "me.json").read_bytes()
    haptic.fails("wallet", "me.json", words=("me.json exists already",))
    assert (haptic.folder / "me.json").read_bytes() == before


def test_a_missing_wallet_is_named_with_how_to_make_one(haptic: Shell) -> None:
    haptic.fails("stake", 5, "--keyfile", "none.json", words=("none.json", "No such file", "haptic wallet"))


def test_a_wrong_password_is_said_to_be_wrong(haptic: Shell, net: Any) -> None:
    take_wallet(haptic, net, "locked")
    haptic.fails("stake", 5, HAPTIC_PASSWORD="guess", words=("password does not open", "locked.json"))


def test_a_password_comes_from_a_file_before_the_environment(haptic: Shell, net: Any) -> None:
    me = take_wallet(haptic, net, "by-file", staking=COIN)
    (haptic.folder / "pw").write_text(PASSWORD + "\n")
    found = haptic.does("stake", "1", "--dry-run", "--password-file", "pw", HAPTIC_PASSWORD="guess")
    assert me in found.lower()


# -- money --------------------------------------------------------------------------------------------------


def test_what_a_dry_run_or_a_no_would_do_is_shown_and_not_done(haptic: Shell, net: Any) -> None:
    me = take_wallet(haptic, net, "dry", staking=10 * COIN, dollars=10 * DOLLAR)
    haptic.does("stake", "4", "--yes")
    before = holdings(net, me)
    for command in (
        ("stake", "1.5"),
        ("unstake", "1.5"),
        ("unstake", "all"),
        ("fund", "1.5", "--run", "1", "--force"),
    ):
        assert "Dry run: nothing was sent." in haptic.does(*command, "--dry-run")
        assert "Nothing was sent." in haptic.does(*command, typed="n\n")
        assert holdings(net, me) == before


def test_stake_goes_in_and_comes_out_to_the_last_unit(haptic: Shell, net: Any) -> None:
    me = take_wallet(haptic, net, "staker", staking=10 * COIN)
    shown = haptic.does("stake", "2.000000000000000001", typed="y\n")
    assert "2.000000000000000001 HPT staked" in shown
    assert holdings(net, me)[:3] == (2 * COIN + 1, 0, 8 * COIN - 1)
    haptic.does("unstake", "0.5", "--yes")
    assert holdings(net, me)[:3] == (1_500_000_000_000_000_001, COIN // 2, 8 * COIN - 1)
    haptic.fails("withdraw", "--yes", words=("0.5 HPT can be withdrawn from", "(in 28 h)", "try again"))
    haptic.does("unstake", "all", "--yes")
    assert holdings(net, me)[:2] == (0, 2 * COIN + 1)


def test_after_the_cooldown_everything_is_back_in_the_wallet(haptic: Shell, net: Any) -> None:
    me = take_wallet(haptic, net, "leaver", staking=COIN)
    haptic.does("stake", "1", "--yes")
    haptic.does("unstake", "all", "--yes")
    available = net.view(net.ctx.deployment.stake_vault(), "pendingOf", me)[1]
    net.go_to(available)
    assert "1 HPT withdrawn" in haptic.does("withdraw", "--yes")
    assert holdings(net, me)[:3] == (0, 0, COIN)
    haptic.fails("withdraw", "--yes", words=("asked nothing back",))


def test_what_was_asked_back_can_be_staked_again_or_paid_to_another(haptic: Shell, net: Any) -> None:
    me, other = take_wallet(haptic, net, "waverer", staking=COIN), parse_address("0x" + "ab" * 20)
    haptic.does("stake", "1", "--yes")
    haptic.does("unstake", "0.75", "--yes")
    haptic.fails("unstake", "0.76", "--cancel", "--yes", words=("has asked 0.75 HPT back", "0.76 HPT cannot"))
    assert "Dry run: nothing was sent." in haptic.does("unstake", "0.5", "--cancel", "--dry-run")
    assert "0.5 HPT staked again" in haptic.does("unstake", "0.5", "--cancel", "--yes")
    assert holdings(net, me)[:2] == (3 * COIN // 4, COIN // 4)
    assert "0.25 HPT staked again" in haptic.does("unstake", "all", "--cancel", "--yes")
    haptic.does("unstake", "all", "--yes")
    net.go_to(net.view(net.ctx.deployment.stake_vault(), "pendingOf", me)[1])
    haptic.fails("withdraw", "--to", "0x12", "--yes", words=("to", "0x12"))
    haptic.does("withdraw", "--to", other, "--yes")
    assert net.view(Contract("HapticToken", net.ctx.deployment.token), "balanceOf", other) == COIN


def _guard(haptic: Shell, net: Any) -> None:
    """Let the shell be the devnet's owner and guardian."""
    path = net.site.folder / "guard.json"
    path.write_text(
        json.dumps(Account.encrypt(net.site.owner.key, net.site.environ["HAPTIC_PASSWORD"], iterations=2))
    )
    path.chmod(0o600)
    haptic.environ["HAPTIC_KEYFILE"] = str(path)


def test_the_guardian_pauses_new_stake_and_everyone_can_still_leave(haptic: Shell, net: Any) -> None:
    me = take_wallet(haptic, net, "paused", staking=2 * COIN)
    haptic.fails("pause", "--staking", "--yes", words=("NotGuardian", me))
    haptic.does("stake", "1", "--yes")
    keyfile = haptic.environ["HAPTIC_KEYFILE"]
    _guard(haptic, net)
    assert "Dry run: nothing was sent." in haptic.does("pause", "--staking", "--dry-run")
    assert "pause new stake" in haptic.does("pause", "--staking", "--yes")
    haptic.environ["HAPTIC_KEYFILE"] = keyfile
    haptic.fails("stake", "1", "--yes", words=("StakingPaused",))
    haptic.does("unstake", "1", "--yes")
    _guard(haptic, net)
    assert "refused" in haptic.does("pause", "--staking", "--end", "--yes")
    haptic.environ["HAPTIC_KEYFILE"] = keyfile
    haptic.does("stake", "1", "--yes")
    assert holdings(net, me)[:2] == (COIN, COIN)


def test_the_bond_is_shown_added_to_and_taken_back_by_the_owner(haptic: Shell, net: Any) -> None:
    assert "1 ETH in the distributor; a post needs 1 ETH" in haptic.does("bond")
    take_wallet(haptic, net, "bonded")
    assert "Dry run: nothing was sent." in haptic.does("bond", "0.5", "--dry-run")
    assert "0.5 ETH added to the bond" in haptic.does("bond", "0.5", "--yes")
    haptic.fails("bond", "2", "--take-back", "--yes", words=("1.5 ETH in the distributor", "2 ETH cannot"))
    haptic.fails("bond", "0.5", "--take-back", "--yes", words=("OwnableUnauthorizedAccount",))
    _guard(haptic, net)
    assert "0.5 ETH of the bond taken back" in haptic.does("bond", "0.5", "--take-back", "--yes")
    assert net.view(net.ctx.deployment.revenue_distributor(), "bond") == COIN


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("stake", "11"), ("1 HPT too little",)),
        (("stake", "0"), ("above 0",)),
        (("stake", "1.0000000000000000001"), ("at most 18 decimals",)),
        (("stake", "lots"), ("'lots'",)),
        (("unstake", "1"), ("0 HPT staked", "1 HPT cannot")),
        (("unstake", "all"), ("0 HPT staked",)),
        (("fund", "1.0000001"), ("at most 6 decimals",)),
        (("fund", "11"), ("DUSD too little",)),
        (("claim",), ("no payout under an active root",)),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_sent(
    haptic: Shell, net: Any, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    first = not (net.site.folder / "wallets" / "poor.json").exists()
    holding = {"staking": 10 * COIN, "dollars": 10 * DOLLAR} if first else {}
    me = take_wallet(haptic, net, "poor", **holding)
    before = holdings(net, me)
    haptic.fails(*arguments, *(() if arguments[0] == "score" else ("--yes",)), words=words)
    assert holdings(net, me) == before


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"HAPTIC_RPC_URL": "http://127.0.0.1:9"}, ("127.0.0.1:9 does not answer", "RPC URL")),
        ({"HAPTIC_RPC_URL": "nonsense"}, ("RPC URL must look like",)),
        ({"HAPTIC_DEPLOYMENT": "none.json"}, ("none.json", "haptic deploy")),
    ],
)
def test_a_chain_or_a_deployment_that_is_not_there_is_named(
    haptic: Shell, net: Any, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    take_wallet(haptic, net, "lost")
    haptic.fails("stake", "1", words=words, **environ)


def test_a_service_that_is_not_there_is_named_with_how_to_start_one(haptic: Shell, net: Any) -> None:
    take_wallet(haptic, net, "lost")
    haptic.fails("score", "--service", "http://127.0.0.1:9", words=("127.0.0.1:9", "haptic serve"))
    haptic.fails("score", "0x12", words=("'0x12' is not an address",))


def _transactions(text: str) -> list[str]:
    """Return the hashes that stand whole on a line, one a line."""
    return [line.split()[-1].rstrip(")") for line in text.splitlines() if ", transaction 0x" in line]


@pytest.mark.parametrize(
    ("command", "token", "spender"), [("stake", "token", "vault"), ("fund", "payment_token", "distributor")]
)
def test_two_transactions_are_announced_and_each_is_shown_with_its_hash(
    haptic: Shell, net: Any, command: str, token: str, spender: str
) -> None:
    me = take_wallet(haptic, net, f"two-{command}", staking=10 * COIN, dollars=10 * DOLLAR)
    d = net.ctx.deployment
    assert f"2: approve, which lets the contract take exactly this amount, then {command}" in haptic.does(
        command, "1", "--dry-run"
    )
    said = haptic(command, "1", "--yes").out
    assert "approved for 0x" in said
    sent = [net.rpc.receipt(Hash32(name)) for name in _transactions(said)]
    assert [(r.ok, r.block) for r in sent] == [(True, sent[0].block), (True, sent[0].block + 1)]
    assert net.rpc.nonce(me) == 2
    account = load_keyfile(Path(haptic.environ["HAPTIC_KEYFILE"]), PASSWORD)
    transact(
        net.rpc, account, Contract("HapticToken", getattr(d, token)), "approve", getattr(d, spender), COIN
    )
    said = haptic(command, "1", "--yes").out
    assert f"1: {command}" in said
    assert len(_transactions(said)) == 1
    assert net.rpc.nonce(me) == 4


# -- operators ----------------------------------------------------------------------------------------------

TIMES = ("--epoch-length", "600", "--challenge-window", "60")
ROLES = ("--poster", "0x" + "11" * 20, "--guardian", "0x" + "22" * 20)


def test_times_that_cannot_work_are_refused_before_anything_is_sent(haptic: Shell, net: Any) -> None:
    me = take_wallet(haptic, net, "owner")
    soon = ("--genesis", net.now() + 600, *ROLES, "--epoch-length", 600, "--deployment", "new.json")
    for given, words in (
        (("--cooldown", 599, "--challenge-window", 60), ("cooldown 599", "600 s")),
        (("--cooldown", 600, "--challenge-window", 600), ("challenge window 600", "600 s")),
        (("--cooldown", 600, "--challenge-window", 60, "--genesis", net.now() * 1000), ("far from now",)),
    ):
        haptic.fails("deploy", *soon, *given, "--yes", words=words)
    assert net.rpc.nonce(me) == 0


def test_a_deployment_is_made_once_and_written_down(haptic: Shell, net: Any) -> None:
    me = take_wallet(haptic, net, "deployer")
    genesis = net.now() + 3600
    arguments = (
        "deploy",
        "--genesis",
        genesis,
        *TIMES,
        *ROLES,
        "--cooldown",
        600,
        "--deployment",
        "new.json",
    )
    shown = haptic.does(*arguments, "--dry-run")
    assert "nothing was sent" in shown
    assert f"each 600 s (10 min), the first from {show_when(genesis, net.now())}" in shown
    assert net.rpc.nonce(me) == 0
    haptic.does(*arguments, "--yes")
    made = json.loads((haptic.folder / "new.json").read_text())
    assert (made["genesis"], made["epoch_length"], made["challenge_window"]) == (genesis, 600, 60)
    haptic.fails(*arguments, "--yes", words=("new.json exists already",))
    haptic.fails(*arguments, "--yes", "--poster", "0x11", "--deployment", "b.json", words=("poster", "0x11"))


def test_an_operator_in_the_wrong_folder_is_told_which_setting_names_another(haptic: Shell, net: Any) -> None:
    take_wallet(haptic, net, "astray")
    (haptic.folder / ".haptic").mkdir()
    said = haptic.does("epoch", "list")
    assert "No epoch was opened yet, as far as the database in .haptic knows" in said
    assert "HAPTIC_DATA_DIR" in said
    haptic.fails(
        "epoch", "commit", "--epoch", 0, words=("no key file .haptic/receipt.json", "HAPTIC_RECEIPT_KEYFILE")
    )


def test_a_port_in_use_is_named_before_anything_starts(haptic: Shell, net: Any) -> None:
    operate(haptic, net)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        haptic.fails("serve", "--port", port, words=(f"port {port}", "--port"))


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"HAPTIC_TICK_S": "often"}, ("HAPTIC_TICK_S",)),
        ({"HAPTIC_PASSWORD": "guess"}, ("password does not open", "poster.json")),
        ({"HAPTIC_POSTER_KEYFILE": "none.json"}, ("none.json",)),
        ({"HAPTIC_SECRET": "another" * 8}, ("HAPTIC_SECRET", "put that one back")),
        ({"HAPTIC_DATABASE_URL": "nonsense"}, ("HAPTIC_DATABASE_URL",)),
        ({"HAPTIC_RPC_URL": "http://127.0.0.1:9"}, ("does not answer",)),
        ({"HAPTIC_RULES_FILE": "none.json"}, ("HAPTIC_RULES_FILE",)),
        ({"HAPTIC_DEVNET_GOLD": "false"}, ("HAPTIC_PROMPTS_FILE is missing", "HAPTIC_ARENA=false")),
    ],
)
def test_a_service_with_wrong_settings_does_not_start(
    haptic: Shell, net: Any, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    operate(haptic, net)
    if net.api.get("/epochs") == []:
        net.open(0, net.plans(0, 2))
    haptic.fails("serve", "--port", 0, words=words, **environ)
