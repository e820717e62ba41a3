"""A devnet that stays: chain, contracts, wallets, service and worker, until Ctrl-C, for a person to try."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from chain.contracts import Contract
from chain.devnet import Devnet
from chain.keys import address_of
from chain.rpc import Rpc
from chain.transactions import transact
from service.cli.shared import check_port
from service.devnet import COIN, DOLLAR, PASSWORD, Site, clear, held, prepare, process, wait_until_served
from service.terminal import out

NAMES = ("alice", "bob", "carol")
BLOCK_TIME_S = 1
WINDOW_S = 30


def _say(site: Site, url: str, epoch_length: int) -> None:
    first = site.folder / "wallets" / f"{NAMES[0]}.json"
    out.print(f"""
[bold]A devnet runs[/] · chain {site.rpc.name} · service {url} · epochs of {epoch_length} s · Ctrl-C ends it

In another terminal (with [bold].venv/bin[/] on your PATH):

  export HAPTIC_RPC_URL={site.rpc.name} HAPTIC_SERVICE={url} HAPTIC_PASSWORD={PASSWORD}
  export HAPTIC_DEPLOYMENT={site.folder / "deployment.json"}
  export HAPTIC_KEYFILE={first}          [dim]# or {", ".join(NAMES[1:])}[/]

  haptic stake 100          haptic rank          haptic score
  haptic fund 50            haptic claim         haptic verify

The first model is being made ({site.folder / "worker.log"});
then the running epoch opens and [bold]haptic rank[/] has tasks.
""")


def run(folder: Path, port: int, rpc_port: int, epoch_length: int) -> None:
    """Start everything and wait for Ctrl-C."""
    folder = folder.resolve()
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", rpc_port, "--rpc-port")
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        stack.enter_context(held(folder))
        clear(folder)
        chain = stack.enter_context(Devnet(port=rpc_port, block_time=BLOCK_TIME_S))
        rpc = stack.enter_context(Rpc(chain.url))
        genesis = rpc.block("latest").timestamp + 20
        site = prepare(
            rpc, folder, genesis=genesis, epoch_length=epoch_length, window=WINDOW_S, cooldown=epoch_length,
            extra={"HAPTIC_PORT": str(port)},
        )  # fmt: skip
        dollar = Contract("DevnetDollar", site.deployment.payment_token)
        for name in NAMES:
            account = site.wallet(name, staking=1000 * COIN)
            transact(rpc, site.owner, dollar, "mint", address_of(account), 1000 * DOLLAR)
        served = stack.enter_context(process("serve", ["serve"], site))
        wait_until_served(url, served, folder / "serve.log")
        worker = stack.enter_context(process("worker", ["worker", "--bootstrap"], site))
        _say(site, url, epoch_length)
        try:
            while served.poll() is None and worker.poll() is None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            out.print("Stopping.")
            return
        out.print(
            f"[red]A process ended by itself; see {folder / 'serve.log'} and {folder / 'worker.log'}[/]"
        )
