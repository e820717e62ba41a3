"""Epochs that their operator gave up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add when an epoch was given up, and the price of stake that followed from its close."""
    op.add_column("epoch", sa.Column("abandoned_at", sa.BigInteger(), nullable=True))
    for name in ("next_num", "next_den"):
        op.add_column("epoch", sa.Column(name, sa.String(), nullable=True))


def downgrade() -> None:
    """Forget it."""
    for name in ("next_den", "next_num", "abandoned_at"):
        op.drop_column("epoch", name)
