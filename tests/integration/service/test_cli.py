"""The command line as people use it: what it says, what it sends, and that an error is one line and exit status 1."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from eth_account import Account

from chain.contracts import Contract
from chain.devnet import mine
from chain.keys import load_keyfile
from chain.messages import parse_address
from chain.rules import Rules
from chain.transactions import transact
from chain.types import Hash32
from service import jobs
from service.cli import app, sitting
from service.cli.shared import show_amount
from service.client import ApiError
from service.devnet import COIN, DOLLAR, PASSWORD
from service.ledger import queries
from service.terminal import show_time

ZYGOTE = """
import json, os, signal, sys, traceback
from service.cli import main
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    status = 0
    signal.alarm(60)
    try:
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environ"])
        for name, number, flags in (("in", 0, os.O_RDONLY), ("out", 1, 577), ("err", 2, 577)):
            os.dup2(os.open(name, flags, 0o600), number)
        sys.stdin = open(0, closefd=False)
        sys.argv = ["haptic", *job["arguments"]]
        main()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
"""
"""Imports the command line once (two seconds) and forks a process for each command."""


@dataclass
class Said:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str


@dataclass
class Shell:
    """Runs `haptic` in a folder, with the environment of a site."""

    process: subprocess.Popen[str]
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: object, typed: str = "", environ: Mapping[str, str] | None = None) -> Said:
        (self.folder / "in").write_text(typed)
        known = {k: v for k, v in os.environ.items() if not k.startswith("HAPTIC_")}
        job = {
            "arguments": [str(a) for a in arguments],
            "folder": str(self.folder),
            "environ": known | self.environ | dict(environ or {}),
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        return Said(status, (self.folder / "out").read_text(), (self.folder / "err").read_text())

    def fails(self, *arguments: object, words: tuple[object, ...], typed: str = "", **environ: str) -> None:
        """Check that a command ends with status 1 and one line of error that has these words."""
        said = self(*arguments, typed=typed, environ=environ)
        assert said.status == 1, said
        lines = said.err.strip().splitlines()
        assert len(lines) == 1, said.err
        assert lines[0].startswith(("error: ", "verify: FAILED: ")), said.err
        for word in words:
            assert str(word) in lines[0]

    def does(self, *arguments: object, typed: str = "", **environ: str) -> str:
        said = self(*arguments, typed=typed, environ=environ)
        assert said.status == 0, said
        return " ".join(said.out.split())


@pytest.fixture(scope="module")
def forker() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",))) as made:
        made.go_to(made.start(0) + 1)
        yield made


def _shell(forker: subprocess.Popen[str], net: Any, folder: Path) -> Shell:
    """Return the command line of somebody without a wallet, on the site of `net`."""
    names = ("HAPTIC_RPC_URL", "HAPTIC_DEPLOYMENT", "HAPTIC_PASSWORD")
    environ = {n: net.site.environ[n] for n in names} | {"HAPTIC_SERVICE": net.api.url}
    return Shell(forker, folder, environ)


@pytest.fixture
def haptic(forker: subprocess.Popen[str], net: Any, tmp_path: Path) -> Shell:
    return _shell(forker, net, tmp_path)


def _mine(shell: Shell, net: Any, name: str, **holding: int) -> str:
    """Give the shell a wallet of its own and return its address."""
    account = net.site.wallet(name, **holding)
    shell.environ["HAPTIC_KEYFILE"] = str(net.site.folder / "wallets" / f"{name}.json")
    return parse_address(account.address)


def _operator(shell: Shell, net: Any) -> None:
    shell.environ |= dict(net.site.environ)


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
    _mine(haptic, net, "locked")
    haptic.fails("stake", 5, HAPTIC_PASSWORD="guess", words=("password does not open", "locked.json"))


def test_a_password_comes_from_a_file_before_the_environment(haptic: Shell, net: Any) -> None:
    me = _mine(haptic, net, "by-file", staking=COIN)
    (haptic.folder / "pw").write_text(PASSWORD + "\n")
    found = haptic.does("stake", "1", "--dry-run", "--password-file", "pw", HAPTIC_PASSWORD="guess")
    assert me in found.lower()


# -- money --------------------------------------------------------------------------------------------------


def _state(net: Any, me: str) -> tuple[Any, ...]:
    d = net.ctx.deployment
    token = Contract("HapticToken", d.token)
    dollar = Contract("DevnetDollar", d.payment_token)
    return (
        net.view(d.stake_vault(), "stakedOf", me),
        net.view(d.stake_vault(), "pendingOf", me)[0],
        net.view(token, "balanceOf", me),
        net.view(dollar, "balanceOf", me),
        net.rpc.nonce(me),
    )


def test_what_a_dry_run_or_a_no_would_do_is_shown_and_not_done(haptic: Shell, net: Any) -> None:
    me = _mine(haptic, net, "dry", staking=10 * COIN, dollars=10 * DOLLAR)
    haptic.does("stake", "4", "--yes")
    before = _state(net, me)
    for command in (
        ("stake", "1.5"),
        ("unstake", "1.5"),
        ("unstake", "all"),
        ("fund", "1.5", "--run", "1", "--force"),
    ):
        assert "Dry run: nothing was sent." in haptic.does(*command, "--dry-run")
        assert "Nothing was sent." in haptic.does(*command, typed="n\n")
        assert _state(net, me) == before


def test_stake_goes_in_and_comes_out_to_the_last_unit(haptic: Shell, net: Any) -> None:
    me = _mine(haptic, net, "staker", staking=10 * COIN)
    shown = haptic.does("stake", "2.000000000000000001", typed="y\n")
    assert "2.000000000000000001 HPT staked" in shown
    assert _state(net, me)[:3] == (2 * COIN + 1, 0, 8 * COIN - 1)
    haptic.does("unstake", "0.5", "--yes")
    assert _state(net, me)[:3] == (1_500_000_000_000_000_001, COIN // 2, 8 * COIN - 1)
    haptic.fails("withdraw", "--yes", words=("0.5 HPT can be withdrawn in", "try again then"))
    haptic.does("unstake", "all", "--yes")
    assert _state(net, me)[:2] == (0, 2 * COIN + 1)


def test_after_the_cooldown_everything_is_back_in_the_wallet(haptic: Shell, net: Any) -> None:
    me = _mine(haptic, net, "leaver", staking=COIN)
    haptic.does("stake", "1", "--yes")
    haptic.does("unstake", "all", "--yes")
    available = net.view(net.ctx.deployment.stake_vault(), "pendingOf", me)[1]
    net.go_to(available)
    assert "1 HPT withdrawn" in haptic.does("withdraw", "--yes")
    assert _state(net, me)[:3] == (0, 0, COIN)
    haptic.fails("withdraw", "--yes", words=("asked nothing back",))


def test_what_was_asked_back_can_be_staked_again_or_paid_to_another(haptic: Shell, net: Any) -> None:
    me, other = _mine(haptic, net, "waverer", staking=COIN), parse_address("0x" + "ab" * 20)
    haptic.does("stake", "1", "--yes")
    haptic.does("unstake", "0.75", "--yes")
    haptic.fails("unstake", "0.76", "--cancel", "--yes", words=("has asked 0.75 HPT back", "0.76 HPT cannot"))
    assert "Dry run: nothing was sent." in haptic.does("unstake", "0.5", "--cancel", "--dry-run")
    assert "0.5 HPT staked again" in haptic.does("unstake", "0.5", "--cancel", "--yes")
    assert _state(net, me)[:2] == (3 * COIN // 4, COIN // 4)
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
    me = _mine(haptic, net, "paused", staking=2 * COIN)
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
    assert _state(net, me)[:2] == (COIN, COIN)


def test_the_bond_is_shown_added_to_and_taken_back_by_the_owner(haptic: Shell, net: Any) -> None:
    assert "1 ETH in the distributor; a post needs 1 ETH" in haptic.does("bond")
    _mine(haptic, net, "bonded")
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
    me = _mine(haptic, net, "poor", **holding)
    before = _state(net, me)
    haptic.fails(*arguments, *(() if arguments[0] == "score" else ("--yes",)), words=words)
    assert _state(net, me) == before


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
    _mine(haptic, net, "lost")
    haptic.fails("stake", "1", words=words, **environ)


def test_a_service_that_is_not_there_is_named_with_how_to_start_one(haptic: Shell, net: Any) -> None:
    _mine(haptic, net, "lost")
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
    me = _mine(haptic, net, f"two-{command}", staking=10 * COIN, dollars=10 * DOLLAR)
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
    me = _mine(haptic, net, "owner")
    soon = ("--genesis", net.now() + 600, *ROLES, "--epoch-length", 600, "--deployment", "new.json")
    for given, words in (
        (("--cooldown", 599, "--challenge-window", 60), ("cooldown 599", "600 s")),
        (("--cooldown", 600, "--challenge-window", 600), ("challenge window 600", "600 s")),
        (("--cooldown", 600, "--challenge-window", 60, "--genesis", net.now() * 1000), ("far from now",)),
    ):
        haptic.fails("deploy", *soon, *given, "--yes", words=words)
    assert net.rpc.nonce(me) == 0


def test_a_deployment_is_made_once_and_written_down(haptic: Shell, net: Any) -> None:
    me = _mine(haptic, net, "deployer")
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
    assert "nothing was sent" in haptic.does(*arguments, "--dry-run")
    assert net.rpc.nonce(me) == 0
    haptic.does(*arguments, "--yes")
    made = json.loads((haptic.folder / "new.json").read_text())
    assert (made["genesis"], made["epoch_length"], made["challenge_window"]) == (genesis, 600, 60)
    haptic.fails(*arguments, "--yes", words=("new.json exists already",))
    haptic.fails(*arguments, "--yes", "--poster", "0x11", "--deployment", "b.json", words=("poster", "0x11"))


def test_a_port_in_use_is_named_before_anything_starts(haptic: Shell, net: Any) -> None:
    _operator(haptic, net)
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
    ],
)
def test_a_service_with_wrong_settings_does_not_start(
    haptic: Shell, net: Any, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    _operator(haptic, net)
    if net.api.get("/epochs") == []:
        net.open(0, net.plans(0, 2))
    haptic.fails("serve", "--port", 0, words=words, **environ)


def test_from_a_ranking_to_a_verified_claim_on_the_command_line(haptic: Shell, net: Any) -> None:
    epoch = net.new_epoch()
    net.open(epoch, net.plans(epoch, 12))
    helpers = [net.person(100, epoch=epoch) for _ in range(3)]
    me = _mine(haptic, net, "claimer", staking=500 * COIN, dollars=10 * DOLLAR)
    haptic.does("stake", "500", "--yes")
    for who in helpers:
        net.judge(who)
    typed = "y\nB >> A\nbad\nA = B = C = D\nq\n"
    shown = haptic.does("rank", typed=typed)
    assert "not sent:" in shown
    assert "recorded as number 36" in shown
    assert "recorded as number 37: A = B = C = D" in shown
    assert "7 DUSD funded" in haptic.does("fund", "7", "--yes")
    assert "3 DUSD funded" in haptic.does("fund", "3", "--run", "9", "--force", "--yes")
    net.go_to(net.start(epoch + 1) + 1)
    _operator(haptic, net)
    haptic.fails("epoch", "post", "--epoch", epoch, "--yes", words=(f"epoch {epoch} is not closed",))
    assert "nothing was written" in haptic.does("epoch", "close", "--epoch", epoch, "--dry-run")
    for number in range(epoch + 1):
        if number == epoch:
            assert "closed" in haptic.does("epoch", "close", "--epoch", number)
            haptic.fails("epoch", "post", "--epoch", number, "--yes", words=("haptic epoch commit",))
            assert "nothing was sent" in haptic.does("epoch", "commit", "--epoch", number, "--dry-run")
            assert f"close epoch {number}: rankings 0x" in haptic.does(
                "epoch", "commit", "--epoch", number, "--yes"
            )
            assert "the chain has it already" in haptic.does("epoch", "commit", "--epoch", number)
        before = net.rows()
        assert "nothing was sent" in haptic.does("epoch", "post", "--epoch", number, "--dry-run")
        assert net.rows() == before
        haptic.does("epoch", "post", "--epoch", number, "--yes")
        assert "has it already" in haptic.does("epoch", "post", "--epoch", number, "--yes")
        haptic.fails("epoch", "activate", "--epoch", number, "--yes", words=("would refuse",))
        net.go_to(net.now() + 601)
        haptic.does("epoch", "activate", "--epoch", number, "--yes")
    net.go_to(net.now() + 1)
    jobs.step_index(net.ctx)
    for _ in range(epoch + 1):
        jobs.step_payout(net.ctx)
    assert "active" in haptic.does("epoch", "list")
    payee = helpers[0]
    haptic.environ["HAPTIC_KEYFILE"] = str(net.site.folder / "wallets" / f"person-{net._people - 2}.json")
    _score_is_told_in_coins(haptic, net, payee.address)
    before = _state(net, payee.address)
    assert "nothing was sent" in haptic.does("claim", "--dry-run")
    _claims_can_be_paused(haptic, net)
    assert _state(net, payee.address) == before
    haptic.does("claim", "--yes")
    assert _state(net, payee.address)[3] == net.view(
        net.ctx.deployment.revenue_distributor(), "claimed", payee.address
    )
    assert "Nothing new to claim" in haptic.does("claim", "--yes")
    assert parse_address(me) not in {
        s["wallet"].lower() for s in net.api.get("/leaderboard") if int(s["score"])
    }
    mine(net.rpc, 3)
    _verify_says_what_was_carried(haptic, net)
    _verify_names_what_was_changed(haptic, net, epoch)


def _claims_can_be_paused(haptic: Shell, net: Any) -> None:
    distributor = net.ctx.deployment.revenue_distributor()
    transact(net.rpc, net.site.owner, distributor, "pause")
    haptic.fails("claim", "--yes", words=("the guardian has paused claims", "nothing is lost"))
    transact(net.rpc, net.site.owner, distributor, "unpause")


def _score_is_told_in_coins(haptic: Shell, net: Any, who: str) -> None:
    said = haptic.does("score")
    assert who in said.lower()
    assert "· staked 100 HPT" in said
    allotted = int(net.api.get(f"/contributors/{who}")["allotted"])
    assert allotted > 0
    shown = f"{show_amount(allotted, 6)} DUSD"
    assert f"allotted {shown} · claimed 0 DUSD · claimable now {shown}" in said


def _verify_says_what_was_carried(haptic: Shell, net: Any) -> None:
    """Revenue came in the last epoch for a run that does not come, and none in epoch 0."""
    said = haptic("verify", "--bundle", net.ctx.place.bundles)
    *lines, end = said.out.splitlines()
    assert end == "verify: OK"
    with net.ctx.db.read() as db:
        carried = [sum(queries.carried(db, e).values()) for e in range(len(lines))]
    assert (carried[0], carried[-1]) == (0, 3 * DOLLAR)
    for line, units in zip(lines, carried, strict=True):
        assert ("carried" in line) == bool(units)
        assert not units or f" in all, {show_amount(units, 6)} DUSD carried to the next epoch, " in line
    # Where no --bundle is named, it is the service that the environment names.
    assert haptic("verify") == said


def _verify_names_what_was_changed(haptic: Shell, net: Any, epoch: int) -> None:
    path = net.ctx.place.bundle_path(epoch)
    kept = path.read_text()
    rows = [json.loads(line) for line in kept.splitlines()]
    leaf = next(r for r in rows if r["kind"] == "leaf")
    more = kept.replace(
        f'"cumulative":"{leaf["cumulative"]}"', f'"cumulative":"{int(leaf["cumulative"]) + 1}"', 1
    )
    assert more != kept
    path.write_text(more)
    haptic.fails("verify", "--bundle", path.parent, words=(f"epoch {epoch}", "leaf", leaf["account"]))
    path.write_text(kept)
    assert "verify: OK" in haptic.does("verify", "--bundle", path)


# -- ranking ------------------------------------------------------------------------------------------------


class Talk:
    """A command that is talked to line by line while it runs."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        program = Path(sys.executable).with_name("haptic")
        known = {k: v for k, v in os.environ.items() if not k.startswith("HAPTIC_")}
        self.process = subprocess.Popen(
            [program, *arguments], cwd=shell.folder, env=known | shell.environ,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said = ""

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def hears(self, *words: str) -> None:
        """Wait until all of these were said, one after the other, since the last time."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + 60
        for each in words:
            while each not in self.said:
                ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
                chunk = os.read(self.process.stdout.fileno(), 65536) if ready else b""
                assert chunk, f"{each!r} was not said after {self.said!r}"
                self.said += chunk.decode(errors="replace")
            self.said = self.said.split(each, 1)[1]

    def ends(self) -> int:
        """End the input and return the exit status."""
        self.process.communicate(timeout=30)
        return self.process.returncode


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
    me = _mine(haptic, net, "walker")
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


def test_a_task_is_kept_no_longer_than_its_epoch(haptic: Shell, net: Any, opened: int) -> None:
    _mine(haptic, net, "late")
    net.go_to(net.start(opened + 1) - 200)
    said = haptic.does("rank", typed="y\nq\n")
    assert f"stays yours until {show_time(net.start(opened + 1))}" in said


def test_an_input_that_ends_is_a_wish_to_stop_after_what_was_sent(
    haptic: Shell, net: Any, opened: int
) -> None:
    me = _mine(haptic, net, "piped")
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
    _mine(haptic, net, "night-owl")
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
    monkeypatch.setattr(sitting, "OPENING_S", 0.0)
    monkeypatch.setattr(sitting, "POLL_S", 0.01)
    found = sitting.Sitting(net.api, net.site.wallet("patient"), tmp_path / "receipts.jsonl")
    found._sign_in()
    with pytest.raises(ApiError, match=f"epoch {epoch} is not open yet"):
        found._next_task()


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


# -- before anything has happened ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def young(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a service before genesis."""
    with network(tmp_path_factory.mktemp("young"), Rules(methods=("ranking",))) as made:
        yield made


def test_where_nothing_is_posted_verify_says_so_and_is_neither_ok_nor_failed(
    forker: subprocess.Popen[str], young: Any, tmp_path: Path
) -> None:
    haptic = _shell(forker, young, tmp_path)
    for arguments in ((), ("--epoch", "0")):
        said = haptic("verify", *arguments)
        assert (said.status, said.err) == (2, "")
        assert "Nothing to verify yet: no epoch has been posted. Epoch 0 ends in 29 h" in said.out
        assert "verify:" not in said.out
    assert "2 when nothing was checked" in haptic.does("verify", "--help")


def test_before_epoch_0_nobody_signs_in_and_is_told_when_it_begins(
    forker: subprocess.Popen[str], young: Any, tmp_path: Path
) -> None:
    haptic = _shell(forker, young, tmp_path)
    _mine(haptic, young, "early")
    haptic.fails("rank", typed="y\n", words=("epoch 0 begins in", "min"))
