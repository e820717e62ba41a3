"""The first schema: what the chain announced, and what the service records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "chain_checkpoint",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("vault", sa.String(length=42), nullable=False),
        sa.Column("distributor", sa.String(length=42), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "chain_claim",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tx", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("to", sa.String(length=42), nullable=False),
        sa.Column("amount", sa.String(length=78), nullable=False),
        sa.Column("cumulative", sa.String(length=78), nullable=False),
        sa.PrimaryKeyConstraint("block", "log_index"),
    )
    with op.batch_alter_table("chain_claim", schema=None) as batch_op:
        batch_op.create_index("ix_chain_claim_account", ["account", "block", "log_index"], unique=False)

    op.create_table(
        "chain_epoch_report",
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.String(length=66), nullable=False),
        sa.Column("sum", sa.String(length=78), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("data_hash", sa.String(length=66), nullable=False),
        sa.Column("ledger_root", sa.String(length=66), nullable=False),
        sa.Column("rules_hash", sa.String(length=66), nullable=False),
        sa.Column("snapshot_block", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_hash", sa.String(length=66), nullable=False),
        sa.Column("bundle_path", sa.String(length=1024), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("built_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("epoch"),
    )
    op.create_table(
        "chain_funding",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tx", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.String(length=78), nullable=False),
        sa.Column("payer", sa.String(length=42), nullable=False),
        sa.Column("amount", sa.String(length=78), nullable=False),
        sa.Column("total_funded", sa.String(length=78), nullable=False),
        sa.PrimaryKeyConstraint("block", "log_index"),
    )
    op.create_table(
        "chain_report_event",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tx", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.String(length=66), nullable=False),
        sa.Column("sum", sa.String(length=78), nullable=True),
        sa.Column("depth", sa.Integer(), nullable=True),
        sa.Column("data_hash", sa.String(length=66), nullable=True),
        sa.Column("ledger_root", sa.String(length=66), nullable=True),
        sa.Column("rules_hash", sa.String(length=66), nullable=True),
        sa.Column("snapshot_block", sa.String(length=78), nullable=True),
        sa.Column("snapshot_hash", sa.String(length=66), nullable=True),
        sa.Column("active_at", sa.String(length=78), nullable=True),
        sa.Column("challenger", sa.String(length=42), nullable=True),
        sa.Column("fault", sa.Integer(), nullable=True),
        sa.Column("account", sa.String(length=42), nullable=True),
        sa.PrimaryKeyConstraint("block", "log_index"),
    )
    with op.batch_alter_table("chain_report_event", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_chain_report_event_epoch"), ["epoch"], unique=False)

    op.create_table(
        "chain_stake_event",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tx", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("amount", sa.String(length=78), nullable=False),
        sa.Column("staked", sa.String(length=78), nullable=False),
        sa.Column("pending", sa.String(length=78), nullable=False),
        sa.Column("available_at", sa.String(length=78), nullable=True),
        sa.PrimaryKeyConstraint("block", "log_index"),
    )
    with op.batch_alter_table("chain_stake_event", schema=None) as batch_op:
        batch_op.create_index("ix_chain_stake_event_account", ["account", "block", "log_index"], unique=False)

    op.create_table(
        "chain_transaction",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.String(length=42), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("about", sa.String(length=66), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
        sa.UniqueConstraint("sender", "nonce", name="uq_chain_transaction_nonce"),
    )
    with op.batch_alter_table("chain_transaction", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_chain_transaction_epoch"), ["epoch"], unique=False)

    op.create_table(
        "epoch",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seed_hash", sa.String(), nullable=False),
        sa.Column("gold_root", sa.String(), nullable=False),
        sa.Column("rules_hash", sa.String(), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("lambda_num", sa.String(), nullable=False),
        sa.Column("lambda_den", sa.String(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("committed_at", sa.BigInteger(), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("anchored_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("epoch"),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("heartbeat_at", sa.Float(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("log", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "leaf",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("cumulative", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "account"),
    )
    with op.batch_alter_table("leaf", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_leaf_account"), ["account"], unique=False)

    op.create_table(
        "lease",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("wallet", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("staked", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "wallet", "task"),
    )
    with op.batch_alter_table("lease", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_lease_task"), ["task"], unique=False)

    op.create_table(
        "match",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("winner", sa.String(), nullable=False),
        sa.Column("loser", sa.String(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "winner", "loser"),
    )
    op.create_table(
        "pool",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(length=78), autoincrement=False, nullable=False),
        sa.Column("funded", sa.String(), nullable=False),
        sa.Column("carried_in", sa.String(), nullable=False),
        sa.Column("carried_out", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "run"),
    )
    op.create_table(
        "ranking",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("wallet", sa.String(), nullable=False),
        sa.Column("signer", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("message", sa.JSON(), nullable=False),
        sa.Column("signature", sa.String(), nullable=False),
        sa.Column("comment", sa.String(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("receipt", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "position"),
        sa.UniqueConstraint("epoch", "wallet", "task", "revision"),
    )
    with op.batch_alter_table("ranking", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ranking_digest"), ["digest"], unique=False)
        batch_op.create_index("ranking_epoch_task", ["epoch", "task"], unique=False)

    op.create_table(
        "run",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("snapshot", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("declared_in", sa.Integer(), nullable=True),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run"),
    )
    op.create_table(
        "score",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("wallet", sa.String(), nullable=False),
        sa.Column("line", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "wallet"),
    )
    with op.batch_alter_table("score", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_score_wallet"), ["wallet"], unique=False)

    op.create_table(
        "session",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("wallet", sa.String(), nullable=False),
        sa.Column("message", sa.JSON(), nullable=False),
        sa.Column("signature", sa.String(), nullable=False),
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    with op.batch_alter_table("session", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_session_epoch"), ["epoch"], unique=False)
        batch_op.create_index(batch_op.f("ix_session_token_hash"), ["token_hash"], unique=False)
        batch_op.create_index(batch_op.f("ix_session_wallet"), ["wallet"], unique=False)

    op.create_table(
        "share",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(length=78), autoincrement=False, nullable=False),
        sa.Column("wallet", sa.String(), nullable=False),
        sa.Column("amount", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "run", "wallet"),
    )
    with op.batch_alter_table("share", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_share_wallet"), ["wallet"], unique=False)

    op.create_table(
        "task",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("responses", sa.JSON(), nullable=False),
        sa.Column("methods", sa.JSON(), nullable=False),
        sa.Column("origins", sa.JSON(), nullable=False),
        sa.Column("assignees", sa.JSON(), nullable=False),
        sa.Column("gold_ranks", sa.JSON(), nullable=False),
        sa.Column("gold_salt", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "task"),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("task")
    with op.batch_alter_table("share", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_share_wallet"))

    op.drop_table("share")
    with op.batch_alter_table("session", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_session_wallet"))
        batch_op.drop_index(batch_op.f("ix_session_token_hash"))
        batch_op.drop_index(batch_op.f("ix_session_epoch"))

    op.drop_table("session")
    with op.batch_alter_table("score", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_score_wallet"))

    op.drop_table("score")
    op.drop_table("run")
    with op.batch_alter_table("ranking", schema=None) as batch_op:
        batch_op.drop_index("ranking_epoch_task")
        batch_op.drop_index(batch_op.f("ix_ranking_digest"))

    op.drop_table("ranking")
    op.drop_table("pool")
    op.drop_table("match")
    with op.batch_alter_table("lease", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_lease_task"))

    op.drop_table("lease")
    with op.batch_alter_table("leaf", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_leaf_account"))

    op.drop_table("leaf")
    op.drop_table("job")
    op.drop_table("epoch")
    with op.batch_alter_table("chain_transaction", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_chain_transaction_epoch"))

    op.drop_table("chain_transaction")
    with op.batch_alter_table("chain_stake_event", schema=None) as batch_op:
        batch_op.drop_index("ix_chain_stake_event_account")

    op.drop_table("chain_stake_event")
    with op.batch_alter_table("chain_report_event", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_chain_report_event_epoch"))

    op.drop_table("chain_report_event")
    op.drop_table("chain_funding")
    op.drop_table("chain_epoch_report")
    with op.batch_alter_table("chain_claim", schema=None) as batch_op:
        batch_op.drop_index("ix_chain_claim_account")

    op.drop_table("chain_claim")
    op.drop_table("chain_checkpoint")
