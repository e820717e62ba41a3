"""The readable specification of HapticScore v1 and of the allocation: lists and ints, one step after another.

`chain.score` and `chain.payout` compute the same, faster; tests hold them to this file bit by bit. Nothing
is validated here: rows that no feedback can give have no meaning, and `chain.score` refuses them.

The idea. People are paid for information, and the truth is not known. So every answer is compared with what
everybody else said about the same pair of responses. Who tends to agree with the others, where agreement is
neither luck nor a matter of length, knows something. Who answers at random agrees as often as not: that
surplus is zero on average, and only what lies beyond the reach of chance is paid.

Units. `ppm` is parts per million of one, `ONE` = 1_000_000. A log-odds is ppm of a natural logit. The weight
of a row is in sixths of a comparison, because 12/K is whole for K = 2, 3, 4 and 6; G, H and W are therefore
ppm of a sixth of a comparison. Division truncates toward zero, so that agreement and disagreement weigh the
same to the last bit. Integers only: a floating-point sum depends on the machine, and two people with the same
public data must arrive at the same payout.

Names are the protocol's. Lists run over rows (`y`), pairs (`L`, `Y`) or wallets (`N`, `D`, `n`, `d`, `a`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cmp_to_key
from math import isqrt

from chain.tables import LOGIT, TANH
from chain.types import (
    ONE,
    Address,
    Allocation,
    EpochScore,
    Pair,
    PairResult,
    Params,
    Ppm,
    Ratio,
    Row,
    WalletResult,
    WalletState,
    Wei,
)


def sign(value: int) -> int:
    """Return -1, 0 or +1."""
    return (value > 0) - (value < 0)


def div(value: int, divisor: int) -> int:
    """Divide, truncating toward zero; `divisor` is positive."""
    return sign(value) * (abs(value) // divisor)


def cons(log_odds: int) -> int:
    """Return the consensus tanh(L/2), ppm: ONE when the first response is surely better, 0 when nobody knows.

    It is the expectation of the true x when the odds of +1 are exp(L). Steps of a hundredth of a logit;
    beyond 8 logits the table is as good as flat.
    """
    return sign(log_odds) * TANH[min(abs(log_odds) // 10_000, 800)]


def rel(agreed: int, weight: int, lo: int, params: Params) -> int:
    """Return the reliability, the chance that an answer is right, ppm; `agreed` is N, `weight` is D.

    One half plus half the mean agreement, shrunk by a prior of n1 sixths of a comparison of pure guessing: a
    newcomer with one lucky answer is not an expert. `lo` and `amax` bound the voice of any one person.
    """
    mean = div(agreed, max(weight + params.n1 * ONE, 1) // ONE)
    return min(max(ONE // 2 + div(mean, 2), lo), params.amax)


def lw(reliability: int) -> int:
    """Return the log-odds that one answer of such reliability adds to its pair, ppm (weighted majority)."""
    return LOGIT[reliability // 1000]


def log_odds(rows: Sequence[Row], a: Sequence[int], pairs: int) -> list[int]:
    """Return L_p = Σ x·lw(a_c) per pair. Stake is no argument: money never decides what is true."""
    L = [0] * pairs
    for row in rows:
        L[row.pair] += row.x * lw(a[row.wallet])
    return L


def consensus(rows: Sequence[Row], pairs: Sequence[Pair], a: Sequence[int]) -> list[int]:
    """Return y per row: the truth of its pair, ppm, as far as it is known without this row.

    On gold, the truth itself. Elsewhere the row's own vote is left out: to agree with oneself proves nothing.
    """
    L = log_odds(rows, a, len(pairs))
    return [pairs[r.pair].gold * ONE or cons(L[r.pair] - r.x * lw(a[r.wallet])) for r in rows]


def per_wallet(rows: Sequence[Row], values: Sequence[int], wallets: int) -> list[int]:
    """Sum one value per row over each wallet's rows."""
    sums = [0] * wallets
    for row, value in zip(rows, values, strict=True):
        sums[row.wallet] += value
    return sums


