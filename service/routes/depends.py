"""What routes ask for: the context, a database session that is committed once, the wallet behind a token."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Header, Path, Request
from sqlmodel import Session as Db

from chain import ledger as chain_ledger
from chain.errors import SignatureError
from chain.ledger import EpochReport
from chain.messages import parse_address
from chain.rpc import Rpc
from chain.types import MAX_EPOCH, Address, BlockRef, Hash32
from chain.wallets import Asked
from service.auth import Visitor, who
from service.context import Context
from service.errors import BadRequestError, NotFoundError, UnauthorizedError
from service.guard import ORIGIN
from service.idempotency import Repeatable
from service.rates import Limits

EpochPath = Annotated[int, Path(ge=0, le=MAX_EPOCH)]
HashPath = Annotated[Hash32, Path(pattern="^0x[0-9a-f]{64}$")]


def context(request: Request) -> Context:
    """Return the context that the app was made with."""
    found: Context = request.app.state.context
    return found


Ctx = Annotated[Context, Depends(context)]


def reading(ctx: Ctx) -> Iterator[Db]:
    """Yield a session that only reads."""
    with ctx.db.read() as db:
        yield db


def writing(ctx: Ctx) -> Iterator[Db]:
    """Yield a session that the route commits; an error rolls all of it back."""
    with ctx.db.write() as db:
        yield db


# Given back before the answer is sent: whoever reads slowly would hold a connection for as long as it likes.
Reading = Annotated[Db, Depends(reading, scope="function")]
Writing = Annotated[Db, Depends(writing, scope="function")]


def closed_report(db: Db, epoch: int, what: str) -> EpochReport:
    """Return a closed epoch's report; a NotFoundError, with `what` comes of its close, before that."""
    report = chain_ledger.epoch_report(db, epoch)
    if report is None:
        raise NotFoundError(f"epoch {epoch} is not closed; {what}")
    return report


def bearer(request: Request, ctx: Ctx, authorization: Annotated[str, Header()] = "") -> Visitor:
    """Return who is behind `Authorization: Bearer …`."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError(
            "send `Authorization: Bearer <token>`; POST a signed Session to /v1/sessions, or sign in at /v1/login, "
            "to get one"
        )
    now = ctx.clock.now()
    with ctx.db.read() as db:
        found = who(db, token.strip(), ctx.place.epoch_at(now), now)
    limits: Limits = request.app.state.limits
    limits.wallet(found.wallet)
    return found


Caller = Annotated[Visitor, Depends(bearer)]


KEY = re.compile("[!-~]{1,200}")


def idempotency_key(key: str) -> str:
    """Return a key of the form that the document gives; BadRequestError otherwise."""
    if not KEY.fullmatch(key):
        raise BadRequestError(
            f"header.Idempotency-Key: {key[:40]!r} is not 1 to 200 printable ASCII characters without a space"
        )
    return key


class Counted(Asked):
    """The wallets that are contracts; how often they are asked is counted by who made us ask."""

    def __init__(self, rpc: Rpc, limits: Limits, address: str) -> None:
        super().__init__(rpc)
        self._limits, self._address = limits, address

    def finalized(self) -> BlockRef:
        """Return the block at which wallets are asked now; a RateError for who asks too often."""
        self._limits.ask_contract(self._address)
        return super().finalized()


def contract_wallets(request: Request) -> Asked:
    """Return the wallets that are contracts as this request may ask them."""
    return Counted(context(request).reader, request.app.state.limits, request.scope[ORIGIN])


Wallets = Annotated[Asked, Depends(contract_wallets)]


async def repeatable(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            pattern=f"^{KEY.pattern}$",
            description="Sent again with the same key, a request gets its first answer again; kept for the epoch",
        ),
    ] = None,
) -> Repeatable | None:
    """Return the request's idempotency key with what it asks; None where it gave none."""
    if key is None:
        return None
    asked = request.method.encode() + b" " + request.url.path.encode() + b"\n" + await request.body()
    return Repeatable(key, hashlib.sha256(asked).hexdigest())


Repeat = Annotated[Repeatable | None, Depends(repeatable)]


def wallet_in_path(wallet: str) -> Address:
    """Return the wallet in a path, or 400 with what is wrong with it."""
    try:
        return parse_address(wallet, "wallet")
    except SignatureError as error:
        raise BadRequestError(str(error)) from error


WalletPath = Annotated[Address, Depends(wallet_in_path)]
