"""From signed rankings to the rows that HapticScore reads (SPEC 2 and 3): shape, meaning, weights."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from chain.assignment import seal_of
from chain.canonical import canonical, hash_of, text_hash
from chain.errors import ScoreInputError
from chain.messages import Ranking
from chain.rules import FLAGS, METHODS, SIZES
from chain.types import Address, Hash32, Pair, Row

if TYPE_CHECKING:
    from _typeshed import SupportsRichComparisonT

BUCKETS = 5


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt with the responses that are compared, by hash in ascending order."""

    prompt: str
    responses: tuple[str, ...]
    """Texts, in the order of their hashes."""
    methods: tuple[str, ...]
    """Methods by which it may be judged, sorted."""
    author: str = ""
    """Wallet that the prompt is of, who is not asked about it; empty where nobody is named."""
    assignees: tuple[Address, ...] = ()
    """When not empty, only these wallets are asked, each of them; ascending."""
    salt: str = ""
    """Secret until its epoch's close, so that nobody can try by its hash whom it names; empty before it has an epoch."""
    hashes: tuple[Hash32, ...] = field(init=False, repr=False, compare=False)
    """The responses' hashes, ascending; taken once, because every ranking of the task is held against them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hashes", tuple(map(text_hash, self.responses)))

    @classmethod
    def of(
        cls,
        prompt: str,
        texts: Iterable[str],
        methods: Iterable[str],
        author: str = "",
        assignees: Iterable[Address] = (),
        salt: str = "",
    ) -> Task:
        """Return the task of these texts; equal texts cannot be told apart and are refused."""
        responses = tuple(sorted(texts, key=text_hash))
        allowed = tuple(sorted(methods))
        if len(set(responses)) != len(responses):
            raise ScoreInputError(f"two responses to {prompt[:60]!r} have the same text; show one of them")
        if len(responses) not in SIZES:
            raise ScoreInputError(f"a task shows {SIZES} responses, not {len(responses)}: {prompt[:60]!r}")
        if not allowed or len(set(allowed)) < len(allowed) or not set(allowed) <= set(METHODS):
            raise ScoreInputError(f"methods {allowed} are not some of {METHODS}, each once")
        if unfit := {"best_worst"} & set(allowed) if len(responses) == 2 else {"pairwise"} & set(allowed):
            raise ScoreInputError(f"{unfit.pop()!r} cannot judge {len(responses)} responses: {prompt[:60]!r}")
        return cls(prompt, responses, allowed, author, tuple(sorted(set(assignees))), salt)

    def hash(self) -> Hash32:
        """Return keccak256 of the task's canonical JSON: prompt, response hashes, method set, who may not or shall judge.

        And its salt. What is not there is left out.
        """
        return self._hash(self.salt)

    def _hash(self, salt: str) -> Hash32:
        value = {"methods": list(self.methods), "prompt": self.prompt, "responses": list(self.hashes)}
        rest = {"author": self.author, "assignees": list(self.assignees), "salt": salt}
        return hash_of(canonical(value | {k: v for k, v in rest.items() if v}))

    def drawn_salt(self, seed: bytes) -> Hash32:
        """Return the salt that the task has in the epoch of this seed, and no other."""
        return seal_of(seed, self._hash(""))

    def sealed(self, seed: bytes) -> Task:
        """Return the task as it is named in the epoch of this seed."""
        return replace(self, salt=self.drawn_salt(seed))


@dataclass(frozen=True, slots=True)
class PairKey:
    """Names a pair: its task and its two responses by hash, `a < b`."""

    task: Hash32
    a: Hash32
    b: Hash32


def _column() -> array[int]:
    return array("q")


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows as columns of one length; the fields are those of `chain.types.Row`. A million of them take 40 MB."""

    judgement: array[int] = field(default_factory=_column)
    wallet: array[int] = field(default_factory=_column)
    pair: array[int] = field(default_factory=_column)
    x: array[int] = field(default_factory=_column)
    w: array[int] = field(default_factory=_column)


