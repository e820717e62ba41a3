"""What was claimed in all, and what the distributor held beyond that: the ledger is indexed anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEXED = ("stake_event", "claim", "funding", "report_event", "account", "checkpoint")
"""Tables of what was indexed: reading the chain again takes seconds."""


def upgrade() -> None:
    """Add both to the checkpoints, and empty what was indexed: what was summed up before did not know them."""
    _empty()
    text = sa.String(length=78)
    with op.batch_alter_table("chain_checkpoint") as table:
        table.add_column(sa.Column("claimed", text, nullable=False))
        table.add_column(sa.Column("surplus", text, nullable=True))


def downgrade() -> None:
    """Take both away; what is left is indexed anew too."""
    _empty()
    with op.batch_alter_table("chain_checkpoint") as table:
        table.drop_column("surplus")
        table.drop_column("claimed")


def _empty() -> None:
    for table in INDEXED:
        op.execute(sa.text(f"DELETE FROM chain_{table}"))  # noqa: S608  # names from above
