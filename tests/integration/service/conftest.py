"""A whole service on a chain of its own: real contracts, real wallets, real HTTP; its jobs are called by hand."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account.signers.local import LocalAccount
from sqlmodel import SQLModel, select

from chain.contracts import Contract, call
from chain.devnet import Devnet, mine, warp
from chain.feedback import Task, dense_ranks
from chain.keys import address_of
from chain.messages import Ranking, sign
from chain.rpc import Rpc
from chain.rules import Rules
from chain.transactions import transact
from chain.types import Address
from service import jobs
from service.answers import Task as Shown
from service.api import Api
from service.app import create_app
from service.arena import Plan, methods_for
from service.client import Contributor
from service.clock import ChainClock
from service.context import Context, build
from service.devnet import COIN, Site, prepare
from service.epochs import open_epoch
from service.ledger import queries
from service.server import Server
from service.settings import Settings
from tests.integration.service.shell import ZYGOTE, Shell, open_shell

EPOCH_S, WINDOW_S, LEAD_S = 100_000, 600, 1000
RANKING_ONLY = Rules(methods=("ranking",))


@dataclass
class Net:
    """A service and everything it runs on."""

    chain: Devnet
    rpc: Rpc
    site: Site
    ctx: Context
    api: Api
    rules: Rules
    _people: int = field(default=0)

    # -- time ----------------------------------------------------------------------------------------------

    def now(self) -> int:
        return self.rpc.block("latest").timestamp

    def start(self, epoch: int) -> int:
        return self.ctx.place.start(epoch)

    def go_to(self, timestamp: int) -> None:
        """Move block time forward; what was there before is final after it."""
        if timestamp > self.now():
            warp(self.rpc, timestamp)
        mine(self.rpc, 3)

    # -- epochs --------------------------------------------------------------------------------------------

    def plans(self, epoch: int, count: int, size: int = 4, **options: Any) -> list[Plan]:
        """Return tasks whose answers say how good they are: "good 1" is better than "good 0"."""
        made = []
        for n in range(count):
            # Every answer is as long as any other, so that style plays no part.
            texts = [f"answer {n:03d} of epoch {epoch}: good {i}" for i in range(size)]
            task = Task.of(
                f"prompt {n:03d} of epoch {epoch}", texts, methods_for(size, self.rules.methods),
                options.get("author", ""), options.get("assignees", ()),
            )  # fmt: skip
            gold = tuple(size - i for i in map(quality, task.responses)) if n < options.get("gold", 0) else ()
            models = options.get("models", ("model-0", "model-1"))
            origins = tuple(models[quality(t) % 2] for t in task.responses)
            made.append(Plan(task, origins, gold))
        return made

    def open(self, epoch: int, plans: Sequence[Plan]) -> None:
        with self.ctx.db.write() as db:
            open_epoch(db, self.ctx.place, epoch, plans, self.rules, self.now())
            db.commit()
        jobs.step_commit(self.ctx)

    def new_epoch(self) -> int:
        """Go to the next epoch, close all before it, and return its number; it is not open yet."""
        number = self.ctx.epoch_now() + 1
        self.go_to(self.start(number) + 1)
        jobs.step_index(self.ctx)
        with self.ctx.db.read() as db:
            following = queries.last_closed(db) + 1
        for epoch in range(following, number):
            jobs._open_empty(self.ctx, epoch)
            assert jobs.close_epoch(self.ctx, epoch) is not None
        jobs.step_commit(self.ctx)
        return number

    # -- people --------------------------------------------------------------------------------------------

    def person(self, stake: int = 100, *, epoch: int | None = 0, **session: Any) -> Contributor:
        """Return a new wallet that has staked so many tokens and logged in."""
        self._people += 1
        account = self.site.wallet(f"person-{self._people}", staking=stake * COIN)
        if stake:
            self.stake(account, address_of(account), stake * COIN)
        found = Contributor(self.api, account, self.ctx.domain)
        if epoch is not None:
            found.log_in(epoch=epoch, now=self.now(), **session)
        return found

    def stake(self, payer: LocalAccount, wallet: Address, amount: int, *, final: bool = True) -> None:
        """Let somebody stake so much, in wei, for a wallet, until it is `final`: by that it is handed tasks."""
        vault = self.ctx.deployment.stake_vault()
        token = Contract("HapticToken", self.ctx.deployment.token)
        transact(self.rpc, payer, token, "approve", vault.address, amount)
        transact(self.rpc, payer, vault, "stakeFor", wallet, amount)
        if final:
            mine(self.rpc, 3)

    def sponsor(self, wallet: str) -> str:
        """Stake a token for a wallet that has none itself, and return it."""
        self.stake(self.site.owner, Address(wallet.lower()), COIN)
        return wallet

    def unstake(self, who: Contributor) -> None:
        """Let somebody ask all its stake back, until that is final."""
        vault = self.ctx.deployment.stake_vault()
        transact(self.rpc, who.wallet, vault, "requestUnstake", self.view(vault, "stakedOf", who.address))
        mine(self.rpc, 3)

    def judge(self, who: Contributor, count: int = 1000, *, wrong: bool = False) -> int:
        """Let somebody judge what it is handed, rightly or all wrong; return how many."""
        for done in range(count):
            task = who.next_task()
            if task is None:
                return done
            ranks = dense_ranks([-quality(t) if wrong else quality(t) for t in task.shown])
            who.send(who.ranking(task, ranks, now=self.now()))
        return count

    def fund(self, run: int, amount: int) -> None:
        payer = self.site.wallet("payer", dollars=amount)
        dollar = Contract("DevnetDollar", self.ctx.deployment.payment_token)
        transact(self.rpc, payer, dollar, "approve", self.ctx.deployment.distributor, amount)
        transact(self.rpc, payer, self.ctx.deployment.revenue_distributor(), "fund", run, amount)

    def view(self, contract: Contract, function: str, *args: Any) -> Any:
        return call(self.rpc, contract, function, *args)

    # -- what is stored ------------------------------------------------------------------------------------

    def rows(self) -> dict[str, list[Any]]:
        """Return every row of every table."""
        with self.ctx.db.read() as db:
            return {
                t.name: [tuple(map(str, row)) for row in db.connection().execute(select(t))]
                for t in SQLModel.metadata.sorted_tables
            }

    @contextmanager
    def nothing_written(self) -> Iterator[None]:
        """Check that not one row is added, changed or removed."""
        before = self.rows()
        yield
        assert self.rows() == before

    def ask(
        self, method: str, path: str, body: Any = None, token: str = "", **options: Any
    ) -> httpx.Response:
        """Send a request whatever is wrong with it."""
        if body is not None:
            options["content"] = json.dumps(body).encode()
        headers = {"content-type": "application/json"} | (
            {"authorization": f"Bearer {token}"} if token else {}
        )
        return self.api._http.request(method, path, headers=headers | options.pop("headers", {}), **options)

    def refused(self, status: int, *words: str, **request: Any) -> None:
        """Check that the service refuses a request with these words, as RFC 9457 wants it, and writes nothing."""
        with self.nothing_written():
            answer = self.ask(**request)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        for word in words:
            assert word in answer.json()["detail"]

    def refused_ranking(
        self, status: int, *words: str, ranking: Ranking, by: Any, comment: str = "", domain: Any = None
    ) -> None:
        """Check that a ranking signed by the account `by` is refused."""
        body = {"ranking": ranking.to_json(), "signature": sign(ranking, domain or self.ctx.domain, by)}
        self.refused(status, *words, method="POST", path="/v1/rankings", body=body | {"comment": comment})


def quality(text: str) -> int:
    return int(text.rsplit(" ", 1)[1])


def _bound() -> socket.socket:
    """Return a socket at a free port, which people sign in at by the service's settings."""
    # With the protocol named, asyncio turns Nagle's algorithm off: else each answer takes 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    return listening


