"""The tables of `chain`, the same on SQLite and PostgreSQL; amounts of up to 256 bits are decimal text."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Dialect, Index, LargeBinary, String, TypeDecorator, UniqueConstraint
from sqlmodel import Field, SQLModel


class Uint(TypeDecorator[int]):
    """An unsigned integer of up to 256 bits as decimal text: SQLite's own integers end at 63."""

    impl = String(78)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        """Write the digits; a ValueError for what is no uint256."""
        del dialect
        if value is not None and not 0 <= value < 1 << 256:
            raise ValueError(f"{value} is no uint256")
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """Read the digits."""
        del dialect
        return None if value is None else int(value)


class Checkpoint(SQLModel, table=True):
    """How far was indexed, for which contracts, and what all accounts had there; moved in the data's transaction.

    Row INDEXED is the last block whose events are here; row VERIFIED the last at which the contracts' own totals
    agreed: what lies between the two is taken back if they do not.
    """

    __tablename__ = "chain_checkpoint"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    chain_id: int = Field(sa_type=BigInteger)
    vault: str = Field(max_length=42)
    distributor: str = Field(max_length=42)
    number: int = Field(sa_type=BigInteger)
    hash: str = Field(max_length=66)
    timestamp: int = Field(sa_type=BigInteger)
    staked: int = Field(sa_type=Uint)
    """Of all accounts together; so are the next two."""
    pending: int = Field(sa_type=Uint)
    stake_seconds: int = Field(sa_type=Uint)
    """Up to `counted_at`, wei·s."""
    counted_at: int = Field(sa_type=BigInteger)
    """Unix seconds."""
    claimed: int = Field(sa_type=Uint)
    """Paid out in all."""
    surplus: int | None = Field(default=None, sa_type=Uint)
    """Of row VERIFIED: what the distributor held beyond all revenue less all claims, since anybody may send it tokens."""
    balances_at: int = Field(sa_type=BigInteger)
    """Block up to which the accounts' balances are written; those after it follow from the events."""


INDEXED, VERIFIED = 1, 2
"""Ids of the two checkpoints."""


IN_ORDER: Final = {"sqlite_with_rowid": False}
"""SQLite keeps the rows in the order of their key: there is one tree less to write."""


class AccountRow(SQLModel, table=True):
    """What an account's events up to the checkpoint's `balances_at` left it with: nothing is searched for by account."""

    __tablename__ = "chain_account"
    __table_args__ = IN_ORDER

    account: str = Field(max_length=42, primary_key=True)
    staked: int = Field(sa_type=Uint)
    pending: int = Field(sa_type=Uint)
    claimed: int = Field(sa_type=Uint)


class _EventRow(SQLModel):
    """Where an event stands on the chain: its key."""

    block: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    log_index: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    timestamp: int = Field(sa_type=BigInteger)


class StakeRow(_EventRow, table=True):
    """A change of somebody's stake, with the balances that result."""

    __tablename__ = "chain_stake_event"
    __table_args__ = IN_ORDER

    kind: str = Field(max_length=16)
    """Name of the event."""
    account: str = Field(max_length=42)
    amount: int = Field(sa_type=Uint)
    staked: int = Field(sa_type=Uint)
    pending: int = Field(sa_type=Uint)
    available_at: int | None = Field(default=None, sa_type=Uint)


class FundingRow(_EventRow, table=True):
    """Revenue that came in."""

    __tablename__ = "chain_funding"

    tx: str = Field(max_length=66)
    run: int = Field(sa_type=Uint)
    """Any uint64 that a payer chose: too wide for a signed column."""
    payer: str = Field(max_length=42)
    amount: int = Field(sa_type=Uint)
    total_funded: int = Field(sa_type=Uint)