def style_bias(pairs: Sequence[Pair], truth: Sequence[int]) -> list[int]:
    """Return m_b per style bucket: how far Y_p, the truth as well as it is known, leans to the longer text.

    The longer answer is often the better one, so "take the longer" agrees with the crowd without reading.
    The lean within a bucket, of pairs that differ alike in length, is taken off every answer: to
    choose by length earns nothing.
    """
    m = []
    for bucket in range(5):
        inside = [(p.longer, Y_p) for p, Y_p in zip(pairs, truth, strict=True) if p.bucket == bucket]
        m.append(div(sum(o * Y_p for o, Y_p in inside), max(sum(abs(o) for o, _ in inside), 1)))
    return m


def pay(state: WalletState, delta_g: int, delta_v: int, params: Params) -> tuple[int, int, int, int]:
    """Return G, V, H and W after step 6.

    G is all surplus ever, and isqrt(V)·1000 its standard error if every answer had been a guess; V counts
    in units of 1000² to stay small. H is what lies beyond z standard errors and beyond c0, which keeps a
    fresh identity from being worth anything. W pays only what lifts H above all it ever was: luck that
    comes and goes is not paid again each time it comes.
    """
    G, V = state.pay_g + delta_g, state.pay_v + delta_v
    H = G - div(isqrt(V) * 1000 * params.z_num, params.z_den) - params.c0 * ONE
    return G, V, H, max(0, H - state.pay_hmax)


