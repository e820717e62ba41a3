"""Epochs that their operator gave up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add when an epoch was given up."""
    op.add_column("epoch", sa.Column("abandoned_at", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Forget it."""
    op.drop_column("epoch", "abandoned_at")
