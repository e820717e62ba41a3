"""The salt in each task's name. A network whose epochs have names without one stays with the release that knows them."""

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
    """Add the column; a ConfigError, before anything is changed, where an epoch is of the rules before.

    Whoever verifies a network goes through all of its epochs, so one program has to know the rules of each.
    """
    epoch = sa.table("epoch", sa.column("epoch"), sa.column("rules", sa.JSON()))
    for number, rules in op.get_bind().execute(
        sa.select(epoch.c.epoch, epoch.c.rules).order_by(epoch.c.epoch)
    ):
        if (version := rules.get("version", 0)) < SALTED:
            raise ConfigError(
                f"epoch {number} was opened under rules of version {version}, which this release, of version {SALTED}, "
                "can neither close nor verify: the database is as it was; go on with the release that opened it, or "
                "begin a new deployment with this one"
            )
    op.add_column("task", sa.Column("salt", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Forget the salts."""
    op.drop_column("task", "salt")
