"""The service's only SQL: `tables` says what is kept, `queries` reads and adds; nothing here commits."""

from service.ledger import queries, tables

__all__ = ["queries", "tables"]
