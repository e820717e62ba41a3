"""A devnet that stays: chain, contracts, wallets, service and worker, until Ctrl-C, for a person to try."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from chain.contracts import Contract
from chain.devnet import Devnet
from chain.errors import HapticError
from chain.keys import address_of
from chain.rpc import Rpc
from chain.rules import Rules
from chain.transactions import transact
from service.answers import ApiError
from service.api import Api
from service.cli.shared import check_port
from service.devnet import COIN, DOLLAR, PASSWORD, Site, clear, held, prepare, process, wait_until_served
from service.terminal import out, show_time

NAMES = ("alice", "bob", "carol")
BLOCK_TIME_S = 1
WINDOW_S = 30
OPERATOR = "operator.env"
RULES = Rules(methods=("ranking", "likert"))
"""Each method fits every task: three people who share none prove nothing about each other."""
TASKS = 24
"""Tasks of an epoch: so few that three people rank all of them, for what only one says proves nothing."""
RETRAIN_AFTER = 100
"""Labelled comparisons that start a retraining: what an epoch that they rank through gives."""
GATE_COMPARISONS = 12
"""Votes that decide about a new model, which an epoch gives too: so few let through what wins 10 of 12."""


def _opening(site: Site, url: str) -> str:
    """Return what a person needs to know to try it by hand."""
    first, d = site.folder / "wallets" / f"{NAMES[0]}.json", site.deployment
    return f"""
[bold]A devnet runs[/] · chain {site.rpc.name} · service {url} · epochs of {d.epoch_length} s · Ctrl-C ends it for good

In another terminal:

  export PATH={Path(sys.executable).parent}:$PATH
  export HAPTIC_RPC_URL={site.rpc.name} HAPTIC_SERVICE={url} HAPTIC_PASSWORD={PASSWORD}
  export HAPTIC_DEPLOYMENT={site.folder / "deployment.json"}
  export HAPTIC_KEYFILE={first}          [dim]# or {", ".join(NAMES[1:])}[/]

  haptic stake 100          haptic rank          haptic score
  haptic fund 50            haptic claim         haptic verify

As its operator (status, index, epoch): [bold]set -a; . {site.folder / OPERATOR}; set +a[/]

Logs in {site.folder}: serve.log (API and clock), worker.log (which job runs), logs/ (what each job does).

[bold]stake[/] and [bold]fund[/] work at once.
[bold]rank[/] needs a model. The first is being made, in about a minute ({site.folder / "logs" / "bootstrap.log"}),
unless an earlier devnet left one;
it is ready when this terminal says so, and {url}/v1/jobs says "epoch … is open".
Stake and rank with all three, until no task is left ({TASKS} each): what one wallet says alone proves nothing,
and earns nothing.
[bold]score[/], [bold]verify[/] and [bold]claim[/] need an epoch to pass: epoch 0 ends at {show_time(d.epoch_end(0))}.
Its root is posted some seconds later; then verify reads it.
It pays claims {d.challenge_window} s after that, when its challenge window is over.
"""


def _write_settings(site: Site) -> None:
    """Write down the settings of the service, for who plays its operator; a devnet's secrets are nobody's."""
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in sorted(site.environ.items()))
    (site.folder / OPERATOR).write_text("".join(lines), encoding="utf-8")


def _opened(api: Api) -> int | None:
    """Return the newest epoch that has tasks; None where there is none, or the service is too busy to say."""
    try:
        return max((e["epoch"] for e in api.get("/epochs") if e["tasks"]), default=None)
    except ApiError:
        return None


def _watch(api: Api, *processes: subprocess.Popen[bytes]) -> None:
    """Say when the first epoch is open; return when a process ends."""
    told = False
    while all(p.poll() is None for p in processes):
        if not told and (epoch := _opened(api)) is not None:
            out.print(
                f"[green]✓[/] The first model is ready: epoch {epoch} is open, `haptic rank` has tasks."
            )
            told = True
        time.sleep(0.5)


def run(folder: Path, port: int, rpc_port: int, epoch_length: int) -> None:
    """Start everything and wait for Ctrl-C."""
    folder = folder.resolve()
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", rpc_port, "--rpc-port")
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        stack.enter_context(held(folder))
        if clear(folder):
            out.print(
                f"Cleared what an earlier devnet left in {folder}; its first model stays.", soft_wrap=True
            )
        rules_file = folder / "rules.json"
        rules_file.write_text(json.dumps(RULES.to_json()), encoding="utf-8")
        chain = stack.enter_context(Devnet(port=rpc_port, block_time=BLOCK_TIME_S))
        rpc = stack.enter_context(Rpc(chain.url))
        genesis = rpc.block("latest").timestamp + 20
        site = prepare(
            rpc, folder, genesis=genesis, epoch_length=epoch_length, window=WINDOW_S, cooldown=epoch_length,
            extra={
                "HAPTIC_PORT": str(port), "HAPTIC_RULES_FILE": str(rules_file), "HAPTIC_TASKS_PER_EPOCH": str(TASKS),
                "HAPTIC_RETRAIN_AFTER": str(RETRAIN_AFTER), "HAPTIC_GATE_COMPARISONS": str(GATE_COMPARISONS),
                "HAPTIC_GATE_EPOCHS": "2",
            },
        )  # fmt: skip
        dollar = Contract("DevnetDollar", site.deployment.payment_token)
        for name in NAMES:
            account = site.wallet(name, staking=1000 * COIN)
            transact(rpc, site.owner, dollar, "mint", address_of(account), 1000 * DOLLAR)
        served = stack.enter_context(process("serve", ["serve"], site))
        wait_until_served(url, served, folder / "serve.log")
        worker = stack.enter_context(process("worker", ["worker", "--bootstrap"], site))
        _write_settings(site)
        out.print(_opening(site, url), soft_wrap=True)  # so that no line to paste is broken
        api = stack.enter_context(Api(url))
        try:
            _watch(api, served, worker)
        except KeyboardInterrupt:
            out.print("Stopping.")
            return
        ended = "serve" if served.poll() is not None else "worker"
        raise HapticError(
            f"`haptic {ended}` ended by itself, and a devnet is nothing without it; see {folder / f'{ended}.log'}"
        )
