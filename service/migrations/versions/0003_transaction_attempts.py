"""Later attempts at a transaction, with higher fees; one turn at a time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TURNS = """
UPDATE chain_transaction SET turn = (
    SELECT count(*) FROM chain_transaction AS older
    WHERE older.kind = chain_transaction.kind AND older.epoch = chain_transaction.epoch
        AND older.id < chain_transaction.id
)
"""


def upgrade() -> None:
    """Add the attempts, when each was stored, and which of its kind a transaction is."""
    op.add_column("chain_transaction", sa.Column("turn", sa.Integer(), server_default="0", nullable=False))
    op.add_column(
        "chain_transaction", sa.Column("stored_at", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.execute(TURNS)
    op.create_index("uq_chain_transaction_turn", "chain_transaction", ["kind", "epoch", "turn"], unique=True)
    op.create_table(
        "chain_transaction_attempt",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("max_fee", sa.String(length=78), nullable=False),
        sa.Column("tip", sa.String(length=78), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["transaction_id"], ["chain_transaction.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_index(
        "ix_chain_transaction_attempt_transaction_id", "chain_transaction_attempt", ["transaction_id"]
    )


def downgrade() -> None:
    """Keep only the first attempts, which are then all that is looked for: settle what is on its way before."""
    op.drop_index("ix_chain_transaction_attempt_transaction_id", "chain_transaction_attempt")
    op.drop_table("chain_transaction_attempt")
    op.drop_index("uq_chain_transaction_turn", "chain_transaction")
    op.drop_column("chain_transaction", "stored_at")
    op.drop_column("chain_transaction", "turn")
