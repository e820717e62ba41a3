"""HapticScore v1 in numpy: the bits of `chain.spec`, a million comparisons in well under a second.

Why int64 cannot overflow on input that the checks let through (rows <= 10**7, w <= 6, |N| and D <= 6·10**13):
- log-odds: |lw| < 7·10**6 at LOGIT's ends, so |L_p| < 7·10**13;
- |y|, |m_b| <= 10**6, so y² <= 10**12, |r| <= 2·10**6, and |n|, d <= 6·10**13, |ΔG| <= 1.2·10**14;
- |N + n|, D + d <= 1.2·10**14, halved <= 6·10**13: the bound on history holds for every later epoch;
- a judgement is worth at most five comparisons (K = 6), so its |Σ w·x·r| <= 30 · 2·10**6, its square in
  thousands <= 3.6·10**9, and ΔV <= 10**7 · 3.6·10**9.
All below 2**63 = 9.2·10**18. G, V and Hmax, which grow from epoch to epoch, are Python ints.
The truth of a row's pair is never stored: every pass computes it anew, a piece of the rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key, partial
from math import isqrt
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from chain.collector import paused
from chain.errors import ScoreInputError
from chain.tables import LOGIT, TANH
from chain.types import (
    ONE,
    Address,
    EpochScore,
    Pair,
    PairResult,
    Params,
    Ppm,
    Ratio,
    Row,
    WalletResult,
    WalletState,
)

Ints: TypeAlias = npt.NDArray[np.int64]
Column: TypeAlias = npt.NDArray[Any]
Bools: TypeAlias = npt.NDArray[np.bool_]

MAX_ROWS: Final = 10_000_000
"""Comparisons in one epoch up to which int64 is shown to hold."""
MAX_HISTORY: Final = MAX_ROWS * 6 * ONE
"""Bound on |N| and D of a label history; an epoch within MAX_ROWS keeps it."""

_PIECE: Final = 1 << 15
"""Rows, judgements or pairs that are computed with at a time: their numbers stay in the processor's cache."""

_LOGIT: Final[Ints] = np.array(LOGIT, dtype=np.int64)
_TANH: Final[Ints] = np.array(TANH, dtype=np.int64)
_MOST_ROWS: Final[Ints] = np.array([0, 0, 15, 6, 3, 0, 1], dtype=np.int64)
"""K·(K - 1)/2, the pairs among K responses, by w = 12/K."""


