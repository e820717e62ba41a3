"""The command line as people use it: what it says, what it sends, and that an error is one line and exit status 1."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from chain.contracts import Contract
from chain.devnet import mine
from chain.keys import load_keyfile
from chain.messages import parse_address
from chain.rules import Rules
from service import jobs
from service.cli import app
from service.devnet import COIN, DOLLAR, PASSWORD

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


@pytest.fixture
def haptic(forker: subprocess.Popen[str], net: Any, tmp_path: Path) -> Shell:
    """Return the command line of somebody without a wallet, on the site of `net`."""
    names = ("HAPTIC_RPC_URL", "HAPTIC_DEPLOYMENT", "HAPTIC_PASSWORD")
    environ = {n: net.site.environ[n] for n in names} | {"HAPTIC_SERVICE": net.api.url}
    return Shell(forker, tmp_path, environ)


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
    me = _mine(haptic, net, "claimer", staking=500 * COIN, dollars=7 * DOLLAR)
    haptic.does("stake", "500", "--yes")
    for who in helpers:
        net.judge(who)
    typed = "y\nB >> A\nbad\nA = B = C = D\nq\n"
    shown = haptic.does("rank", typed=typed)
    assert "not sent:" in shown
    assert "recorded as number 36" in shown
    assert "recorded as number 37: A = B = C = D" in shown
    assert "7 DUSD funded" in haptic.does("fund", "7", "--yes")
    net.go_to(net.start(epoch + 1) + 1)
    _operator(haptic, net)
    haptic.fails("epoch", "post", "--epoch", epoch, "--yes", words=(f"epoch {epoch} is not closed",))
    assert "nothing was written" in haptic.does("epoch", "close", "--epoch", epoch, "--dry-run")
    for number in range(epoch + 1):
        if number == epoch:
            assert "closed" in haptic.does("epoch", "close", "--epoch", number)
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
    assert payee.address in haptic.does("score").lower()
    before = _state(net, payee.address)
    assert "nothing was sent" in haptic.does("claim", "--dry-run")
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
    assert "verify: OK" in haptic.does("verify", "--bundle", net.ctx.place.bundles)
    _verify_names_what_was_changed(haptic, net, epoch)


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
