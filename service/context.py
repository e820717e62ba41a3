"""What a running service holds: settings, one node, one database, two keys; built once and passed down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from eth_account.signers.local import LocalAccount

from chain.contracts import Contract, call
from chain.deployment import Deployment, check_deployment
from chain.errors import SignerError
from chain.fees import GWEI
from chain.head import Head
from chain.keys import (
    PASSWORD_VARIABLE,
    address_of,
    assert_fast_crypto,
    check_private,
    load_keyfile,
    read_password,
    refuse_published_key,
)
from chain.messages import Domain, parse_address
from chain.rpc import Rpc
from chain.rules import Rules
from chain.signer import KeySigner, RemoteSigner, Signer
from chain.tree import SumTree
from chain.types import Address, Leaf, Wei
from service.clock import ChainClock, HeadView
from service.database import Database, open_database
from service.epochs import Place, check_secret
from service.errors import ConfigError, ConflictError
from service.feedback import Desk
from service.inclusion import LedgerTrees
from service.leaderboard import Boards
from service.once import Once
from service.settings import Settings


@dataclass(slots=True)
class Pulse:
    """When each job last ran, what it is waiting for and what it failed with, for /healthz."""

    ran_at: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    waits: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each job's last run took."""
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    """What the log last said of each job, without its numbers, and when."""
    failures: dict[str, int] = field(default_factory=dict)
    """How often each job failed since the start."""
    leads: bool = False
    """Of several replicas this one runs the clock."""

    def forget(self, job: str) -> None:
        """Forget what became of a job here: another replica runs it."""
        for known in (self.ran_at, self.errors, self.waits, self.seconds, self.told):
            known.pop(job, None)


class Unit(NamedTuple):
    """How people count a token: its symbol, and the decimals that its smallest units stand behind."""

    symbol: str
    decimals: int


class Payouts(NamedTuple):
    """What an active root pays: the leaves, and their tree."""

    leaves: Mapping[Address, Wei]
    tree: SumTree


class Trees:
    """The payout trees that proofs come from, each built once: an active root never changes."""

    KEPT = 2
    """The newest, and the one before for requests that began under it."""

    def __init__(self) -> None:
        self._made: Once[tuple[int, str], Payouts] = Once(self.KEPT)

    def find(self, epoch: int, root: str, read: Callable[[], Mapping[Address, Wei]]) -> Payouts:
        """Return the payouts of an active root, from `read` where they are not kept.

        ConflictError where what is read gives another root: no claim would pass.
        """
        return self._made.find((epoch, root), lambda: _payouts(epoch, root, read()))


def _payouts(epoch: int, root: str, leaves: Mapping[Address, Wei]) -> Payouts:
    tree = SumTree.build([Leaf(a, v) for a, v in sorted(leaves.items())])
    if tree.root_hash != root:
        raise ConflictError(
            f"the payouts of epoch {epoch} give the root {tree.root_hash}, the active one is {root}; "
            "restore the database from a backup"
        )
    return Payouts(leaves, tree)


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that routes and jobs need."""

    settings: Settings
    deployment: Deployment
    rpc: Rpc
    """The node as the jobs ask it, patiently."""
    reader: Rpc
    """The node as requests ask it: on a connection of their own, giving up soon, so that the jobs go on."""
    db: Database
    clock: ChainClock
    place: Place
    desk: Desk
    rules: Rules
    poster: Signer | None
    """Who signs for the account that posts roots; None without a key file or signer, in a replica that only serves."""
    token: Unit
    """The staked token."""
    payment: Unit
    """The token that revenue is paid in."""
    head: HeadView
    """The blocks that are not final yet."""
    trees: Trees = field(default_factory=Trees)
    ledgers: LedgerTrees = field(default_factory=LedgerTrees)
    boards: Boards = field(default_factory=Boards)
    pulse: Pulse = field(default_factory=Pulse)

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of all signed messages."""
        return self.place.domain

    def payer(self) -> Signer:
        """Return who signs what is posted; a ConfigError where nobody does here."""
        if self.poster is None:
            raise ConfigError(
                "the poster's key is missing: set HAPTIC_POSTER_KEYFILE, or HAPTIC_POSTER_SIGNER"
            )
        return self.poster

    def close(self) -> None:
        """Let go of the node, the signer and the database."""
        if isinstance(self.poster, RemoteSigner):
            self.poster.close()
        self.rpc.close()
        self.reader.close()
        self.db.engine.dispose()

    def epoch_now(self) -> int:
        """Return the epoch of the chain's head; negative before genesis."""
        return self.place.epoch_at(self.clock.now())


