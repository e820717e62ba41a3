"""The zeros of two models that only tied, for epochs that were closed before a close wrote them: a candidate's time."""

from __future__ import annotations

from itertools import permutations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

MATCH = sa.table("match", *map(sa.column, ("epoch", "winner", "loser", "count")))


def upgrade() -> None:
    """Add what is missing; without it, a candidate that was rolled back after such epochs would wait again."""
    epoch = sa.table("epoch", *map(sa.column, ("epoch", "closed_at", "abandoned_at")))
    task = sa.table("task", sa.column("epoch"), sa.column("task"), sa.column("origins", sa.JSON()))
    ranking = sa.table("ranking", sa.column("epoch"), sa.column("task"))
    counts = sa.and_(epoch.c.closed_at.is_not(None), epoch.c.abandoned_at.is_(None))
    ranked = sa.exists().where(ranking.c.epoch == task.c.epoch, ranking.c.task == task.c.task)
    origins = sa.select(task.c.epoch, task.c.origins).join(epoch, epoch.c.epoch == task.c.epoch)
    bind = op.get_bind()
    met = {
        (number, *pair)
        for number, models in bind.execute(origins.where(counts, ranked))
        for pair in permutations(set(models), 2)
    }
    known = bind.execute(sa.select(MATCH.c.epoch, MATCH.c.winner, MATCH.c.loser))
    missing = sorted(met - {(number, winner, loser) for number, winner, loser in known})
    if missing:
        rows = [{"epoch": e, "winner": w, "loser": x, "count": 0} for e, w, x in missing]
        op.bulk_insert(MATCH, rows)


def downgrade() -> None:
    """Forget the zeros."""
    op.execute(MATCH.delete().where(MATCH.c.count == 0))
