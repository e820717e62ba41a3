"""Whether an epoch's evidence is what people signed and the operator drew; names the first that is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from chain.assignment import display_order, method_of
from chain.board import Arrival, Board, in_order, replay
from chain.bundle import Evidence, SignedRanking, SignedSession
from chain.errors import HapticError, RpcError, ScoreInputError, SignatureError, UnprovenError, VerifyError
from chain.feedback import check_ranking
from chain.messages import Domain, Ranking, Session, parse_signature, recover
from chain.types import Address, Hash32

CLOCK_SKEW_S = 300
"""How far ahead of the chain's clock a wallet's own may be."""


FINAL_WITHIN_S = 7200
"""How old the block may be, at most, at which a contract wallet is asked: finality takes minutes, rarely an hour."""


class Wallets(Protocol):
    """The wallets of a chain that are contracts, and what their code says of a signature."""

    def time(self, block: int) -> int:
        """Return a block's time, Unix seconds."""

    def accepts(self, wallet: Address, digest: Hash32, signature: str, block: int) -> bool:
        """Return whether the wallet's code accepts the signature at a block."""


def recovered(digest: Hash32, signature: str) -> Address:
    """Return the key's address; an UnprovenError where these are other bytes, which only code could understand.

    Another SignatureError where they are none that anybody could understand.
    """
    parse_signature(signature)
    try:
        return recover(digest, signature)
    except SignatureError as error:
        raise UnprovenError(str(error)) from error


def check_session(signed: SignedSession, domain: Domain, epoch: int) -> Session:
    """Return the session if its wallet's key signed it for this epoch; SignatureError says what is wrong.

    An UnprovenError where everything is right but that no key of the wallet's gave the signature.
    """
    session = signed.session
    if session.epoch != epoch:
        raise SignatureError(f"session is for epoch {session.epoch}, not {epoch}; sign a new one")
    signer = recovered(session.digest(domain), signed.signature)
    if signer != session.wallet:
        raise UnprovenError(
            f"session of {session.wallet} was signed by {signer}: check the wallet, the chain id "
            f"({domain.chain_id}) and the verifying contract ({domain.vault})"
        )
    if signed.block:
        raise SignatureError(f"block is {signed.block}, expected 0: the wallet's own key signed it")
    return session


def _check_code(
    wallets: Wallets | None,
    wallet: Address,
    digest: Hash32,
    signed: SignedSession | SignedRanking,
    times: range,
) -> None:
    """Raise unless the wallet's code accepted the signature at the block that is named, at one of these times.

    An operator must not choose a block from when somebody else owned the wallet.
    """
    if wallets is None:
        raise SignatureError(f"wallet {wallet} is a contract, and there is no chain to ask it at")
    at = wallets.time(signed.block)
    if at not in times:
        raise SignatureError(
            f"block {signed.block} is of {at}, outside {times.start}..{times.stop}: the wallet has to be asked then"
        )
    if not wallets.accepts(wallet, digest, signed.signature, signed.block):
        raise SignatureError(
            f"the contract at {wallet} does not accept the signature at block {signed.block}"
        )


def check_signer(ranking: Ranking, signature: str, domain: Domain, sessions: Iterable[Session]) -> Hash32:
    """Return the ranking's digest if its wallet's key, or a session key that the wallet signed in, signed it."""
    return _signed(ranking, signature, domain, sessions)[0]


def _signed(
    ranking: Ranking, signature: str, domain: Domain, sessions: Iterable[Session]
) -> tuple[Hash32, Address]:
    """Return the ranking's digest and who signed it, or say why that one may not.

    An UnprovenError where no key that may sign for the wallet did: its code may accept it all the same.
    """
    digest = ranking.digest(domain)
    signer = recovered(digest, signature)
    if signer == ranking.wallet:
        return digest, signer
    ends = [s.not_after for s in sessions if s.wallet == ranking.wallet and s.key == signer]
    if ends and ranking.signed_at > max(ends):
        raise SignatureError(f"session key {signer} ended at {max(ends)}; sign a new session")
    if ends:
        return digest, signer
    raise UnprovenError(
        f"ranking of {ranking.wallet} was signed by {signer}, which is neither the wallet nor one of its "
        f"session keys: check the key, the chain id ({domain.chain_id}) and the verifying contract "
        f"({domain.vault})"
    )


