"""Blocks at which contract wallets were asked, logins by Sign-In with Ethereum, answers kept by idempotency key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    for table in ("session", "ranking"):
        op.add_column(table, sa.Column("block", sa.BigInteger(), nullable=True))
    op.create_table(
        "login",
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("wallet", sa.String(), nullable=False),
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("nonce"),
    )
    op.create_table(
        "answer",
        sa.Column("wallet", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("request_hash", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("wallet", "key"),
    )
    for table, column in (("login", "token_hash"), ("login", "expires_at"), ("answer", "epoch")):
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    """Forget it."""
    op.drop_table("answer")
    op.drop_table("login")
    for table in ("ranking", "session"):
        op.drop_column(table, "block")
