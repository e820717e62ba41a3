"""A database of an older version is brought up with all that it holds."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlmodel import Session

from chain import ledger
from service import database
from service.database import migrate, open_engine

OLD = """
INSERT INTO chain_transaction (kind, epoch, sender, nonce, hash, about, raw, status)
VALUES ('{kind}', {epoch}, '0xab', {nonce}, '0x{nonce}', '0x01', x'02', 'failed')
"""


def test_transactions_of_an_older_version_keep_their_turn(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'haptic.db'}")
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for nonce, (kind, epoch) in enumerate(
            [("post", 0), ("post", 0), ("open", 0), ("post", 0), ("post", 1)]
        ):
            connection.exec_driver_sql(OLD.format(kind=kind, epoch=epoch, nonce=nonce))
    migrate(engine)
    with Session(engine) as session:
        found = [
            ledger.transaction(session, kind, epoch)
            for kind, epoch in [("post", 0), ("open", 0), ("post", 1)]
        ]
        assert [(row.nonce, row.turn) for row in found if row is not None] == [(3, 2), (2, 0), (4, 0)]
        assert all(
            [a.hash for a in ledger.attempts(session, row)] == [row.hash] for row in found if row is not None
        )
    engine.dispose()