@dataclass(frozen=True, slots=True)
class Comparisons:
    """An epoch's feedback as the score wants it: plain records with indices into the two name lists."""

    wallets: tuple[Address, ...]
    """Everyone with a valid ranking, ascending."""
    keys: tuple[PairKey, ...]
    """Every pair with at least one row, ascending."""
    pairs: tuple[Pair, ...]
    columns: Columns = field(default_factory=Columns)
    """Its rows: by task, wallet, pair. There are far more pairs than wallets; the score goes through memory in order."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows as records."""
        c = self.columns
        return tuple(map(Row, c.judgement, c.wallet, c.pair, c.x, c.w))


def summary_of(ranks: Sequence[int]) -> str:
    """Return the order for people, letters by display position: ranks (2, 1, 2) give "B > A = C"."""
    groups: dict[int, list[str]] = {}
    for letter, rank in zip("ABCDEF", ranks, strict=False):
        groups.setdefault(rank, []).append(letter)
    return " > ".join(" = ".join(groups[r]) for r in sorted(groups))


def dense_ranks(marks: Sequence[SupportsRichComparisonT]) -> tuple[int, ...]:
    """Return dense ranks of marks, the highest mark first: (7, 3, 7) gives (1, 2, 1)."""
    order = {mark: i + 1 for i, mark in enumerate(sorted(set(marks), reverse=True))}
    return tuple(order[m] for m in marks)


def check_ranking(ranking: Ranking, expected_method: str, expected_shown: Sequence[Hash32]) -> None:
    """Raise ScoreInputError naming the value unless the ranking says something its method can say."""
    k, ranks = len(expected_shown), ranking.ranks
    if ranking.method != expected_method:
        raise ScoreInputError(f"method is {ranking.method!r}; this wallet was asked by {expected_method!r}")
    if ranking.shown != tuple(expected_shown):
        strangers = sorted(set(ranking.shown) - set(expected_shown))
        why = (
            f"{strangers[0]} was not shown"
            if strangers
            else "the order or number differs from what was shown"
        )
        raise ScoreInputError(f"shown: {why}")
    if ranking.flag not in FLAGS:
        raise ScoreInputError(f"flag {ranking.flag!r} is not one of {', '.join(map(repr, FLAGS))}")
    if len(ranks) != k or set(ranks) != set(range(1, max(ranks, default=0) + 1)):
        raise ScoreInputError(f"ranks {list(ranks)}: expected {k} dense ranks from 1, such as {[1] * k}")
    if ranking.summary != summary_of(ranks):
        raise ScoreInputError(f"summary {ranking.summary!r} does not say the ranks: {summary_of(ranks)!r}")
    if ranking.flag and len(set(ranks)) > 1:
        raise ScoreInputError(f"a ranking flagged {ranking.flag!r} gives no order: ranks must be {[1] * k}")
    _check_method(ranking)


def _check_method(ranking: Ranking) -> None:
    ranks, likert = ranking.ranks, ranking.likert
    if ranking.method != "likert":
        if likert:
            raise ScoreInputError(f"likert marks {list(likert)} belong to the method 'likert' only")
        one_each = ranks.count(1) == 1 and ranks.count(3) == 1 and max(ranks) == 3
        if ranking.method == "best_worst" and len(set(ranks)) > 1 and not one_each:
            raise ScoreInputError(f"best_worst names one best and one worst: ranks {list(ranks)} do not")
        return
    if ranking.flag and not likert:
        return
    if len(likert) != len(ranks) or not all(1 <= m <= 7 for m in likert):
        raise ScoreInputError(f"likert {list(likert)}: expected {len(ranks)} marks from 1 to 7")
    if dense_ranks(likert) != ranks:
        raise ScoreInputError(f"ranks {list(ranks)} do not follow the marks {list(likert)}")