def _columns(noun: str, records: Sequence[Row] | Sequence[Pair], names: Sequence[str]) -> list[Ints]:
    try:
        return [np.array([getattr(r, name) for r in records], dtype=np.int64) for name in names]
    except OverflowError:
        large = (i for i, r in enumerate(records) if any(getattr(r, n) >> 63 not in {0, -1} for n in names))
        index = next(large)
        raise ScoreInputError(f"{noun} {index}: a number is beyond 64 bits: {records[index]}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Comparisons as int64 columns of one length, in any order; the fields are those of `chain.types.Row`."""

    judgement: Ints
    wallet: Ints
    pair: Ints
    x: Ints
    w: Ints

    @classmethod
    def of_columns(cls, *columns: Sequence[int]) -> Self:
        """Take columns of 64-bit integers in the order of the fields, without a copy where they are an `array`."""
        return cls(*(np.asarray(c, dtype=np.int64) for c in columns))

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """Turn records into columns; ScoreInputError when a number is beyond 64 bits."""
        return cls(*_columns("row", list(rows), ("judgement", "wallet", "pair", "x", "w")))

    def take(self, order: Ints) -> Self:
        """Return the rows in another order."""
        return type(self)(*(c[order] for c in (self.judgement, self.wallet, self.pair, self.x, self.w)))


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of responses as int64 columns of one length; the fields are those of `chain.types.Pair`."""

    gold: Ints
    bucket: Ints
    longer: Ints

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Self:
        """Turn records into columns; ScoreInputError when a number is beyond 64 bits."""
        return cls(*_columns("pair", list(pairs), ("gold", "bucket", "longer")))


def _pieces(size: int) -> Iterator[slice]:
    """Yield the places of a column, a piece at a time.

    Computed whole, every step of a formula would go through memory, and through fresh memory at that: of ten
    million rows that takes longer than to compute.
    """
    return (slice(start, min(start + _PIECE, size)) for start in range(0, size, _PIECE))


def _fill(column: Column, value: Callable[[slice], Column]) -> Column:
    """Fill a column, and return it."""
    for piece in _pieces(len(column)):
        column[piece] = value(piece)
    return column


def _add(sums: Sequence[Ints], keys: Column, values: Callable[[slice], Sequence[Column]]) -> None:
    """Add values of each row to the sums of the row's key, one value to each sum; exact in any order of the rows."""
    for piece in _pieces(len(keys)):
        for total, value in zip(sums, values(piece), strict=True):
            # Of the same width, or numpy takes a way that is ten times slower.
            np.add.at(total, keys[piece], value.astype(np.int64, copy=False))


def _sums(keys: Column, size: int, *values: Callable[[slice], Column]) -> list[Ints]:
    """Return the sums of values of each row over each of `size` keys."""
    sums = [np.zeros(size, dtype=np.int64) for _ in values]
    _add(sums, keys, lambda i: [value(i) for value in values])
    return sums


def _is_sorted(keys: Ints) -> bool:
    return bool(np.all(keys[1:] >= keys[:-1]))


def _order(keys: Ints) -> Ints:
    """Return the stable sorting order of non-negative keys, 16 bits at a time: there numpy sorts by radix."""
    if _is_sorted(keys):
        return np.arange(len(keys), dtype=np.int64)
    order: Ints = np.argsort(keys.astype(np.uint16), kind="stable")
    shift = 16
    while int(keys.max()) >> shift:
        order = order[np.argsort((keys[order] >> shift).astype(np.uint16), kind="stable")]
        shift += 16
    return order


def _edges(keys: Ints) -> Ints:
    """Return where each run of equal keys begins, and where the last one ends; equal ones must stand together."""
    changed = np.ones(len(keys) + 1, dtype=np.bool_)
    changed[1:-1] = keys[1:] != keys[:-1]
    return np.flatnonzero(changed)


def _refuse(
    bad: Callable[[slice], Bools], count: int, rule: str, *found: Column, name: Callable[[int], str]
) -> None:
    """Raise ScoreInputError for the first of `count` records that is bad, by its name, with the values that are."""
    for piece in _pieces(count):
        wrong = bad(piece)
        if wrong.any():
            index = piece.start + int(wrong.argmax())
            values = ", ".join(str(v[index]) for v in found)
            raise ScoreInputError(f"{name(index)}: {rule}; found {values}")


def _check_range(noun: str, name: str, column: Ints, like: Ints, allowed: range) -> None:
    if column.dtype != np.int64 or column.shape != (len(like),):
        raise ScoreInputError(f"{noun}s: {name} is {column.dtype} {column.shape}, not int64 ({len(like)},)")

    def beyond(i: slice) -> Bools:
        return (column[i] < allowed.start) | (column[i] >= allowed.stop)

    rule = f"{name} must be {allowed.start}..{allowed.stop - 1}"
    _refuse(beyond, len(column), rule, column, name=f"{noun} {{}}".format)


def _check(rows: Rows, pairs: Pairs, states: Sequence[WalletState], params: Params) -> None:
    """Refuse what is out of range; the bounds at the top of this file rest on it."""
    if len(rows.x) > MAX_ROWS:
        raise ScoreInputError(f"{len(rows.x)} rows; the arithmetic is shown to hold up to {MAX_ROWS}")
    _check_range("row", "judgement", rows.judgement, rows.x, range(2**63 - 1))
    _check_range("row", "wallet", rows.wallet, rows.x, range(len(states)))
    _check_range("row", "pair", rows.pair, rows.x, range(len(pairs.gold)))
    _check_range("row", "x", rows.x, rows.x, range(-1, 2))
    _check_range("row", "w", rows.w, rows.x, range(2, 7))
    x, w, name = rows.x, rows.w, "row {}".format
    _refuse(lambda i: x[i] == 0, len(x), "a tie gives no row, x must be +1 or -1", x, name=name)
    _refuse(lambda i: _MOST_ROWS[w[i]] == 0, len(w), "w must be 12/K for K = 2, 3, 4, 6", w, name=name)
    _check_range("pair", "gold", pairs.gold, pairs.gold, range(-1, 2))
    _check_range("pair", "bucket", pairs.bucket, pairs.gold, range(5))
    _check_range("pair", "longer", pairs.longer, pairs.gold, range(-1, 2))
    for index, s in enumerate(states):
        if abs(s.label_n) > MAX_HISTORY or not 0 <= s.label_d <= MAX_HISTORY or min(s.pay_v, s.pay_hmax) < 0:
            raise ScoreInputError(f"wallet {index}: no epoch of up to {MAX_ROWS} rows leaves {s}")
    if not (1 <= params.n1 <= ONE and params.z_den >= 1 and min(params.z_num, params.c0) >= 0):
        raise ScoreInputError(f"n1 must be 1..{ONE}, z and c0 not negative: {params}")
    if not 0 <= params.amin_em <= params.amin <= params.amax <= ONE:
        raise ScoreInputError(f"reliabilities must be 0 <= amin_em <= amin <= amax <= {ONE}: {params}")


def _is_by_judgement(rows: Rows) -> bool:
    """Tell whether the rows stand by (judgement, pair), as an epoch gives them."""
    (a, b), (p, q) = ((c[:-1], c[1:]) for c in (rows.judgement, rows.pair))
    return all(bool(np.all((a[i] < b[i]) | ((a[i] == b[i]) & (p[i] <= q[i])))) for i in _pieces(len(a)))


def _judgements(rows: Rows) -> tuple[Rows, Ints]:
    """Return the rows by (judgement, pair), and the judgements' edges; refuse judgements that no ranking gives."""
    names: Ints | None = None
    if not _is_by_judgement(rows):
        names = _order(rows.pair)
        names = names[_order(rows.judgement[names])]
        rows = rows.take(names)

    def name(index: int) -> str:
        return f"row {index if names is None else names[index]}"

    w, edges = rows.w, _edges(rows.judgement)
    counts = np.diff(edges)
    rule = "its judgement has more rows than K has pairs"
    many = partial(_refuse, lambda j: counts[j] > _MOST_ROWS[w[edges[j]]], len(counts), rule, counts)
    many(name=lambda j: name(int(edges[j])))
    before, after = rows.judgement[:-1], rows.judgement[1:]
    for noun, column in (("weight", rows.w), ("wallet", rows.wallet)):
        differs = partial(_differs, before, after, column[:-1], column[1:])
        rule = f"a judgement has one {noun}"
        _refuse(differs, len(before), rule, column[:-1], column[1:], name=lambda i: name(i + 1))
    p, q = rows.pair[:-1], rows.pair[1:]
    rule = "a judgement has each pair once"
    _refuse(lambda i: (before[i] == after[i]) & (p[i] == q[i]), len(p), rule, q, name=lambda i: name(i + 1))
    return rows, edges


def _differs(before: Ints, after: Ints, a: Ints, b: Ints, i: slice) -> Bools:
    """Tell of neighbours in one judgement whether they differ."""
    differs: Bools = (before[i] == after[i]) & (a[i] != b[i])
    return differs


def _div(values: Ints, divisor: Ints | int) -> Ints:
    """Divide, truncating toward zero; divisors are positive."""
    return np.sign(values) * np.floor_divide(np.abs(values), divisor, dtype=np.int64)


def _cons(log_odds: Ints) -> Ints:
    """Return tanh(L/2) from the table, ppm."""
    consensus: Ints = np.sign(log_odds) * _TANH[np.minimum(np.abs(log_odds) // 10_000, 800)]
    return consensus


def _rel(agreed: Ints, weight: Ints, lo: int, params: Params) -> Ints:
    """Return the reliability of each wallet, ppm."""
    mean = _div(agreed, np.maximum(weight + params.n1 * ONE, 1) // ONE)
    reliability: Ints = np.clip(ONE // 2 + _div(mean, 2), lo, params.amax)
    return reliability


def _known(gold: Column, log_odds: Ints) -> Ints:
    """Return the gold answer where there is one, else what the others' answers say, ppm."""
    return np.where(gold != 0, np.int64(ONE) * gold, _cons(log_odds))


def _agreement(w: Ints, x: Ints, y: Ints) -> tuple[Ints, Ints]:
    """Return w·x·y and w·y², by which a wallet's agreement with the truth is measured, ppm."""
    return w * x * y, w * (y * y // ONE)


def _style_bias(pairs: Pairs, log_odds: Ints) -> Ints:
    """Return m_b of the five style buckets, ppm."""
    bucket, longer, gold = pairs.bucket, pairs.longer, pairs.gold
    leaning, count = _sums(
        bucket, 5, lambda i: longer[i] * _known(gold[i], log_odds[i]), lambda i: np.abs(longer[i])
    )
    return _div(leaning, np.maximum(count, 1))


def _labels(log_odds: Ints, votes: Ints) -> tuple[PairResult, ...]:
    """Return every pair's result (step 3); `votes` decide where the log-odds are 0."""
    found: list[PairResult] = []
    for i in _pieces(len(log_odds)):
        L = log_odds[i]
        label = np.sign(np.where(L != 0, L, votes[i]))
        confidence = (ONE + np.abs(_cons(L))) // 2  # sigmoid(|L|) = (1 + tanh(|L|/2))/2
        found.extend(map(PairResult, L.tolist(), label.tolist(), confidence.tolist()))
    return tuple(found)


def _result(state: WalletState, params: Params, sums: Sequence[int]) -> WalletResult:
    """Return a wallet's result (step 6), in Python ints, from its columns of the epoch."""
    n, d, a, delta_g, delta_v, comparisons, label_n, label_d = sums
    g, v = state.pay_g + delta_g, state.pay_v + delta_v
    h = g - isqrt(v) * 1000 * params.z_num // params.z_den - params.c0 * ONE
    after = WalletState(label_n, label_d, g, v, max(state.pay_hmax, h))
    return WalletResult(n, d, Ppm(a), delta_g, delta_v, h, max(0, h - state.pay_hmax), comparisons, after)


@paused()
def score(rows: Rows, pairs: Pairs, states: Sequence[WalletState], params: Params) -> EpochScore:
    """Return the score of one epoch, steps 1-6 of `chain.spec.score`; rows may come in any order.

    Rows that go through the pairs in order, as an epoch's do, are read faster than rows that jump about.
    They name wallets by index into `states`, and pairs by index into `pairs`. ScoreInputError names the
    row, pair or wallet that no valid feedback can give. Stake is no argument: it never weights a label.
    """
    _check(rows, pairs, states, params)
    rows, edges = _judgements(rows)
    x, w, wallet, pair = rows.x, rows.w, rows.wallet, rows.pair
    known = pairs.gold.astype(np.int8)
    gold = _fill(np.empty(len(x), np.int8), lambda i: known[pair[i]])
    N = np.array([s.label_n for s in states], dtype=np.int64)
    D = np.array([s.label_d for s in states], dtype=np.int64)
    per_wallet = partial(_sums, wallet, len(states))
    # Changed in their place: fresh memory of L's size takes longer to come by than to compute with.
    L, lw = np.zeros(len(known), dtype=np.int64), np.zeros(len(states), dtype=np.int64)

    def learn(a: Ints) -> None:
        """Leave in lw what a wallet's word weighs by its reliability, and in L what the words of all say."""
        lw[:] = _LOGIT[a // 1000]
        L.fill(0)
        _add([L], pair, lambda i: [x[i] * lw[wallet[i]]])

    def truth(i: slice) -> Ints:
        """Return the truth of rows' pairs as it is known without the row, ppm."""
        return _known(gold[i], L[pair[i]] - x[i] * lw[wallet[i]])

    # 1. Seed
    n, d = per_wallet(lambda i: w[i] * x[i] * gold[i], lambda i: w[i] * np.abs(gold[i]))
    D0 = D + ONE * d
    a = _rel(N + ONE * n, D0, params.amin_em, params)
    if not D0.any():
        a = np.full(len(states), 650_000, dtype=np.int64)

    for _ in range(2):  # 2. Twice
        learn(a)
        n, d = np.zeros_like(N), np.zeros_like(D)
        _add([n, d], wallet, lambda i: _agreement(w[i], x[i], truth(i)))
        a = _rel(N + n, D + d, params.amin_em, params)

    # 3. Labels
    a = _rel(N + n, D + d, params.amin, params)
    learn(a)
    labelled = _labels(L, L if L.all() else _sums(pair, len(L), lambda i: x[i])[0])

    # 4. Style control
    m = _style_bias(pairs, L)
    bias = _fill(np.empty(len(L), np.int32), lambda i: pairs.longer[i] * m[pairs.bucket[i]])

    # 5. Surplus
    def judged(j: slice) -> tuple[Ints, Ints, Ints]:
        """Return of judgements their surplus, its square in thousands, and their comparisons."""
        i, begins = slice(edges[j.start], edges[j.stop]), edges[j] - edges[j.start]
        surplus = np.add.reduceat(w[i] * x[i] * (truth(i) - bias[pair[i]]), begins)
        return surplus, _div(surplus, 1000) ** 2, np.add.reduceat(w[i], begins)

    delta_g, delta_v, comparisons = (np.zeros_like(N) for _ in range(3))
    _add([delta_g, delta_v, comparisons], wallet[edges[:-1]], judged)

    # 6. Paid when proven
    sums = (n, d, a, delta_g, delta_v, comparisons, _div(N + n, 2), _div(D + d, 2))
    wallets = map(_result, states, [params] * len(states), zip(*(s.tolist() for s in sums), strict=True))
    return EpochScore(tuple(wallets), labelled, tuple(m.tolist()))


def lambda_next(ws: Mapping[Address, int], stakes: Mapping[Address, int], previous: Ratio) -> Ratio:
    """Return the W-weighted median of S̄/W, wei per unit of W (step 7); `previous` if nobody has both."""

    def compare(q: Address, c: Address) -> int:
        left, right = stakes[q] * ws[c], stakes[c] * ws[q]
        return (left > right) - (left < right) or (q > c) - (q < c)

    both = sorted((c for c, w in ws.items() if w > 0 and stakes.get(c, 0) > 0), key=cmp_to_key(compare))
    total, reached = sum(ws[c] for c in both), 0
    for c in both:
        reached += ws[c]
        if 2 * reached >= total:
            return Ratio(stakes[c], ws[c])
    return previous


def haptic_score(w: int, stake: int, lam: Ratio, params: Params) -> int:
    """Return W·S̄ / (S̄ + κ·λ·W) in the unit of W, truncated (step 8); 0 without work or without stake."""
    if w <= 0 or stake <= 0:
        return 0
    return w * stake * lam.den // (stake * lam.den + params.kappa * lam.num * w)
