"""Alembic's environment: the schema of chain and service in one database, on the connection it is given."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import chain.ledger  # noqa: F401  # registers its tables
import service.ledger.tables  # noqa: F401  # registers its tables

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
