"""Who is asking: a wallet logs in with a signed Session (EIP-712) and gets a bearer token for that epoch.

`service.login` is the other way in, by Sign-In with Ethereum; a token of either kind names a wallet here.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import NamedTuple

from sqlmodel import Session as Db

from chain.bundle import SignedSession
from chain.canonical import hash_of
from chain.errors import SignatureError, UnprovenError
from chain.evidence import check_session
from chain.messages import Domain, Session
from chain.types import Address, Hash32
from chain.wallets import Asked
from service.database import alone
from service.errors import ConflictError, ExpiredError, RejectedError, UnauthorizedError
from service.ledger import queries
from service.ledger.tables import SessionRow
from service.signatures import accepted_at

TERMS = "I rank honestly, by my own judgement, and agree that my signed rankings are published when the epoch closes."
"""What a contributor agrees to; its hash is part of every signed Session."""


MAX_SESSIONS = 20
"""Most sessions of a wallet in an epoch: each is published and checked by everybody who verifies."""


class Visitor(NamedTuple):
    """Who is behind a bearer token, and until when."""

    wallet: Address
    ends: int
    """Block time, Unix seconds."""


def terms_hash() -> Hash32:
    """Return keccak256 of the terms."""
    return hash_of(TERMS.encode())


def token_hash(token: str) -> str:
    """Return what is stored of a bearer token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _token(master: bytes, digest: Hash32) -> str:
    """Return the session's token; made from the master secret, so asking twice gives the same one."""
    return hmac.new(master, b"session" + bytes.fromhex(digest[2:]), "sha256").hexdigest()


def log_in(
    db: Db, signed: SignedSession, domain: Domain, epoch: int, now: int, master: bytes, wallets: Asked
) -> str:
    """Record a signed session and return its bearer token; nothing is recorded unless all of it holds.

    `wallets` are asked where the wallet is a contract: before anything is locked.
    """
    session = signed.session
    unproven = ""
    try:
        check_session(signed, domain, epoch)
    except UnprovenError as error:
        unproven = str(error)
    except SignatureError as error:
        raise RejectedError(str(error)) from error
    if session.not_after <= now:
        raise ExpiredError(f"notAfter {session.not_after} is over: the chain's clock says {now}")
    if session.terms_hash != terms_hash():
        raise RejectedError(
            f"termsHash {session.terms_hash} is not that of the terms in force, {terms_hash()}"
        )
    digest = session.digest(domain)
    if unproven:
        block = accepted_at(wallets, session.wallet, digest, signed.signature, now, unproven)
        signed = replace(signed, block=block)
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
                signature=signed.signature, token_hash=token_hash(token), block=signed.block or None,
            ),
        )  # fmt: skip
    return token


def who(db: Db, token: str, epoch: int, now: int) -> Visitor:
    """Return who is behind a bearer token, or say why it does not count any more."""
    hashed = token_hash(token)
    row = queries.session_by_token(db, hashed)
    if row is None:
        return _signed_in(db, hashed, now)
    session = Session.parse(row.message)
    if session.epoch != epoch or session.not_after <= now:
        raise UnauthorizedError(
            f"this session was for epoch {session.epoch} and has ended; sign one for epoch {epoch}"
        )
    return Visitor(session.wallet, session.not_after)


def _signed_in(db: Db, hashed: str, now: int) -> Visitor:
    """Return who is behind the token of a login by Sign-In with Ethereum."""
    login = queries.login_by_token(db, hashed)
    if login is None:
        raise UnauthorizedError(
            "unknown bearer token: sign a Session and POST it to /v1/sessions, or sign in at /v1/login"
        )
    if login.expires_at <= now:
        raise UnauthorizedError(
            f"this login ended at {login.expires_at}, now is {now}: GET /v1/login/nonce and sign in again"
        )
    return Visitor(Address(login.wallet), login.expires_at)
