"""The command line of somebody in a test: `haptic` in a folder of their own, typed at and listened to."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chain.contracts import Contract
from chain.messages import parse_address

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


class Talk:
    """A command that is talked to line by line while it runs."""

    def __init__(self, shell: Shell, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        program = Path(sys.executable).with_name("haptic")
        known = {k: v for k, v in os.environ.items() if not k.startswith("HAPTIC_")}
        self.process = subprocess.Popen(
            [program, *arguments], cwd=shell.folder, env=known | shell.environ | dict(environ or {}),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said = ""

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode(errors="surrogateescape") + b"\n")
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


def open_shell(forker: subprocess.Popen[str], net: Any, folder: Path) -> Shell:
    """Return the command line of somebody without a wallet, on the site of `net`."""
    names = ("HAPTIC_RPC_URL", "HAPTIC_DEPLOYMENT", "HAPTIC_PASSWORD")
    environ = {n: net.site.environ[n] for n in names} | {"HAPTIC_SERVICE": net.api.url}
    return Shell(forker, folder, environ)


def take_wallet(shell: Shell, net: Any, name: str, **holding: int) -> str:
    """Give the shell a wallet of its own and return its address."""
    account = net.site.wallet(name, **holding)
    shell.environ["HAPTIC_KEYFILE"] = str(net.site.folder / "wallets" / f"{name}.json")
    return parse_address(account.address)


def operate(shell: Shell, net: Any) -> None:
    shell.environ |= dict(net.site.environ)


def holdings(net: Any, me: str) -> tuple[Any, ...]:
    """Return staked, asked back, tokens, dollars and nonce of an account."""
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
