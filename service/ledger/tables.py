"""Tables of the service. Amounts and score integers are decimal strings: SQLite's integers end at 64 bits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from chain.ledger import Uint


def _json() -> Any:
    return Field(sa_column=Column(JSON, nullable=False))


def _run() -> Any:
    """Return a key column for any uint64 that a payer names: too wide for a signed one."""
    return Field(sa_type=Uint, primary_key=True, sa_column_kwargs={"autoincrement": False})


class EpochRow(SQLModel, table=True):
    """An epoch from its opening: what was committed to before the first task."""

    __tablename__ = "epoch"
    epoch: int = Field(primary_key=True)
    seed_hash: str
    gold_root: str
    rules_hash: str
    rules: dict[str, Any] = _json()
    lambda_num: str
    lambda_den: str
    """The price of stake that the chain was told; it is scored by what follows from the epoch before."""
    opened_at: int = Field(sa_type=BigInteger)
    """Block time, Unix seconds."""
    committed_at: int | None = Field(default=None, sa_type=BigInteger)
    """When the chain learned what was committed to; nobody is asked anything before."""
    abandoned_at: int | None = Field(default=None, sa_type=BigInteger)
    """When its operator gave it up, because what it was opened with cannot be revealed: no ranking of it counts."""
    closed_at: int | None = Field(default=None, sa_type=BigInteger)
    next_num: str | None = None
    next_den: str | None = None
    """The price of stake that followed from its close."""
    anchored_at: int | None = Field(default=None, sa_type=BigInteger)
    """When the chain learned what came of it; nothing is posted before."""


class TaskRow(SQLModel, table=True):
    """A task of an epoch; append-only."""

    __tablename__ = "task"
    epoch: int = Field(primary_key=True)
    task: str = Field(primary_key=True)
    prompt: str
    responses: list[str] = _json()
    methods: list[str] = _json()
    origins: list[str] = _json()
    """Name of the model behind each response, in the same order; never shown before the close."""
    assignees: list[str] = _json()
    """When not empty, only these wallets are handed the task."""
    gold_ranks: list[int] = _json()
    """Known dense ranks in the order of `responses`; empty for an ordinary task."""
    gold_salt: str = ""


class LeaseRow(SQLModel, table=True):
    """A task in a wallet's hands."""

    __tablename__ = "lease"
    epoch: int = Field(primary_key=True)
    wallet: str = Field(primary_key=True)
    task: str = Field(primary_key=True, index=True)
    expires_at: int = Field(sa_type=BigInteger)
    done: bool = False
    staked: bool = False
    """The wallet had stake when it was handed the task; only then it counts among the judgements wanted."""


class SessionRow(SQLModel, table=True):
    """A signed session: the login of a wallet for an epoch, and the key that may sign for it."""

    __tablename__ = "session"
    digest: str = Field(primary_key=True)
    epoch: int = Field(index=True)
    wallet: str = Field(index=True)
    message: dict[str, Any] = _json()
    signature: str
    token_hash: str = Field(index=True)
    """sha256 of the bearer token: a stolen database logs nobody in."""
    block: int | None = Field(default=None, sa_type=BigInteger)
    """Finalized block at which the wallet's own code accepted the signature, where no key of its gave it."""


class LoginRow(SQLModel, table=True):
    """A login by Sign-In with Ethereum; its nonce serves no other."""

    __tablename__ = "login"
    nonce: str = Field(primary_key=True)
    wallet: str
    token_hash: str = Field(index=True)
    expires_at: int = Field(sa_type=BigInteger, index=True)


class AnswerRow(SQLModel, table=True):
    """What a request with an idempotency key was answered, for as long as its epoch runs."""

    __tablename__ = "answer"
    wallet: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    epoch: int = Field(index=True)
    request_hash: str
    status: int
    answer: dict[str, Any] = _json()


class RankingRow(SQLModel, table=True):
    """An accepted ranking; append-only, every revision."""

    __tablename__ = "ranking"
    __table_args__ = (
        UniqueConstraint("epoch", "wallet", "task", "revision"),
        Index("ranking_epoch_task", "epoch", "task"),
    )
    epoch: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    digest: str = Field(index=True)
    wallet: str
    signer: str
    """The wallet itself, or the session key that signed for it."""
    task: str
    revision: int
    message: dict[str, Any] = _json()
    signature: str
    comment: str = ""
    received_at: int = Field(sa_type=BigInteger)
    receipt: str
    """The service's signature on the Receipt."""
    block: int | None = Field(default=None, sa_type=BigInteger)
    """Finalized block at which the wallet's own code accepted the signature, where no key gave it."""


class ScoreRow(SQLModel, table=True):
    """A wallet after an epoch: its bundle line, and what stands out of it for sorting."""

    __tablename__ = "score"
    epoch: int = Field(primary_key=True)
    wallet: str = Field(primary_key=True, index=True)
    line: dict[str, Any] = _json()


class PoolRow(SQLModel, table=True):
    """Revenue of a run in an epoch."""

    __tablename__ = "pool"
    epoch: int = Field(primary_key=True)
    run: int = _run()
    funded: str
    carried_in: str
    carried_out: str


class ShareRow(SQLModel, table=True):
    """What a wallet was allotted of a pool in an epoch."""

    __tablename__ = "share"
    epoch: int = Field(primary_key=True)
    run: int = _run()
    wallet: str = Field(primary_key=True, index=True)
    amount: str


class LeafRow(SQLModel, table=True):
    """An account's cumulative payout, a row only where it changed."""

    __tablename__ = "leaf"
    epoch: int = Field(primary_key=True)
    account: str = Field(primary_key=True, index=True)
    cumulative: str


class MatchRow(SQLModel, table=True):
    """How often one model's answer was labelled better than another's in an epoch."""

    __tablename__ = "match"
    epoch: int = Field(primary_key=True)
    winner: str = Field(primary_key=True)
    loser: str = Field(primary_key=True)
    count: int


class RunRow(SQLModel, table=True):
    """A retraining and the data it learns from."""

    __tablename__ = "run"
    run: int = Field(primary_key=True)
    first: int
    last: int
    snapshot: str
    """0x and the sha256 of the data file."""
    model: str
    """Registry name of the policy that comes out."""
    declared_in: int | None = None
    """Epoch whose bundle first names this run."""
    job: int


class JobRow(SQLModel, table=True):
    """Work for the worker process: one trainer command, tried until it succeeds or needs an operator."""

    __tablename__ = "job"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    """What it is for, such as `retrain/1`; asking twice for the same work asks once."""
    arguments: list[str] = _json()
    state: str = "queued"
    """queued, running, done or failed."""
    attempts: int = 0
    heartbeat_at: float = 0.0
    """Wall clock of the worker's last sign of life, Unix seconds."""
    worker: str = ""
    """Token of the worker process that holds it."""
    progress: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    error: str = ""
    log: str = ""
    """Path of the log; one file for all attempts."""
