"""The contributor's side of the API: signs with a local wallet, talks to a service, and says errors in its words."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount

from chain.canonical import text_hash
from chain.errors import HapticError
from chain.feedback import dense_ranks, summary_of
from chain.messages import (
    MAX_INT,
    Domain,
    Ranking,
    Session,
    checksum,
    parse_address,
    parse_hash,
    recover,
    sign,
)
from chain.receipts import handout_of, receipt_of
from chain.rules import METHODS
from chain.siwe import SignIn, authority_of
from chain.types import Address, Hash32

ORDERS = {2: "B > A", 3: "B > A > C", 4: "B > A = C > D", 6: "B > A = C = D = E > F"}
"""An order as it is typed, by the number of responses; each fits every method."""


PATIENCE: Final = 10
"""How often a request is sent again that the service's limits put off."""
LONGEST_WAIT_S: Final = 60
PAGE: Final = 500
"""Most rows of a list that a service gives at once."""
RESENT_AFTER_S: Final = (1, 2, 4)
"""Waits before a ranking that nothing is known of is sent again."""


class ApiError(HapticError):
    """The service refused, or cannot be reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 0 when there was no answer."""


class UnknownError(ApiError):
    """No answer says whether a ranking was recorded."""


class BrokenPromiseError(ApiError):
    """The service's answer is no promise of what was asked; it is evidence."""

    def __init__(self, message: str, answer: Any) -> None:
        super().__init__(message)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Task:
    """A blind task as the service hands it out."""

    epoch: int
    task: Hash32
    prompt: str
    method: str
    shown: tuple[str, ...]
    expires_at: int
    """Block time, Unix seconds; 0 of one that was ranked already."""
    skips_left: int = 0
    promise: Mapping[str, Any] = field(default_factory=dict)
    """The fields of its Handout with the service's `signature` and `signer`: with it one can prove to have been asked."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A ranking that this wallet sent, as the service has it."""

    position: int
    """Its place in the epoch's log, which its receipt names."""
    ranking: Ranking
    comment: str
    task: Task


@dataclass(frozen=True, slots=True)
class Proof:
    """A claim's proof, every field checked for form."""

    account: Address
    epoch: int
    cumulative: int
    index: int
    nodes: tuple[tuple[Hash32, int], ...]

    @property
    def path(self) -> bytes:
        """The siblings as the contract takes them: 44 bytes each, leaf first."""
        return b"".join(bytes.fromhex(h[2:]) + s.to_bytes(12, "big") for h, s in self.nodes)

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Proof:
        """Return the proof in a service's answer; HapticError when it is not one."""
        try:
            nodes = tuple((parse_hash(h), int(s)) for h, s in value["proof"])
            return cls(
                parse_address(value["account"]),
                int(value["epoch"]),
                int(value["cumulative"]),
                int(value["index"]),
                nodes,
            )
        except (KeyError, TypeError, ValueError, HapticError) as error:
            raise HapticError(f"the service's proof cannot be read: {error}") from error