def _check_asked(signed: SignedRanking, domain: Domain, wallets: Wallets | None) -> tuple[Hash32, Address]:
    """Return a ranking's digest and its wallet, whose code accepted the signature when the ranking came.

    Whatever sessions there are: one that names the key that signed may have been signed in after the ranking came, and
    must not undo what was accepted then.
    """
    ranking, came = signed.ranking, signed.received_at
    digest = ranking.digest(domain)
    try:
        own = recovered(digest, signed.signature) == ranking.wallet
    except UnprovenError:
        own = False
    if own:
        raise SignatureError(f"block is {signed.block}, expected 0: a key signed it, no code")
    _check_code(wallets, ranking.wallet, digest, signed, range(came - FINAL_WITHIN_S, came + 1))
    return digest, ranking.wallet


def _check_one(
    signed: SignedRanking,
    evidence: Evidence,
    domain: Domain,
    sessions: Mapping[Address, list[Session]],
    wallets: Wallets | None,
) -> tuple[Hash32, Address]:
    """Return a ranking's digest and signer after every check that a stranger can repeat but that of the budgets."""
    header, ranking = evidence.header, signed.ranking
    if ranking.epoch != header.epoch:
        raise ScoreInputError(f"it is for epoch {ranking.epoch}, not {header.epoch}")
    if ranking.task not in evidence.tasks:
        raise ScoreInputError(f"task {ranking.task} is unknown")
    if not header.start <= signed.received_at < header.end:
        raise ScoreInputError(f"received at {signed.received_at}, outside {header.start}..{header.end}")
    task, seed = evidence.tasks[ranking.task], bytes.fromhex(header.seed[2:])
    method = method_of(seed, ranking.wallet, header.rules.methods)
    if method not in task.methods:
        raise ScoreInputError(f"the task cannot be judged by {method}, which the seed drew for this wallet")
    check_ranking(ranking, method, display_order(seed, ranking.wallet, ranking.task, task.hashes))
    if ranking.signed_at > signed.received_at + CLOCK_SKEW_S:
        raise ScoreInputError(f"signed at {ranking.signed_at}, after it was received at {signed.received_at}")
    if signed.block:
        return _check_asked(signed, domain, wallets)
    known = sessions.get(ranking.wallet, [])
    digest, signer = _signed(ranking, signed.signature, domain, known)
    # The time that counts is the chain's at arrival: signedAt is the signer's own word.
    ends = max((s.not_after for s in known if s.key == signer), default=signed.received_at + 1)
    if signer != ranking.wallet and ends <= signed.received_at:
        raise SignatureError(
            f"session key {signer} ended at {ends}, the ranking came at {signed.received_at}"
        )
    return digest, signer


def _check_order(evidence: Evidence) -> None:
    """Positions count 0, 1, 2 …; revisions of one ranking count 0, 1, 2 … too."""
    last: dict[tuple[Address, Hash32], int] = {}
    for place, signed in enumerate(evidence.rankings):
        key = (signed.ranking.wallet, signed.ranking.task)
        if signed.position != place:
            raise VerifyError(
                f"ranking at position {signed.position}: expected position {place}; one is missing or added"
            )
        if signed.ranking.revision != last.get(key, -1) + 1:
            raise VerifyError(
                f"ranking at position {place}: revision {signed.ranking.revision} of {key} does not follow "
                f"revision {last.get(key, -1)}"
            )
        last[key] = signed.ranking.revision