READ_TIMEOUT_S = 3.0
"""How long a request waits for the node."""


def _key(settings: Settings, name: str, chain_id: int) -> LocalAccount:
    path: Path = getattr(settings, f"{name}_keyfile")
    if not path.exists():
        raise ConfigError(
            f"there is no key file {path}: HAPTIC_{name.upper()}_KEYFILE names another, `haptic wallet {path}` makes one"
        )
    check_private(path, chain_id)
    environ = {PASSWORD_VARIABLE: settings.password.get_secret_value()}
    account = load_keyfile(path, read_password(settings.password_file, environ))
    refuse_published_key(address_of(account), chain_id)
    return account


def _poster(settings: Settings, chain_id: int) -> Signer | None:
    """Return who signs what is posted; None where neither a key file nor a signer is there."""
    named, limit = "poster_keyfile" in settings.model_fields_set, Wei(settings.max_fee_gwei * GWEI)
    if not settings.poster_signer:
        if settings.poster_address:
            raise ConfigError(
                "HAPTIC_POSTER_ADDRESS is for a signer: set HAPTIC_POSTER_SIGNER, or leave it out"
            )
        wanted = named or settings.poster_keyfile.exists()
        return KeySigner(_key(settings, "poster", chain_id), limit) if wanted else None
    if named:
        raise ConfigError("HAPTIC_POSTER_SIGNER and HAPTIC_POSTER_KEYFILE are both set: choose one of them")
    if not settings.poster_address:
        raise ConfigError("HAPTIC_POSTER_SIGNER needs HAPTIC_POSTER_ADDRESS: which of its accounts posts?")
    address = parse_address(settings.poster_address, "HAPTIC_POSTER_ADDRESS")
    refuse_published_key(address, chain_id)
    signer = RemoteSigner(settings.poster_signer, address, max_fee=limit)
    try:
        signer.check()
    except SignerError:
        signer.close()
        raise
    return signer


def _unit(rpc: Rpc, token: Address) -> Unit:
    contract = Contract("HapticToken", token)
    return Unit(str(call(rpc, contract, "symbol")), int(call(rpc, contract, "decimals")))


def build(settings: Settings, *, secret_is_lost: bool = False) -> Context:
    """Return the context of these settings; every wrong one is an error before anything is written.

    With `secret_is_lost`, HAPTIC_SECRET may be another than that of an epoch that is still open.
    """
    assert_fast_crypto()
    deployment = settings.load_deployment()
    rules = settings.rules()
    with ExitStack() as undo:
        rpc = undo.enter_context(Rpc(settings.rpc_url, chain_id=deployment.chain_id))
        check_deployment(rpc, deployment)
        token, payment = _unit(rpc, deployment.token), _unit(rpc, deployment.payment_token)
        reader = undo.enter_context(
            Rpc(settings.rpc_url, READ_TIMEOUT_S, retries=0, chain_id=deployment.chain_id)
        )
        poster = _poster(settings, deployment.chain_id)
        if isinstance(poster, RemoteSigner):
            undo.callback(poster.close)
        receipts = _key(settings, "receipt", deployment.chain_id)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        place = Place(
            deployment, settings.master, settings.folder("bundles"), settings.rpc_quorum, address_of(receipts)
        )
        db = open_database(settings.database)
        undo.callback(db.engine.dispose)
        if not secret_is_lost:
            with db.read() as session:
                check_secret(session, place)
        undo.pop_all()
    return Context(
        settings=settings, deployment=deployment, rpc=rpc, reader=reader, db=db, clock=ChainClock(reader),
        head=HeadView(Head(reader, deployment)),
        place=place,
        desk=Desk(place.domain, receipts), rules=rules, poster=poster, token=token, payment=payment,
    )  # fmt: skip