class ReportRow(_EventRow, table=True):
    """What happened to a report; the fields of Posted and of Challenged are empty for the others."""

    __tablename__ = "chain_report_event"

    tx: str = Field(max_length=66)
    kind: str = Field(max_length=16)
    epoch: int = Field(sa_type=BigInteger, index=True)
    root: str = Field(max_length=66)
    sum: int | None = Field(default=None, sa_type=Uint)
    depth: int | None = None
    data_hash: str | None = Field(default=None, max_length=66)
    ledger_root: str | None = Field(default=None, max_length=66)
    rules_hash: str | None = Field(default=None, max_length=66)
    snapshot_block: int | None = Field(default=None, sa_type=Uint)
    snapshot_hash: str | None = Field(default=None, max_length=66)
    active_at: int | None = Field(default=None, sa_type=Uint)
    challenger: str | None = Field(default=None, max_length=42)
    fault: int | None = None
    account: str | None = Field(default=None, max_length=42)


class ClaimRow(_EventRow, table=True):
    """A payout that was made."""

    __tablename__ = "chain_claim"
    __table_args__ = IN_ORDER

    tx: str = Field(max_length=66)
    account: str = Field(max_length=42)
    to: str = Field(max_length=42)
    amount: int = Field(sa_type=Uint)
    cumulative: int = Field(sa_type=Uint)


class TransactionRow(SQLModel, table=True):
    """A transaction of the operator, stored before it is sent; one nonce holds one transaction."""

    __tablename__ = "chain_transaction"
    __table_args__ = (
        UniqueConstraint("sender", "nonce", name="uq_chain_transaction_nonce"),
        Index("uq_chain_transaction_turn", "kind", "epoch", "turn", unique=True),
    )

    id: int | None = Field(default=None, primary_key=True)
    kind: str = Field(max_length=16)
    """post or activate; open, close, abandon or amend."""
    epoch: int = Field(sa_type=BigInteger, index=True)
    turn: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """So many of its kind and epoch were made before: two processes at once cannot both make the next."""
    sender: str = Field(max_length=42)
    nonce: int = Field(sa_type=BigInteger)
    hash: str = Field(max_length=66, unique=True)
    """Of the first attempt; which one came into a block, its receipt says."""
    about: str = Field(max_length=66)
    """keccak256 of what it says, whatever it costs."""
    raw: bytes = Field(sa_type=LargeBinary)
    """The signed bytes of the first attempt; sent again as they are after a crash."""
    stored_at: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    """The chain's newest block at that time."""
    status: str = Field(max_length=16)
    """stored, sent, mined (in a block that may still be taken back); and for good, by a finalized block: final, failed
    (reverted), or lost (its nonce went to another transaction)."""


class AttemptRow(SQLModel, table=True):
    """A later attempt at a transaction: the same nonce and contents, higher fees; stored before it is sent."""

    __tablename__ = "chain_transaction_attempt"

    id: int | None = Field(default=None, primary_key=True)
    transaction_id: int = Field(foreign_key="chain_transaction.id", index=True)
    hash: str = Field(max_length=66, unique=True)
    raw: bytes = Field(sa_type=LargeBinary)
    max_fee: int = Field(sa_type=Uint)
    """Per gas, in wei."""
    tip: int = Field(sa_type=Uint)
    stored_at: int = Field(sa_type=BigInteger)
    """The chain's newest block at that time."""


class EpochReport(SQLModel, table=True):
    """What an epoch came to: the report as it is posted, and where its bundle lies."""

    __tablename__ = "chain_epoch_report"

    epoch: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    root: str = Field(max_length=66)
    sum: int = Field(sa_type=Uint)
    depth: int
    data_hash: str = Field(max_length=66)
    ledger_root: str = Field(max_length=66)
    rules_hash: str = Field(max_length=66)
    snapshot_block: int = Field(sa_type=BigInteger)
    snapshot_hash: str = Field(max_length=66)
    bundle_path: str = Field(max_length=1024)
    """The bundle's file; its keccak256 is `data_hash`, so what was read can be checked."""
    status: str = Field(max_length=16)
    """built, posted, active or vetoed."""
    built_at: int = Field(sa_type=BigInteger)
