"""The contributor's side of the API: signs with a local wallet, talks to a service, and says errors in its words."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    Domain,
    Handout,
    Ranking,
    Receipt,
    Session,
    checksum,
    parse_address,
    parse_hash,
    recover,
    sign,
)
from chain.siwe import SignIn, authority_of
from chain.types import Address, Hash32

ORDERS = {2: "B > A", 3: "B > A > C", 4: "B > A = C > D", 6: "B > A = C = D = E > F"}
"""An order as it is typed, by the number of responses; each fits every method."""


PATIENCE: Final = 10
"""How often a request is sent again that the service's limits put off."""
LONGEST_WAIT_S: Final = 60
PAGE: Final = 500
"""Most rows of a list that a service gives at once."""


class ApiError(HapticError):
    """The service refused, or cannot be reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 0 when there was no answer."""


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
            yield from page

    def pages(self, path: str, *, token: str = "", **params: Any) -> Iterator[Any]:
        """Yield one page after the other of what is under /v1."""
        seen = {""}
        while True:
            answer = self._send("GET", f"/v1{path}", token, None, params or None)
            yield self._read(answer)
            link = answer.links.get("next", {}).get("url")
            if link is None:
                return
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
        self.signer = self.wallet

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
        promise = Handout(self.address, found["epoch"], Hash32(found["task"]), found["number"], found["at"])
        if recover(promise.digest(self.domain), found["signature"]) != self.receipt_signer:
            raise ApiError(f"the service did not sign this hand-out; keep this answer as evidence: {found}")
        return Task(
            found["epoch"],
            promise.task,
            found["prompt"],
            found["method"],
            tuple(found["shown"]),
            found["expires_at"],
            found["skips_left"],
            promise.to_json() | {"signature": found["signature"], "signer": checksum(self.receipt_signer)},
        )

    def recorded(self, epoch: int) -> Iterator[Recorded]:
        """Yield what this wallet sent in an epoch, every revision, newest first.

        An ApiError where the service reads back what no ranking of this wallet can be.
        """
        for row in self.api.every("/rankings", token=self._token, epoch=epoch, limit=PAGE):
            said, shown = Ranking.parse(row["ranking"]), tuple(row["shown"])
            if said.wallet != self.address or said.shown != tuple(map(text_hash, shown)):
                raise ApiError(f"the service reads back what {self.address} did not rank: {row}")
            task = Task(said.epoch, said.task, row["prompt"], said.method, shown, expires_at=0)
            yield Recorded(row["position"], said, row["comment"], task)

    def skip(self, task: Task, reason: str) -> int:
        """Give a task back unjudged, and return how many more may be."""
        path = f"/v1/tasks/{task.task}/skip"
        return int(self.api.request("POST", path, token=self._token, body={"reason": reason})["skips_left"])

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
        """Sign and send a ranking; check its receipt against the key published before, so that it proves something."""
        digest = ranking.digest(self.domain)
        body = {
            "ranking": ranking.to_json(),
            "signature": sign(ranking, self.domain, self.signer),
            "comment": comment,
        }
        answer: dict[str, Any] = self.api.request("POST", "/v1/rankings", token=self._token, body=body)
        receipt = Receipt(
            Hash32(answer["digest"]), answer["epoch"], answer["position"], answer["received_at"]
        )
        signer = recover(receipt.digest(self.domain), answer["signature"])
        if receipt.digest_of != digest or signer != self.receipt_signer:
            raise ApiError(
                "the service's receipt is not for what was sent; keep this answer as evidence: " + str(answer)
            )
        return answer


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
