"""What each wallet's work came to, for the leaderboard, and what came out of each task, to be shown to who judged it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

MERITS = """
INSERT INTO merit (wallet, epoch, comparisons, delta_g, delta_v)
SELECT wallet, epoch, {numbers} FROM score
"""
NAMES = ("comparisons", "deltaG", "deltaV")
NUMBER = {
    "sqlite": "CAST(COALESCE(json_extract(line, '$.{}'), 0) AS INTEGER)",
    "postgresql": "COALESCE((line->>'{}')::bigint, 0)",
}


def upgrade() -> None:
    """Add the tables; merits are taken from the scores that there are, labels begin with the next close."""
    op.create_table(
        "merit",
        sa.Column("wallet", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("comparisons", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("delta_g", "delta_v")),
        sa.PrimaryKeyConstraint("wallet", "epoch"),
    )
    number = NUMBER[op.get_bind().dialect.name]
    op.execute(MERITS.format(numbers=", ".join(number.format(name) for name in NAMES)))
    op.create_table(
        "label",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("pairs", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "task"),
    )
    op.add_column("epoch", sa.Column("style_bias", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Forget them."""
    op.drop_column("epoch", "style_bias")
    op.drop_table("label")
    op.drop_table("merit")
