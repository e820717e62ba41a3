"""The log of hand-outs and skips, the tallies that they are chosen by, authors of prompts, what was redacted."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ADDED: dict[str, list[sa.Column[Any]]] = {
    "epoch": [
        sa.Column("entries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("last_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("redacted", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("retired", sa.Integer(), nullable=False, server_default="0"),
    ],
    "task": [
        sa.Column("author", sa.String(), nullable=False, server_default=""),
        sa.Column("retired", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("redacted", sa.JSON(), nullable=False, server_default="[]"),
    ],
    "lease": [
        sa.Column("number", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("live", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("skipped", sa.Boolean(), nullable=False, server_default=sa.false()),
    ],
}


def upgrade() -> None:
    """Add the tables, and to the old ones what is new in them."""
    for table, columns in ADDED.items():
        for column in columns:
            op.add_column(table, column)
    op.drop_index("lease_taken", "lease")
    op.create_index("lease_live", "lease", ["epoch", "live", "expires_at"])
    op.create_table(
        "tally",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("methods", "author", "assignees")),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("taken", "done", "wanted")),
        sa.Column("votes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "task"),
    )
    op.create_index("tally_taken", "tally", ["epoch", "taken", "task"])
    for table, column in (
        ("handout", sa.Column("staked", sa.Boolean(), nullable=False)),
        ("skip", sa.Column("reason", sa.String(), nullable=False)),
    ):
        op.create_table(
            table,
            sa.Column("epoch", sa.Integer(), nullable=False),
            sa.Column("number", sa.Integer(), nullable=False),
            sa.Column("wallet", sa.String(), nullable=False),
            sa.Column("task", sa.String(), nullable=False),
            column,
            sa.Column("at", sa.BigInteger(), nullable=False),
            sa.Column("after", sa.Integer(), nullable=False),
            sa.PrimaryKeyConstraint("epoch", "number"),
        )
        op.create_index(f"{table}_wallet", table, ["epoch", "wallet"])


def downgrade() -> None:
    """Forget them."""
    for table in ("skip", "handout", "tally"):
        op.drop_table(table)
    op.drop_index("lease_live", "lease")
    op.create_index("lease_taken", "lease", ["epoch", "task", "staked", "done", "expires_at"])
    for table, columns in ADDED.items():
        for column in columns:
            op.drop_column(table, column.name)
