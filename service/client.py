"""The contributor's side of the API: logs a wallet in, takes tasks, signs rankings, and checks what it is promised."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount

from chain.canonical import text_hash
from chain.errors import HapticError
from chain.feedback import summary_of
from chain.messages import MAX_INT, Domain, Ranking, Session, checksum, parse_address, recover, sign
from chain.receipts import handout_of
from chain.siwe import SignIn, authority_of
from chain.types import Address
from service import answers
from service.answers import ApiError, BrokenPromiseError, Nonce, Recorded, Task, UnknownError, UnsentError
from service.api import PAGE, Api

RESENT_AFTER_S: Final = (1, 2, 4)
"""Waits before a ranking that nothing is known of is sent again."""


class Contributor:
    """A wallet logged in for an epoch: asks for tasks and signs rankings, with a session key of its own or itself."""

    def __init__(
        self,
        api: Api,
        wallet: LocalAccount,
        domain: Domain,
        *,
        use_session_key: bool = True,
        address: Address | None = None,
    ) -> None:
        """Speak for a wallet by its key; `address` is the wallet's where that is a contract which the key owns."""
        self.api, self.wallet, self.domain = api, wallet, domain
        self.address = address or parse_address(wallet.address)
        self.signer: LocalAccount = Account.from_key(secrets.token_bytes(32)) if use_session_key else wallet
        self.receipt_signer = Address("")
        """Whose signature is on every receipt and promise, as the service said when the wallet logged in."""
        self.epoch: int | None = None
        """The epoch that the Session is for; None where the wallet signed in for none."""
        self._token = ""

    def log_in(
        self, *, epoch: int, now: int, hours: int = 24, judgements: int = 100_000, terms: str | None = None
    ) -> None:
        """Sign a Session for an epoch and keep its token; `terms` is the text that the person has seen.

        From then on tasks of that epoch alone are taken. Where `epoch` is what the service said, hold it against the
        chain before (`Info.check`): nothing here does.
        """
        agreed = text_hash(self.api.terms() if terms is None else terms)
        key = self.address if self.signer is self.wallet else parse_address(self.signer.address)
        session = Session(self.address, key, epoch, judgements, now + 3600 * hours, agreed)
        body = {"session": session.to_json(), "signature": sign(session, self.domain, self.wallet)}
        self._enter(self.api.request("POST", "/v1/sessions", body=body))
        self.epoch = epoch

    def sign_in(self, *, lasts_s: int = 3600) -> None:
        """Sign in with Ethereum (EIP-4361) and keep the token; from then on the wallet signs each ranking itself.

        A login is for no epoch: which one a task is of is the service's word alone. An ApiError, and nothing signed,
        where the service asks for a login at another place than it is reached by (who signed that would let it in
        there), or for what is no such message.
        """
        asked = Nonce.parse(self.api.get("/login/nonce"))
        if asked.domain != authority_of(self.api.url):
            raise ApiError(
                f"{self.api.url} asks for a login at {asked.domain!r}, so nothing was signed: reach it by that name, "
                "or have its operator set HAPTIC_DOMAIN"
            )
        try:
            times = (_written(asked.now), _written(asked.now + lasts_s))
            message = SignIn(
                asked.domain, self.address, self.api.url, self.domain.chain_id, asked.nonce, *times,
                statement=asked.statement,
            )  # fmt: skip
            # A line break in what was asked would have the wallet sign fields that nobody here has seen.
            if SignIn.parse(message.text()) != message:
                raise ApiError("it would be read as another message")
        except (ValueError, OverflowError, HapticError) as error:
            raise ApiError(
                f"{self.api.url} asks for a login that is none ({error}), so nothing was signed"
            ) from error
        text = message.text()
        signature = "0x" + bytes(self.wallet.sign_message(encode_defunct(text=text)).signature).hex()
        self._enter(self.api.request("POST", "/v1/login", body={"message": text, "signature": signature}))
        self.signer, self.epoch = self.wallet, None

    def _enter(self, answer: Any) -> None:
        """Keep the token of an answer, and by whose signature the service promises from now on."""
        self._token = answers.token(answer)
        self.receipt_signer = self.api.info().receipt_signer

    def next_task(self) -> Task | None:
        """Return the next task, its promise checked, or None when there is none for this wallet."""
        try:
            found = self.api.request("GET", "/v1/tasks/next", token=self._token)
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        try:
            # Parsed as `haptic verify` parses what is kept, so that nothing is kept which cannot be read.
            prompt, shown = answers.texts(found)
            seen = {"prompt": text_hash(prompt), "shown": [text_hash(text) for text in shown]}
            promise, signature = handout_of({**found, **seen, "wallet": self.address}), found["signature"]
            if recover(promise.digest(self.domain), signature) != self.receipt_signer:
                raise ApiError("the service did not sign this hand-out")
            # A promise for another epoch would be held against a log that does not come, or not with this task.
            if self.epoch not in {None, promise.epoch}:
                raise ApiError(
                    f"it is of epoch {promise.epoch}, and you are signed in for epoch {self.epoch}"
                )
            task = Task.parse(found, promise.epoch, promise.task, found["method"])
            expires_at, left = answers.number(found, "expires_at"), answers.number(found, "skips_left")
            kept = {"signature": signature, "signer": checksum(self.receipt_signer)}
            return replace(task, expires_at=expires_at, skips_left=left, promise=promise.to_json() | kept)
        except (KeyError, TypeError, ValueError, HapticError) as error:
            raise BrokenPromiseError(
                f"the service's hand-out was refused ({error}); keep this answer as evidence: {found}", found
            ) from error

    def recorded(self, epoch: int) -> Iterator[Recorded]:
        """Yield what this wallet sent in an epoch, every revision, newest first.

        An ApiError where the service reads back what no ranking of this wallet can be.
        """
        before = MAX_INT + 1
        for row in self.api.every("/rankings", token=self._token, epoch=epoch, limit=PAGE):
            try:
                said, comment = Ranking.parse(row["ranking"]), row["comment"]
                position = answers.number(row, "position")
                task = Task.parse(row, said.epoch, said.task, said.method)
                mine = said.wallet == self.address and said.shown == tuple(map(text_hash, task.shown))
                # It is shown and signed anew as the person's own words: a service must not put them in their mouth.
                mine = mine and said.epoch == epoch and text_hash(comment) == said.comment_hash
            except (KeyError, TypeError, AttributeError, ValueError, HapticError) as error:
                raise ApiError(f"the service reads back what is no ranking ({error}): {row}") from error
            # Newest first, each once: who reads has an end to wait for.
            if not mine or position >= before:
                raise ApiError(f"the service reads back what {self.address} did not rank: {row}")
            before = position
            yield Recorded(position, said, comment, task, _first_receipt(row, said.epoch))

    def skip(self, task: Task, reason: str) -> int:
        """Give a task back unjudged, and return how many more may be."""
        path = f"/v1/tasks/{task.task}/skip"
        answer = self.api.request("POST", path, token=self._token, body={"reason": reason})
        return answers.number(answer, "skips_left")

    def ranking(
        self,
        task: Task,
        ranks: Sequence[int],
        *,
        now: int,
        likert: Sequence[int] = (),
        flag: str = "",
        comment: str = "",
        revision: int = 0,
    ) -> Ranking:
        """Return the Ranking message of an order of what was shown; HapticError where the comment is no text."""
        try:
            comment_hash = text_hash(comment)
        except UnicodeEncodeError:
            # A terminal that does not speak UTF-8 gives its bytes as lone surrogates.
            raise HapticError("the comment holds bytes that are no UTF-8: type it without them") from None
        return Ranking(
            wallet=self.address, epoch=task.epoch, task=task.task, method=task.method, summary=summary_of(ranks),
            shown=tuple(text_hash(t) for t in task.shown), ranks=tuple(ranks), likert=tuple(likert), flag=flag,
            comment_hash=comment_hash, revision=revision, signed_at=now,
        )  # fmt: skip

    def send(self, ranking: Ranking, comment: str = "") -> dict[str, Any]:
        """Sign and send a ranking; check its receipt against the key published before, so that it proves something.

        UnsentError where it never left, and UnknownError where no answer says whether it was recorded: sent again, the
        same ranking is the same bytes, and recorded once at most. BrokenPromiseError where the receipt is not for it.
        """
        body = {
            "ranking": ranking.to_json(),
            "signature": sign(ranking, self.domain, self.signer),
            "comment": comment,
        }
        answer: dict[str, Any] = self._deliver(body)
        self.check_receipt(answer, ranking)
        return answer

    def check_receipt(self, answer: Any, ranking: Ranking) -> None:
        """Raise a BrokenPromiseError unless an answer is this service's receipt for a ranking."""
        answers.check_receipt(answer, ranking, self.domain, self.receipt_signer)

    def _deliver(self, body: Mapping[str, Any]) -> Any:
        """Send a signed ranking, and the very same again while nothing is known of it: it is recorded once at most."""
        lost: ApiError | None = None
        for wait_s in (0, *RESENT_AFTER_S):
            time.sleep(wait_s)
            try:
                return self.api.request("POST", "/v1/rankings", token=self._token, body=body)
            except UnsentError as error:
                failed: ApiError = error
            except ApiError as error:
                if lost is None and httpx.codes.is_client_error(error.status):
                    raise
                # Once an answer was lost, a refusal of what was sent after it says nothing of what was sent first.
                failed = lost = error
        if lost is None:
            raise failed
        raise UnknownError(str(failed), failed.status) from failed


def _first_receipt(row: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """Return the receipt that is read back with a ranking, in the fields in which it was first answered."""
    fields = {name: row.get(name) for name in ("digest", "position", "received_at")}
    return fields | {"epoch": epoch, "signature": row.get("receipt")}


def _written(seconds: int) -> str:
    """Return Unix seconds as a message of login has them (RFC 3339)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
