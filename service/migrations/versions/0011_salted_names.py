"""The salt in each task's name. An epoch that was opened with names that have none is closed by who opened it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from service.errors import ConfigError

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SALTED = 3
"""First version of the rules by which tasks are named with a salt."""


def upgrade() -> None:
    """Add the column; a ConfigError, before anything is changed, where an epoch of the rules before is not closed."""
    _check_closed()
    op.add_column("task", sa.Column("salt", sa.String(), nullable=False, server_default=""))


def _check_closed() -> None:
    epoch = sa.table("epoch", sa.column("epoch"), sa.column("closed_at"), sa.column("rules", sa.JSON()))
    running = sa.select(epoch.c.epoch, epoch.c.rules).where(epoch.c.closed_at.is_(None))
    for number, rules in op.get_bind().execute(running.order_by(epoch.c.epoch)):
        if (version := rules.get("version", 0)) < SALTED:
            raise ConfigError(
                f"epoch {number} is not closed, and was opened under rules of version {version}, which this release, of "
                f"version {SALTED}, cannot close: the database is as it was; let the release that opened the epoch "
                "close it, or give it up, and then start this one"
            )


def downgrade() -> None:
    """Forget the salts."""
    op.drop_column("task", "salt")