@contextmanager
def _served(ctx: Context, listening: socket.socket) -> Iterator[str]:
    """Serve a context over HTTP in a thread, without the clock, and yield its URL."""
    app = create_app(ctx, clock=False)
    server = Server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def _network(folder: Path, rules: Rules, **settings: Any) -> Iterator[Net]:
    rules_file = folder / "rules.json"
    rules_file.write_text(json.dumps(rules.to_json()))
    with _bound() as listening, Devnet(0) as chain, Rpc(chain.url) as rpc:
        genesis = rpc.block("latest").timestamp + LEAD_S
        site = prepare(
            rpc, folder, genesis=genesis, epoch_length=EPOCH_S, window=WINDOW_S, cooldown=EPOCH_S,
            extra={"HAPTIC_RULES_FILE": str(rules_file)},
        )  # fmt: skip
        known = {k.removeprefix("HAPTIC_").lower(): v for k, v in site.environ.items()}
        ctx = build(Settings(**(known | {"port": listening.getsockname()[1]} | settings)))
        # No answer of the clock is kept: block time jumps in these tests.
        ctx = replace(ctx, clock=ChainClock(ctx.rpc, 0.0))
        with _served(ctx, listening) as url, Api(url) as api:
            yield Net(chain, rpc, site, ctx, api, rules)


@pytest.fixture(scope="session")
def network() -> Callable[..., Any]:
    """Return the way to a service of one's own, in a folder: `with network(folder, rules) as net`."""
    return _network


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """Start one service for all tests that only need epoch 0 to be open; each brings wallets of its own."""
    with _network(tmp_path_factory.mktemp("net"), RANKING_ONLY) as made:
        made.go_to(made.start(0) + 1)
        made.open(0, made.plans(0, 60, gold=4))
        yield made


@pytest.fixture(scope="session")
def right() -> Callable[[Shown], tuple[int, ...]]:
    """Return the right ranks of what is shown."""
    return lambda task: dense_ranks([quality(t) for t in task.shown])


@pytest.fixture
def stranger() -> Address:
    """Return an address nobody has the key of."""
    return Address("0x" + secrets.token_hex(20))


@pytest.fixture(scope="module")
def forker() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def haptic(forker: subprocess.Popen[str], net: Any, tmp_path: Path) -> Shell:
    return open_shell(forker, net, tmp_path)