def score(
    rows: Sequence[Row], pairs: Sequence[Pair], states: Sequence[WalletState], params: Params
) -> EpochScore:
    """Return the score of one epoch, steps 1-6; rows name wallets by index into `states`, and pairs by index.

    The wallets are those with a valid ranking in the epoch. One whose every ranking is a tie has no rows,
    yet it took part: its history halves. One that stayed away is not in the list and keeps its state.
    """
    wallets = len(states)
    N, D = [s.label_n for s in states], [s.label_d for s in states]

    # 1. Seed. Before anyone's word is weighed, only gold and history tell who is reliable.
    N0 = per_wallet(rows, [r.w * r.x * pairs[r.pair].gold * ONE for r in rows], wallets)
    D0 = per_wallet(rows, [r.w * abs(pairs[r.pair].gold) * ONE for r in rows], wallets)
    a = [rel(N[c] + N0[c], D[c] + D0[c], params.amin_em, params) for c in range(wallets)]
    if sum(D) + sum(D0) == 0:
        a = [650_000] * wallets

    # 2. Twice. From reliabilities to what is true, and back. Below one half an answer counts against itself.
    n, d = [0] * wallets, [0] * wallets
    for _ in range(2):
        y = consensus(rows, pairs, a)
        n = per_wallet(rows, [r.w * r.x * y_r for r, y_r in zip(rows, y, strict=True)], wallets)
        d = per_wallet(rows, [r.w * (y_r * y_r // ONE) for r, y_r in zip(rows, y, strict=True)], wallets)
        a = [rel(N[c] + n[c], D[c] + d[c], params.amin_em, params) for c in range(wallets)]

    # 3. Labels. Nobody's answer is turned round any more: who is worse than a coin weighs nothing.
    a = [rel(N[c] + n[c], D[c] + d[c], params.amin, params) for c in range(wallets)]
    L = log_odds(rows, a, len(pairs))
    majority = [0] * len(pairs)
    for row in rows:
        majority[row.pair] += row.x

    # 4. Style control. The residual is what an answer says beyond what the length of the responses says.
    Y = [p.gold * ONE or cons(L_p) for p, L_p in zip(pairs, L, strict=True)]
    m = style_bias(pairs, Y)
    y = consensus(rows, pairs, a)
    bias = [p.longer * m[p.bucket] for p in pairs]
    surplus = [r.w * r.x * (y_r - bias[r.pair]) for r, y_r in zip(rows, y, strict=True)]

    # 5. Surplus. The rows of one judgement stand or fall together, so they are one draw of chance, not many.
    delta_g = per_wallet(rows, surplus, wallets)
    judge: dict[tuple[int, int], int] = {}
    for row, value in zip(rows, surplus, strict=True):
        judge[row.wallet, row.judgement] = judge.get((row.wallet, row.judgement), 0) + value
    delta_v = [0] * wallets
    for (wallet, _), value in judge.items():
        delta_v[wallet] += div(value, 1000) ** 2

    # 6. Paid when proven.
    comparisons = per_wallet(rows, [r.w for r in rows], wallets)
    results = []
    for c, state in enumerate(states):
        G, V, H, W = pay(state, delta_g[c], delta_v[c], params)
        after = WalletState(div(N[c] + n[c], 2), div(D[c] + d[c], 2), G, V, max(state.pay_hmax, H))
        results.append(
            WalletResult(n[c], d[c], Ppm(a[c]), delta_g[c], delta_v[c], H, W, comparisons[c], after)
        )
    labels = [
        PairResult(L_p, sign(L_p) or sign(plain), Ppm((ONE + abs(cons(L_p))) // 2))
        for L_p, plain in zip(L, majority, strict=True)
    ]
    return EpochScore(tuple(results), tuple(labels), tuple(m))


def lambda_next(ws: Mapping[Address, int], stakes: Mapping[Address, int], previous: Ratio) -> Ratio:
    """Return λ for the next epoch (step 7): the W-weighted median of S̄/W; `previous` when nobody has both.

    λ is the going rate of stake per proven surplus, set by those who prove it, each as loudly as it
    proves. It comes from the epoch before, so that it is known before anybody works. In order of S̄/W,
    then of wallet, the median is the first wallet with which half of all W is reached. The ratio is not
    reduced.
    """

    def compare(q: Address, c: Address) -> int:
        return sign(stakes[q] * ws[c] - stakes[c] * ws[q]) or (q > c) - (q < c)

    both = sorted((c for c, W in ws.items() if W > 0 and stakes.get(c, 0) > 0), key=cmp_to_key(compare))
    total, reached = sum(ws[c] for c in both), 0
    for c in both:
        reached += ws[c]
        if 2 * reached >= total:
            return Ratio(stakes[c], ws[c])
    return previous


def haptic_score(w: int, stake: int, lam: Ratio, params: Params) -> int:
    """Return HapticScore = W·S̄ / (S̄ + κ·λ·W) (step 8), in the unit of W, truncated.

    Contribution · Quality · Reputation, with Quality = W / Contribution, Reputation = S̄ / (S̄ + κ·λ·W).
    Both W and S̄ are needed and neither replaces the other: at the going rate S̄ = λ·W the score is
    W / (1 + κ), and no stake brings it above W. Homogeneous of degree 1 and superadditive, the latter
    also when truncated: to split W and S̄ over several wallets never pays.
    """
    if w <= 0 or stake <= 0:
        return 0
    return w * stake * lam.den // (stake * lam.den + params.kappa * lam.num * w)


def allocate(amount: Wei, weights: Mapping[Address, int]) -> Allocation:
    """Divide `amount` in proportion to `weights` in whole units, nothing made and nothing lost (section 4).

    Everyone gets the exact share rounded down; the units left over go one each to the largest remainders,
    among equal ones to the lower address. When nobody has any weight, all is carried to the next epoch.
    """
    total = sum(weights.values())
    if total == 0:
        return Allocation({c: Wei(0) for c in sorted(weights)}, amount)
    shares = {c: Wei(amount * weights[c] // total) for c in sorted(weights)}
    by_remainder = sorted(shares, key=lambda c: (-(amount * weights[c] % total), c))
    for c in by_remainder[: amount - sum(shares.values())]:
        shares[c] = Wei(shares[c] + 1)
    return Allocation(shares, Wei(0))
