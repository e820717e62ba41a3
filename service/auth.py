"""Who is asking: a wallet logs in with a signed Session (EIP-712) and gets a bearer token for that epoch."""

from __future__ import annotations

import hashlib
import hmac

from sqlmodel import Session as Db

from chain.bundle import SignedSession
from chain.canonical import hash_of
from chain.errors import SignatureError
from chain.evidence import check_session
from chain.messages import Domain, Session
from chain.types import Hash32
from service.database import alone
from service.errors import ConflictError, ExpiredError, RejectedError, UnauthorizedError
from service.ledger import queries
from service.ledger.tables import SessionRow

TERMS = "I rank honestly, by my own judgement, and agree that my signed rankings are published when the epoch closes."
"""What a contributor agrees to; its hash is part of every signed Session."""


MAX_SESSIONS = 20
"""Most sessions of a wallet in an epoch: each is published and checked by everybody who verifies."""


def terms_hash() -> Hash32:
    """Return keccak256 of the terms."""
    return hash_of(TERMS.encode())


def token_hash(token: str) -> str:
    """Return what is stored of a bearer token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _token(master: bytes, digest: Hash32) -> str:
    """Return the session's token; made from the master secret, so asking twice gives the same one."""
    return hmac.new(master, b"session" + bytes.fromhex(digest[2:]), "sha256").hexdigest()


def log_in(db: Db, signed: SignedSession, domain: Domain, epoch: int, now: int, master: bytes) -> str:
    """Record a signed session and return its bearer token; nothing is recorded unless all of it holds."""
    session = signed.session
    try:
        check_session(signed, domain, epoch)
    except SignatureError as error:
        raise RejectedError(str(error)) from error
    if session.not_after <= now:
        raise ExpiredError(f"notAfter {session.not_after} is over: the chain's clock says {now}")
    if session.terms_hash != terms_hash():
        raise RejectedError(
            f"termsHash {session.terms_hash} is not that of the terms in force, {terms_hash()}"
        )
    digest = session.digest(domain)
    token = _token(master, digest)
    alone(db.connection(), f"sessions of {session.wallet}")
    known = queries.sessions(db, session.epoch, session.wallet)
    if digest not in {row.digest for row in known}:
        if len(known) >= MAX_SESSIONS:
            raise ConflictError(
                f"{session.wallet} has signed {len(known)} sessions for epoch {epoch}: use one of them"
            )
        queries.add(
            db,
            SessionRow(
                digest=digest, epoch=session.epoch, wallet=session.wallet, message=session.to_json(),
                signature=signed.signature, token_hash=token_hash(token),
            ),
        )  # fmt: skip
    return token


def who(db: Db, token: str, epoch: int, now: int) -> Session:
    """Return the session behind a bearer token, or say why it does not count any more."""
    row = queries.session_by_token(db, token_hash(token))
    if row is None:
        raise UnauthorizedError("unknown bearer token: sign a Session and POST it to /v1/sessions")
    session = Session.parse(row.message)
    if session.epoch != epoch or session.not_after <= now:
        raise UnauthorizedError(
            f"this session was for epoch {session.epoch} and has ended; sign one for epoch {epoch}"
        )
    return session
