"""What all accounts have together at the checkpoint, and narrower rows of stake: the ledger is indexed anew."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add totals and balances, take the transaction's hash out of the widest table, and search none by account."""
    text = sa.String(length=78)
    totals = [sa.Column(name, text, nullable=False) for name in ("staked", "pending", "stake_seconds")]
    numbers = [sa.Column(name, sa.BigInteger(), nullable=False) for name in ("counted_at", "balances_at")]
    _make_anew([*totals, *numbers], [], rowid=False)
    op.create_table(
        "chain_account",
        sa.Column("account", sa.String(length=42), nullable=False),
        *(sa.Column(name, text, nullable=False) for name in ("staked", "pending", "claimed")),
        sa.PrimaryKeyConstraint("account"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Make the tables as they were, empty."""
    op.drop_table("chain_account")
    _make_anew([], [sa.Column("tx", sa.String(length=66), nullable=False)], rowid=True)
    for table in ("stake_event", "claim"):
        op.create_index(f"ix_chain_{table}_account", f"chain_{table}", ["account", "block", "log_index"])


def _make_anew(totals: list[sa.Column[Any]], tx: list[sa.Column[Any]], *, rowid: bool) -> None:
    """Make the tables of what was indexed anew, and empty the others: reading the chain again takes seconds."""
    for table in ("chain_funding", "chain_report_event"):
        op.execute(sa.text(f"DELETE FROM {table}"))  # noqa: S608  # names from above
    for table in ("chain_checkpoint", "chain_stake_event", "chain_claim"):
        op.drop_table(table)
    op.create_table(
        "chain_checkpoint",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("vault", sa.String(length=42), nullable=False),
        sa.Column("distributor", sa.String(length=42), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        *totals,
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "chain_stake_event",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log_index", sa.Integer(), autoincrement=False, nullable=False),
        *tx,
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("amount", sa.String(length=78), nullable=False),
        sa.Column("staked", sa.String(length=78), nullable=False),
        sa.Column("pending", sa.String(length=78), nullable=False),
        sa.Column("available_at", sa.String(length=78), nullable=True),
        sa.PrimaryKeyConstraint("block", "log_index"),
        sqlite_with_rowid=rowid,
    )
    op.create_table(
        "chain_claim",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("tx", sa.String(length=66), nullable=False),
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("to", sa.String(length=42), nullable=False),
        sa.Column("amount", sa.String(length=78), nullable=False),
        sa.Column("cumulative", sa.String(length=78), nullable=False),
        sa.PrimaryKeyConstraint("block", "log_index"),
        sqlite_with_rowid=rowid,
    )