def _check_tasks(evidence: Evidence) -> None:
    """Each is named by the draw, and no two compare the same responses to the same prompt: a pair counts once."""
    seen: dict[tuple[str, tuple[str, ...]], Hash32] = {}
    seed = bytes.fromhex(evidence.header.seed[2:])
    for name, task in evidence.tasks.items():
        if task.salt != (drawn := task.drawn_salt(seed)):
            raise VerifyError(
                f"task {name}: its salt is {task.salt!r}; for its prompt, responses, methods, author and assignees the "
                f"epoch's seed draws {drawn}"
            )
        known = seen.setdefault((task.prompt, task.responses), name)
        if known != name:
            raise VerifyError(f"task {name}: it compares the same responses as task {known}")


def _check_gold(evidence: Evidence) -> None:
    for gold in evidence.gold.values():
        task = evidence.tasks.get(gold.task)
        if task is None or len(gold.ranks) != len(task.responses):
            raise VerifyError(
                f"gold of task {gold.task}: the task is unknown or has another number of responses"
            )


def replayed(evidence: Evidence) -> Board:
    """Return what the log of an epoch leaves; an error names the first entry that the rule does not give."""
    header = evidence.header
    board = Board(evidence.tasks, header.rules, bytes.fromhex(header.seed[2:]))
    arrivals = [Arrival(r.position, r.ranking, r.received_at) for r in evidence.rankings]
    return replay(board, in_order(evidence.handouts, evidence.skips, arrivals))


def _check_log(evidence: Evidence) -> None:
    """Every hand-out is what the rule gives at its moment, every skip and ranking is of what its wallet held."""
    header = evidence.header
    for kind, entries in (("hand-out", evidence.handouts), ("skip", evidence.skips)):
        for entry in entries:
            if not header.start <= entry.at < header.end:
                raise VerifyError(
                    f"{kind} {entry.number} of {entry.wallet}: at {entry.at}, outside {header.start}..{header.end}"
                )
    replayed(evidence)


def _check_granted(
    signed: SignedSession, evidence: Evidence, domain: Domain, wallets: Wallets | None
) -> Session:
    """Return a session that its wallet signed, by a key or by its code."""
    header = evidence.header
    try:
        return check_session(signed, domain, header.epoch)
    except UnprovenError:
        if not signed.block:
            raise
    wallet, digest = signed.session.wallet, signed.session.digest(domain)
    _check_code(wallets, wallet, digest, signed, range(header.start - FINAL_WITHIN_S, header.end))
    return signed.session


def check_evidence(evidence: Evidence, domain: Domain, wallets: Wallets | None = None) -> dict[int, Hash32]:
    """Return the digest of each ranking by position, or a VerifyError that names the first wrong line.

    `wallets` says what contract wallets accept; without it, what they signed cannot be checked, and is an error.
    """
    _check_order(evidence)
    _check_tasks(evidence)
    _check_gold(evidence)
    sessions: dict[Address, list[Session]] = {}
    for signed in evidence.sessions:
        try:
            session = _check_granted(signed, evidence, domain, wallets)
        except RpcError:
            raise
        except HapticError as error:
            raise VerifyError(f"session of {signed.session.wallet}: {error}") from error
        sessions.setdefault(session.wallet, []).append(session)
    digests: dict[int, Hash32] = {}
    used: Counter[tuple[Address, Address]] = Counter()
    for item in evidence.rankings:
        try:
            digests[item.position], signer = _check_one(item, evidence, domain, sessions, wallets)
        except RpcError:  # a node that fails is no fault of the line's
            raise
        except HapticError as error:
            raise VerifyError(
                f"ranking at position {item.position} by {item.ranking.wallet}: {error}"
            ) from error
        used[item.ranking.wallet, signer] += 1
    _check_budgets(used, sessions)
    _check_log(evidence)
    return digests


def _check_budgets(
    used: Mapping[tuple[Address, Address], int], sessions: Mapping[Address, list[Session]]
) -> None:
    """No session key signs more rankings than its wallet allowed it; `used` counts them by wallet and signer."""
    for (wallet, signer), count in used.items():
        limits = [s.max_judgements for s in sessions.get(wallet, []) if s.key == signer]
        if signer != wallet and count > max(limits):
            raise VerifyError(
                f"session key {signer} of {wallet} signed {count} rankings, its limit is {max(limits)}"
            )