class Api:
    """A service by its URL."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout_s)
        except httpx.InvalidURL as error:
            raise ApiError(f"{url!r} is no URL ({error}); it looks like http://127.0.0.1:8000") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def request(
        self, method: str, path: str, *, token: str = "", body: Any = None, params: Any = None
    ) -> Any:
        """Return the JSON answer; ApiError with the service's own words otherwise."""
        return self._read(self._send(method, path, token, body, params))

    def _send(self, method: str, path: str, token: str, body: Any, params: Any) -> httpx.Response:
        """Return the answer, sending again what was put off (429) when the service said to."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            for _ in range(PATIENCE):
                answer = self._http.request(method, path, json=body, params=params, headers=headers)
                wait = answer.headers.get("retry-after", "")
                if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or not _is_wait(wait):
                    break
                time.sleep(int(wait))
        except httpx.HTTPError as error:
            raise ApiError(
                f"no service answers at {self.url} ({error}); start one with `haptic serve`, or set --service"
            ) from error
        return answer

    def _read(self, answer: httpx.Response) -> Any:
        try:
            found = answer.json()
            if answer.is_success:
                return found
            detail = str(found["detail"])
        except (ValueError, KeyError, TypeError):
            detail = f"{self.url} answered HTTP {answer.status_code} and no JSON of a Haptic service"
        raise ApiError(detail, answer.status_code)

    def get(self, path: str, **params: Any) -> Any:
        """GET a public path under /v1."""
        return self.request("GET", f"/v1{path}", params=params or None)

    def every(self, path: str, *, token: str = "", **params: Any) -> Iterator[Any]:
        """Yield the rows of a list under /v1, asking for one page after the other."""
        for page in self.pages(path, token=token, **params):
            if not isinstance(page, list):
                raise ApiError(f"{self.url} answers no list at {path}")
            yield from page

    def pages(self, path: str, *, token: str = "", **params: Any) -> Iterator[Any]:
        """Yield one page after the other of what is under /v1."""
        seen = {""}
        while True:
            answer = self._send("GET", f"/v1{path}", token, None, params or None)
            page = self._read(answer)
            yield page
            link = answer.links.get("next", {}).get("url")
            if link is None:
                return
            if _is_bare(page):  # else a list without rows could go on for ever
                raise ApiError(f"{self.url} gives an empty page of {path} and says that there is a next one")
            try:
                # Only the query is taken: whatever a service says, no other place than this list is asked.
                params = dict(parse_qsl(urlsplit(link).query))
            except ValueError:
                params = {}
            if (cursor := params.get("cursor", "")) in seen:
                raise ApiError(f"{self.url} does not say where the next page of {path} is: {link!r}")
            seen.add(cursor)

    def domain(self) -> Domain:
        """Return the EIP-712 domain that the service signs and checks for."""
        found = self.get("/info")
        return Domain(int(found["chain_id"]), parse_address(found["vault"]))


def _is_bare(page: Any) -> bool:
    """Return whether a page has no row: neither it nor what it holds is a list with one."""
    lists = page.values() if isinstance(page, dict) else [page]
    return not any(isinstance(rows, list) and rows for rows in lists)


def _is_wait(seconds: str) -> bool:
    return seconds.isascii() and seconds.isdecimal() and int(seconds[:9]) <= LONGEST_WAIT_S


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
        """Sign a Session for an epoch and keep its token; `terms` is the text that the person has seen."""
        agreed = text_hash(str(self.api.get("/terms")["terms"]) if terms is None else terms)
        key = self.address if self.signer is self.wallet else parse_address(self.signer.address)
        session = Session(self.address, key, epoch, judgements, now + 3600 * hours, agreed)
        body = {"session": session.to_json(), "signature": sign(session, self.domain, self.wallet)}
        self._enter(self.api.request("POST", "/v1/sessions", body=body)["token"])
        self.epoch = epoch

    def sign_in(self, *, lasts_s: int = 3600) -> None:
        """Sign in with Ethereum (EIP-4361) and keep the token; from then on the wallet signs each ranking itself.

        An ApiError, and nothing signed, where the service asks for a login at another place than it is reached by: who
        signed that would let it in there.
        """
        asked = self.api.get("/login/nonce")
        if asked["domain"] != authority_of(self.api.url):
            raise ApiError(
                f"{self.api.url} asks for a login at {asked['domain']!r}, so nothing was signed: reach it by that name, "
                "or have its operator set HAPTIC_DOMAIN"
            )
        times = (_written(asked["now"]), _written(asked["now"] + lasts_s))
        message = SignIn(
            asked["domain"], self.address, self.api.url, self.domain.chain_id, asked["nonce"], *times,
            statement=asked["statement"],
        ).text()  # fmt: skip
        signature = "0x" + bytes(self.wallet.sign_message(encode_defunct(text=message)).signature).hex()
        body = {"message": message, "signature": signature}
        self._enter(self.api.request("POST", "/v1/login", body=body)["token"])
        self.signer, self.epoch = self.wallet, None

    def _enter(self, token: str) -> None:
        """Keep a token, and by whose signature the service promises from now on."""
        self._token = token
        self.receipt_signer = parse_address(self.api.get("/info")["receipt_signer"])

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
            promise, signature = handout_of({**found, "wallet": self.address}), found["signature"]
            if recover(promise.digest(self.domain), signature) != self.receipt_signer:
                raise ApiError("the service did not sign this hand-out")
            # A promise for another epoch would be held against a log that does not come, or not with this task.
            if self.epoch not in {None, promise.epoch}:
                raise ApiError(
                    f"it is of epoch {promise.epoch}, and you are signed in for epoch {self.epoch}"
                )
            kept = promise.to_json() | {"signature": signature, "signer": checksum(self.receipt_signer)}
            task = _task(found, promise.epoch, promise.task, found["method"])
            expires_at, left = _number(found, "expires_at"), _number(found, "skips_left")
            return replace(task, expires_at=expires_at, skips_left=left, promise=kept)
        except (KeyError, TypeError, HapticError) as error:
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
                said, comment, position = (
                    Ranking.parse(row["ranking"]),
                    row["comment"],
                    _number(row, "position"),
                )
                task = _task(row, said.epoch, said.task, said.method)
                mine = said.wallet == self.address and said.shown == tuple(map(text_hash, task.shown))
                # It is shown and signed anew as the person's own words: a service must not put them in their mouth.
                mine = mine and said.epoch == epoch and text_hash(comment) == said.comment_hash
            except (KeyError, TypeError, AttributeError, ValueError, HapticError) as error:
                raise ApiError(f"the service reads back what is no ranking ({error}): {row}") from error
            # Newest first, each once: who reads has an end to wait for.
            if not mine or position >= before:
                raise ApiError(f"the service reads back what {self.address} did not rank: {row}")
            before = position
            yield Recorded(position, said, comment, task)

    def skip(self, task: Task, reason: str) -> int:
        """Give a task back unjudged, and return how many more may be."""
        path = f"/v1/tasks/{task.task}/skip"
        return _number(
            self.api.request("POST", path, token=self._token, body={"reason": reason}), "skips_left"
        )

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

        UnknownError where no answer says whether it was recorded, BrokenPromiseError where the receipt is not for it.
        """
        digest = ranking.digest(self.domain)
        body = {
            "ranking": ranking.to_json(),
            "signature": sign(ranking, self.domain, self.signer),
            "comment": comment,
        }
        answer: dict[str, Any] = self._deliver(body)
        try:
            receipt = receipt_of(answer)
            signer = recover(receipt.digest(self.domain), answer["signature"])
            # The digest holds the ranking's epoch, but the log that a receipt is held against goes by the receipt's.
            if (receipt.digest_of, receipt.epoch, signer) != (digest, ranking.epoch, self.receipt_signer):
                raise ApiError(f"it is of {receipt.digest_of} in epoch {receipt.epoch}, signed by {signer}")
        except (KeyError, HapticError) as error:
            raise BrokenPromiseError(
                f"the service's receipt is not for what was sent ({error}); keep this answer as evidence: {answer}",
                answer,
            ) from error
        return answer

    def _deliver(self, body: Mapping[str, Any]) -> Any:
        """Send a signed ranking, and the very same again while nothing is known of it: it is recorded once at most."""
        lost: ApiError | None = None
        for wait_s in (*RESENT_AFTER_S, None):
            try:
                return self.api.request("POST", "/v1/rankings", token=self._token, body=body)
            except ApiError as error:
                if lost is None and httpx.codes.is_client_error(error.status):
                    raise
                # Once an answer was lost, a refusal of what was sent after it says nothing of what was sent first.
                lost = error
            if wait_s is not None:
                time.sleep(wait_s)
        raise UnknownError(str(lost), 0 if lost is None else lost.status) from lost


