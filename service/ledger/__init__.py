"""The service's only SQL: `tables` says what is kept, the others read and add; nothing here commits."""

from service.ledger import queries, results, tables, work

__all__ = ["queries", "results", "tables", "work"]
