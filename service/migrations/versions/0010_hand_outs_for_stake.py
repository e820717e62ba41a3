"""Tasks are for wallets with stake, so no hand-out says whether there was any; indexes of what is still searched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INDEXES = (
    ("tally_open", "tally", ["epoch", "taken", "task"], "taken < wanted AND assignees = ''"),
    ("tally_reserved", "tally", ["epoch", "taken", "task"], "assignees <> ''"),
    ("lease_held", "lease", ["epoch", "wallet"], "live"),
    ("lease_ends", "lease", ["epoch", "expires_at"], "live"),
)


def upgrade() -> None:
    """Drop the columns, and exchange the indexes."""
    op.drop_index("tally_taken", "tally")
    op.drop_index("lease_live", "lease")
    for table in ("handout", "lease"):
        op.drop_column(table, "staked")
    for name, table, columns, rows in INDEXES:
        where = sa.text(rows)
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Take every wallet for one with stake again."""
    for name, table, *_ in INDEXES:
        op.drop_index(name, table)
    for table in ("handout", "lease"):
        op.add_column(table, sa.Column("staked", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_index("lease_live", "lease", ["epoch", "live", "expires_at"])
    op.create_index("tally_taken", "tally", ["epoch", "taken", "task"])