@lru_cache(4096)
def _signs(ranks: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which of the pairs are not tied, and for each +1 when its first response was ranked better, else -1.

    Pairs count in the order of `combinations`; the same few orders are given again and again.
    """
    signs = ((a < b) - (a > b) for a, b in combinations(ranks, 2))
    untied = [(place, x) for place, x in enumerate(signs) if x]
    return tuple(place for place, _ in untied), tuple(x for _, x in untied)


class _Judgement(NamedTuple):
    """What a ranking comes to: which of the pairs of what was shown it orders, and how."""

    wallet: Address
    shown: tuple[Hash32, tuple[Hash32, ...]]
    """The task, and the responses by hash in ascending order; their pairs count as `combinations` gives them."""
    places: tuple[int, ...]
    signs: tuple[int, ...]


def signs_of(ranking: Ranking) -> tuple[int, ...]:
    """Return what a ranking says of each pair of its responses, in the order of `combinations` of their hashes.

    +1 where the first was ranked better, -1 where the second, 0 where they are tied or the ranking is flagged.
    """
    placed = sorted(zip(ranking.shown, ranking.ranks, strict=True))
    if ranking.flag:
        return (0,) * (len(placed) * (len(placed) - 1) // 2)
    return tuple((a < b) - (a > b) for (_, a), (_, b) in combinations(placed, 2))


def _judgement(ranking: Ranking) -> _Judgement:
    placed = sorted(zip(ranking.shown, ranking.ranks, strict=True))
    ranks = () if ranking.flag else tuple(rank for _, rank in placed)
    return _Judgement(ranking.wallet, (ranking.task, tuple(h for h, _ in placed)), *_signs(ranks))


def _pair_keys(
    judgements: Iterable[_Judgement],
) -> dict[tuple[Hash32, tuple[Hash32, ...]], list[PairKey | None]]:
    """Return the pairs of all that was shown; None for one that nobody ordered."""
    ordered: dict[tuple[Hash32, tuple[Hash32, ...]], set[int]] = {}
    for judgement in judgements:
        ordered.setdefault(judgement.shown, set()).update(judgement.places)
    return {
        (task, hashes): [
            PairKey(task, a, b) if place in places else None
            for place, (a, b) in enumerate(combinations(hashes, 2))
        ]
        for (task, hashes), places in ordered.items()
    }


def _pairs(
    keys: Sequence[PairKey], tasks: Mapping[Hash32, Task], gold: Mapping[Hash32, Sequence[int]]
) -> tuple[Pair, ...]:
    """Return gold, style bucket and longer side of each pair; buckets are over the pairs of this epoch."""
    lengths = {
        (t, h): len(text)
        for t, task in tasks.items()
        for h, text in zip(task.hashes, task.responses, strict=True)
    }
    places = {(t, h): r for t, ranks in gold.items() for h, r in zip(tasks[t].hashes, ranks, strict=True)}
    deltas = [lengths[k.task, k.a] - lengths[k.task, k.b] for k in keys]
    ordered = sorted(abs(d) for d in deltas)
    result = []
    for key, delta in zip(keys, deltas, strict=True):
        known = places.get((key.task, key.b), 0) - places.get((key.task, key.a), 0)
        bucket = BUCKETS * bisect_left(ordered, abs(delta)) // len(keys)
        result.append(Pair(gold=(known > 0) - (known < 0), bucket=bucket, longer=(delta > 0) - (delta < 0)))
    return tuple(result)


def comparisons(
    rankings: Iterable[Ranking], tasks: Mapping[Hash32, Task], gold: Mapping[Hash32, Sequence[int]]
) -> Comparisons:
    """Return the rows of SPEC 3 from each wallet's last ranking of each task.

    `gold` maps a task to the right dense ranks of its responses in the order of `Task.responses`. Flagged
    rankings and ties give no row, but their wallets take part.
    """
    final: dict[tuple[Hash32, Address], Ranking] = {}
    for ranking in rankings:
        known = final.get((ranking.task, ranking.wallet))
        if known is None or known.revision < ranking.revision:
            final[ranking.task, ranking.wallet] = ranking
    judgements = [_judgement(final[k]) for k in sorted(final)]
    named = _pair_keys(judgements)
    keys = tuple(
        sorted({k for known in named.values() for k in known if k}, key=lambda k: (k.task, k.a, k.b))
    )
    wallets = tuple(sorted({w for _, w in final}))
    pair_at, wallet_at = {k: i for i, k in enumerate(keys)}, {w: i for i, w in enumerate(wallets)}
    numbers = {shown: [pair_at[k] if k else -1 for k in known] for shown, known in named.items()}
    columns = Columns()
    for number, found in enumerate(judgements):
        count, pairs = len(found.places), numbers[found.shown]
        columns.judgement.extend([number] * count)
        columns.wallet.extend([wallet_at[found.wallet]] * count)
        columns.pair.extend([pairs[place] for place in found.places])
        columns.x.extend(found.signs)
        columns.w.extend([12 // len(found.shown[1])] * count)
    return Comparisons(wallets, keys, _pairs(keys, tasks, gold), columns)
