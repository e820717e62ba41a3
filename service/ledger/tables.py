"""Tables of the service. Amounts and score integers are decimal strings: SQLite's integers end at 64 bits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, TextClause, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from chain.ledger import Uint


def _json() -> Any:
    return Field(sa_column=Column(JSON, nullable=False))


OPEN = text("taken < wanted AND assignees = ''")
"""Of a tally: more judgements are wanted, by anybody. A query has to say it in these words to be answered by an index."""
RESERVED = text("assignees <> ''")
"""Of a tally: the task is for certain wallets, however many have judged it; in the same way."""


def _partly(name: str, *columns: str, where: TextClause) -> Index:
    """Return an index of those rows alone that are still searched: what is over would be most of it."""
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


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
    entries: int = 0
    """Hand-outs and skips so far: the number of the next."""
    last_at: int = Field(default=0, sa_type=BigInteger)
    """Block time of the last hand-out, skip or ranking: the epoch's log never goes back in time."""
    redacted: int = 0
    """Responses that were changed before they were shown."""
    retired: int = 0
    """Gold tasks that proved wrong at the close."""
    style_bias: list[int] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """Per style bucket, how far the truth leaned to the longer response, ppm; from the close on."""


class TaskRow(SQLModel, table=True):
    """A task of an epoch; append-only until the close."""

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
    author: str = ""
    """Wallet that the prompt is of, who is not handed the task; empty where nobody is named."""
    salt: str = ""
    """What makes the task's name one that nobody can compute; never shown before the close."""
    gold_ranks: list[int] = _json()
    """Known dense ranks in the order of `responses`; empty for an ordinary task."""
    gold_salt: str = ""
    retired: bool = False
    """Its known ranks proved wrong, so that it was scored as an ordinary task."""
    redacted: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """What was changed in responses before they were shown: hash shown, original text, names, control characters."""


class TallyRow(SQLModel, table=True):
    """What has come of a task so far, and what it takes to choose it; narrow, because each hand-out searches it."""

    __tablename__ = "tally"
    __table_args__ = (
        _partly("tally_open", "epoch", "taken", "task", where=OPEN),
        _partly("tally_reserved", "epoch", "taken", "task", where=RESERVED),
    )
    epoch: int = Field(primary_key=True)
    task: str = Field(primary_key=True)
    methods: str
    """With a comma before and after each."""
    author: str = ""
    assignees: str = ""
    """With a comma before and after each; empty for a task that is for everybody."""
    taken: int = 0
    """Judgements that wallets have given, or may give because they hold the task."""
    done: int = 0
    """Those that are given."""
    wanted: int
    votes: list[int] = _json()
    """What the given ones say of each pair, added up."""


class HandoutRow(SQLModel, table=True):
    """A task was given to a wallet; append-only, a line of the bundle."""

    __tablename__ = "handout"
    __table_args__ = (Index("handout_wallet", "epoch", "wallet"),)
    epoch: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    """Place among the hand-outs and skips of its epoch."""
    wallet: str
    task: str
    at: int = Field(sa_type=BigInteger)
    after: int
    """How many rankings had been accepted before."""


class SkipRow(SQLModel, table=True):
    """A wallet gave a task back unjudged; append-only, a line of the bundle."""

    __tablename__ = "skip"
    __table_args__ = (Index("skip_wallet", "epoch", "wallet"),)
    epoch: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    wallet: str
    task: str
    reason: str
    at: int = Field(sa_type=BigInteger)
    after: int


class LeaseRow(SQLModel, table=True):
    """A task in a wallet's hands, or what became of it."""

    __tablename__ = "lease"
    __table_args__ = (
        _partly("lease_held", "epoch", "wallet", where=text("live")),
        _partly("lease_ends", "epoch", "expires_at", where=text("live")),
    )
    epoch: int = Field(primary_key=True)
    wallet: str = Field(primary_key=True)
    task: str = Field(primary_key=True)
    number: int = 0
    """Of its hand-out, the last where there were several."""
    expires_at: int = Field(sa_type=BigInteger)
    live: bool = True
    """The wallet holds it; once its time is over, until somebody asks for a task."""
    done: bool = False
    skipped: bool = False


class SessionRow(SQLModel, table=True):
    """A signed session: the login of a wallet for an epoch, and the key that may sign for it."""

    __tablename__ = "session"
    __table_args__ = (Index("session_wallet", "epoch", "wallet"),)
    digest: str = Field(primary_key=True)
    epoch: int
    wallet: str
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
        Index("ranking_wallet", "wallet", "epoch", "position"),
        Index("ranking_digest", "epoch", "digest"),
    )
    epoch: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    digest: str
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
    """A wallet after an epoch: its bundle line, and its place among all."""

    __tablename__ = "score"
    __table_args__ = (Index("score_place", "epoch", "place", unique=True),)
    epoch: int = Field(primary_key=True)
    wallet: str = Field(primary_key=True, index=True)
    line: dict[str, Any] = _json()
    place: int
    """From 1, the highest HapticScore first, and of equal ones the lower address."""


class MeritRow(SQLModel, table=True):
    """What a wallet's work in an epoch came to, in three numbers; narrow, because a leaderboard reads all of them."""

    __tablename__ = "merit"
    wallet: str = Field(primary_key=True)
    epoch: int = Field(primary_key=True)
    comparisons: int
    """In sixths."""
    delta_g: int = Field(sa_type=BigInteger)
    delta_v: int = Field(sa_type=BigInteger)


class LabelRow(SQLModel, table=True):
    """What came out of a task at the close: a list per pair of its response hashes, null where nobody ordered it."""

    __tablename__ = "label"
    epoch: int = Field(primary_key=True)
    task: str = Field(primary_key=True)
    pairs: list[list[int] | None] = _json()
    """The fields of `chain.verdict.Known`, which are those of the bundle's `pair` line."""


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
    """In how many tasks of an epoch one model's answers came out ahead of another's by the labels; 0 if only ties."""

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
