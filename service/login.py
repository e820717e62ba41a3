"""Sign-In with Ethereum (EIP-4361): nonces that cost nothing to give out, and the rules by which a message logs in."""

from __future__ import annotations

import hmac

from sqlmodel import Session as Db

from chain.errors import SignatureError, UnprovenError
from chain.evidence import CLOCK_SKEW_S, recovered
from chain.siwe import SignIn, authority_of, personal_hash, seconds
from chain.wallets import Asked
from service.auth import TERMS, token_hash
from service.database import alone
from service.errors import ConflictError, ExpiredError, RejectedError
from service.ledger import queries
from service.ledger.tables import LoginRow
from service.signatures import accepted_at

LONGEST_S = 86_400
"""How long a login may last, from when it was issued."""
NONCE_S = 3600
"""A nonce is good in the hour of block time in which it was given out, and in the next."""
NONCE_BYTES = 16


def make_nonce(master: bytes, chance: bytes, now: int) -> str:
    """Return a nonce of so many random bytes; nothing is stored, because what it is made of is checked again."""
    return (chance + _seal(master, chance, now // NONCE_S)).hex()


def _seal(master: bytes, chance: bytes, hour: int) -> bytes:
    return hmac.digest(master, b"nonce" + chance + hour.to_bytes(8, "big"), "sha256")[:NONCE_BYTES]


def _check_nonce(master: bytes, nonce: str, now: int) -> None:
    try:
        raw = bytes.fromhex(nonce)
    except ValueError:
        raw = b""
    chance, seal, hour = raw[:NONCE_BYTES], raw[NONCE_BYTES:], now // NONCE_S
    if nonce != nonce.lower() or not any(
        hmac.compare_digest(seal, _seal(master, chance, h)) for h in (hour, hour - 1)
    ):
        raise RejectedError(
            f"nonce {nonce[:80]} is none that was given out within the hour: GET /v1/login/nonce"
        )


def _check_message(message: SignIn, domain: str, chain_id: int, now: int) -> int:
    """Return until when the login lasts, or refuse it: for another place, time or promise than ours."""
    for name, found, expected in (
        ("domain", message.domain, domain), ("URI", authority_of(message.uri), domain),
        ("Chain ID", message.chain_id, chain_id), ("statement", message.statement, TERMS),
    ):  # fmt: skip
        if found != expected:
            raise RejectedError(
                f"{name} is {found!r}, expected {expected!r}: sign what this service asks for"
            )
    if message.scheme is not None and not message.uri.startswith(f"{message.scheme}://"):
        raise RejectedError(f"the domain's scheme is {message.scheme}, the URI is {message.uri}")
    issued = seconds(message.issued_at)
    if issued > now + CLOCK_SKEW_S:
        raise RejectedError(f"Issued At {message.issued_at} is in the future; the chain's clock says {now}")
    if message.not_before is not None and seconds(message.not_before) > now:
        raise RejectedError(f"Not Before {message.not_before} is still to come; the chain's clock says {now}")
    if message.expiration_time is None:
        raise RejectedError("Expiration Time is missing: a login lasts at most a day")
    ends = seconds(message.expiration_time)
    if ends > issued + LONGEST_S:
        raise RejectedError(
            f"Expiration Time {message.expiration_time} is more than {LONGEST_S} s after it was issued"
        )
    if ends <= now:
        raise ExpiredError(f"Expiration Time {message.expiration_time} is over; the chain's clock says {now}")
    return ends


def _check_signature(message: SignIn, text: str, signature: str, now: int, wallets: Asked) -> None:
    """Raise unless the wallet signed the text, by its key or by its code."""
    digest = personal_hash(text)
    try:
        signer = recovered(digest, signature)
        said = f"the login of {message.address} was signed by {signer}"
    except UnprovenError as error:
        signer, said = None, str(error)
    except SignatureError as error:
        raise RejectedError(str(error)) from error
    if signer != message.address:
        accepted_at(wallets, message.address, digest, signature, now, said)


def sign_in(
    db: Db, text: str, signature: str, *, domain: str, chain_id: int, now: int, master: bytes, wallets: Asked
) -> tuple[str, LoginRow]:
    """Record a login and return its bearer token; a ServiceError, and nothing recorded, unless all of it holds."""
    try:
        message = SignIn.parse(text)
    except SignatureError as error:
        raise RejectedError(str(error)) from error
    ends = _check_message(message, domain, chain_id, now)
    _check_nonce(master, message.nonce, now)
    _check_signature(message, text, signature, now, wallets)
    alone(db.connection(), f"login {message.nonce}")
    # Those whose nonce could still be used stay.
    queries.forget_logins(db, now - 2 * NONCE_S)
    if queries.login_row(db, message.nonce) is not None:
        raise ConflictError(f"nonce {message.nonce} was used already: GET /v1/login/nonce for a new one")
    token = hmac.new(master, b"login" + message.nonce.encode(), "sha256").hexdigest()
    row = LoginRow(nonce=message.nonce, wallet=message.address, token_hash=token_hash(token), expires_at=ends)
    queries.add(db, row)
    return token, row
