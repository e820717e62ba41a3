"""Each wallet's place in an epoch, so that scores are read page by page; and indexes for a hundred thousand wallets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

PLACES = """
UPDATE score SET place = (
    SELECT ranked.place FROM (
        SELECT epoch, wallet, row_number() OVER (
            PARTITION BY epoch ORDER BY length({score}) DESC, {score} DESC, wallet
        ) AS place FROM score
    ) AS ranked WHERE ranked.epoch = score.epoch AND ranked.wallet = score.wallet
)
"""
"""Of two numbers without leading zeros the longer is larger, and of two of one length the later in the alphabet."""
SCORE = {"sqlite": "json_extract(line, '$.score')", "postgresql": "(line->>'score') COLLATE \"C\""}


def upgrade() -> None:
    """Add the places of what was scored, and the indexes by which what one request needs is found."""
    op.add_column("score", sa.Column("place", sa.Integer(), server_default="0", nullable=False))
    op.execute(PLACES.format(score=SCORE[op.get_bind().dialect.name]))
    with op.batch_alter_table("score") as table:
        table.alter_column("place", server_default=None)
    op.create_index("score_place", "score", ["epoch", "place"], unique=True)
    op.create_index("ranking_wallet", "ranking", ["wallet", "epoch", "position"])
    op.drop_index("ix_ranking_digest", "ranking")
    op.create_index("ranking_digest", "ranking", ["epoch", "digest"])
    op.drop_index("ix_session_epoch", "session")
    op.drop_index("ix_session_wallet", "session")
    op.create_index("session_wallet", "session", ["epoch", "wallet"])
    op.drop_index("ix_lease_task", "lease")
    op.create_index("lease_taken", "lease", ["epoch", "task", "staked", "done", "expires_at"])


def downgrade() -> None:
    """Take them away."""
    op.drop_index("lease_taken", "lease")
    op.create_index("ix_lease_task", "lease", ["task"])
    op.drop_index("session_wallet", "session")
    op.create_index("ix_session_wallet", "session", ["wallet"])
    op.create_index("ix_session_epoch", "session", ["epoch"])
    op.drop_index("ranking_digest", "ranking")
    op.create_index("ix_ranking_digest", "ranking", ["digest"])
    op.drop_index("ranking_wallet", "ranking")
    op.drop_index("score_place", "score")
    op.drop_column("score", "place")