def _task(found: Mapping[str, Any], epoch: int, task: Hash32, method: Any) -> Task:
    """Return the task whose texts are in an answer; ApiError where it cannot be shown and answered."""
    prompt, shown = found["prompt"], found["shown"]
    if not isinstance(shown, list) or not all(isinstance(text, str) for text in (prompt, *shown)):
        raise ApiError("its texts are no texts")
    if method not in METHODS or len(shown) not in ORDERS:
        raise ApiError(f"{method!r} of {len(shown)} responses is no way to judge")
    return Task(epoch, task, prompt, method, tuple(shown), expires_at=0)


def _number(found: Mapping[str, Any], name: str) -> int:
    """Return a number of an answer; ApiError where it is none."""
    value = found.get(name) if isinstance(found, dict) else None
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise ApiError(f"the service's {name} is {value!r}, no number")
    return value


def _written(seconds: int) -> str:
    """Return Unix seconds as a message of login has them (RFC 3339)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_order(text: str, count: int) -> tuple[int, ...]:
    """Return dense ranks of an order such as "B > A = C" for `count` responses; HapticError says what is missing."""
    places: dict[str, int] = {}
    for rank, group in enumerate(text.upper().split(">"), start=1):
        for letter in group.split("="):
            name = letter.strip()
            if len(name) != 1 or not "A" <= name < chr(ord("A") + count):
                raise HapticError(
                    f"{name!r} is not one of {', '.join('ABCDEF'[:count])}; write for example: {ORDERS[count]}"
                )
            if name in places:
                raise HapticError(f"{name} stands twice in {text!r}")
            places[name] = rank
    if missing := [x for x in "ABCDEF"[:count] if x not in places]:
        raise HapticError(f"{', '.join(missing)} is missing in {text!r}")
    return tuple(places[x] for x in "ABCDEF"[:count])


def parse_marks(text: str, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (marks, dense ranks) of Likert marks such as "5 2 7"."""
    parts = text.replace(",", " ").split()
    if len(parts) != count or not all(p.isdecimal() and 1 <= int(p) <= 7 for p in parts):
        raise HapticError(
            f"{text!r}: give {count} marks from 1 (worst) to 7 (best), such as: {' '.join(['4'] * count)}"
        )
    marks = tuple(int(p) for p in parts)
    return marks, dense_ranks(marks)
