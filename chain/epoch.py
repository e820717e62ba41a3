"""The close of an epoch as one pure function: from evidence, chain facts and what stood before to payouts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from chain import payout, score, spec
from chain.bundle import Evidence, Run, evidence_lines
from chain.canonical import RunningHash
from chain.collector import paused
from chain.events import Funded
from chain.feedback import Comparisons, PairKey, Task, comparisons
from chain.gold import wrong_gold
from chain.lines import Line, line_bytes
from chain.merkle import ledger_root
from chain.stake import Change, StakeAccount, fold, mean_stake, stake_seconds
from chain.tree import SumTree
from chain.types import (
    ZERO_HASH,
    Address,
    Allocation,
    EpochScore,
    Hash32,
    Leaf,
    Pair,
    PairResult,
    Params,
    Ratio,
    WalletState,
    Wei,
)

NO_RUN = 0
"""Pool of revenue that names no retraining: it goes by the score of the epoch."""


class Engine(NamedTuple):
    """The arithmetic of SPEC 3 and 4; two implementations exist so that one can check the other."""

    score: Callable[[Comparisons, Sequence[WalletState], Params], EpochScore]
    haptic_score: Callable[[int, int, Ratio, Params], int]
    lambda_next: Callable[[Mapping[Address, int], Mapping[Address, int], Ratio], Ratio]
    allocate: Callable[[Wei, Mapping[Address, int]], Allocation]


def _fast_score(found: Comparisons, states: Sequence[WalletState], params: Params) -> EpochScore:
    c = found.columns
    rows = score.Rows.of_columns(c.judgement, c.wallet, c.pair, c.x, c.w)
    return score.score(rows, score.Pairs.of(found.pairs), states, params)


def _spec_score(found: Comparisons, states: Sequence[WalletState], params: Params) -> EpochScore:
    return spec.score(found.rows, found.pairs, states, params)


FAST = Engine(_fast_score, score.haptic_score, score.lambda_next, payout.allocate)
"""numpy columns, for the operator."""
SPEC = Engine(_spec_score, spec.haptic_score, spec.lambda_next, spec.allocate)
"""Plain Python, the readable specification, for whoever checks the operator."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the chain says about an epoch, read at its snapshot block."""

    stake_start: Mapping[Address, int]
    """Stake-seconds of each account at the epoch's start, wei·s; absent means 0."""
    stake_end: Mapping[Address, int]
    funded: Mapping[int, Wei]
    """Revenue per run that came in after the snapshot before, up to this one."""

    @classmethod
    def of(
        cls, changes: Sequence[Change], income: Iterable[Funded], start: int, end: int
    ) -> tuple[Facts, dict[Address, StakeAccount]]:
        """Return the facts by events, and the vault's slots at the epoch's end, to be held against the vault itself.

        `changes` are all of stake up to the snapshot, `income` what came in after the one before.
        """
        before, after = fold(changes, start), fold(changes, end)
        funded: dict[int, Wei] = {}
        for event in income:
            funded[event.run] = Wei(funded.get(event.run, 0) + event.amount)
        begun = {a: stake_seconds(s, start) for a, s in before.items()}
        ended = {a: stake_seconds(s, end) for a, s in after.items()}
        return cls(begun, ended, funded), after


@dataclass(frozen=True, slots=True)
class Standing:
    """What one epoch hands to the next."""

    lam: Ratio
    previous: Hash32 = ZERO_HASH
    states: Mapping[Address, WalletState] = field(default_factory=dict)
    cumulative: Mapping[Address, Wei] = field(default_factory=dict)
    carried: Mapping[int, Wei] = field(default_factory=dict)
    scores: tuple[Mapping[Address, int], ...] = ()
    """HapticScore per wallet of every closed epoch, from epoch 0."""
    runs: Mapping[int, Run] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pool:
    """Revenue of one run and what became of it in this epoch."""

    run: int
    funded: Wei
    carried_in: Wei
    shares: Mapping[Address, Wei]
    carried_out: Wei


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed epoch."""

    comparisons: Comparisons
    result: EpochScore
    stakes: tuple[Wei, ...]
    """Time-weighted mean stake per wallet, in the order of `comparisons.wallets`."""
    scores: Mapping[Address, int]
    pools: tuple[Pool, ...]
    tree: SumTree
    ledger_root: Hash32
    data_hash: Hash32
    """Of the bundle."""
    standing: Standing
    retired: frozenset[Hash32] = frozenset()
    """Gold tasks that proved wrong, and were scored as ordinary ones."""


def preference_lines(
    tasks: Mapping[Hash32, Task], found: Comparisons, result: EpochScore, epoch: int
) -> Iterator[bytes]:
    """Yield what the trainer learns from this epoch: a canonical line per labelled pair, in order."""
    votes = Counter(found.columns.pair)
    texts = {(t, h): x for t, task in tasks.items() for h, x in zip(task.hashes, task.responses, strict=True)}
    return (
        line_bytes(
            {
                "prompt": tasks[key.task].prompt,
                "chosen": texts[key.task, key.a if known.label > 0 else key.b],
                "rejected": texts[key.task, key.b if known.label > 0 else key.a],
                "confidence_ppm": known.confidence,
                "judgements": votes[i],
                "epoch": epoch,
            }
        )
        for i, (key, known) in enumerate(zip(found.keys, result.pairs, strict=True))
        if known.label
    )


def snapshot_hash(preferences: Iterable[bytes]) -> Hash32:
    """Return the sha256 of a run's data file, in parts: the preference lines of its epochs, one after the other."""
    digest = hashlib.sha256()
    for part in preferences:
        digest.update(part)
    return Hash32("0x" + digest.hexdigest())


def _without(found: Comparisons, retired: frozenset[Hash32]) -> Comparisons:
    """Return the comparisons with these tasks as ordinary ones."""
    pairs = zip(found.keys, found.pairs, strict=True)
    return replace(found, pairs=tuple(replace(p, gold=0) if k.task in retired else p for k, p in pairs))


def _scored(
    evidence: Evidence, standing: Standing, engine: Engine, begin: Callable[[str], object]
) -> tuple[Comparisons, EpochScore, frozenset[Hash32]]:
    """Return comparisons, score and the gold that proved wrong: once by all gold, once more without the refuted."""
    rules = evidence.header.rules
    begin("comparisons")
    gold = {t: g.ranks for t, g in evidence.gold.items()}
    found = comparisons((r.ranking for r in evidence.rankings), evidence.tasks, gold)
    begin("score")
    states = [standing.states.get(w, WalletState()) for w in found.wallets]
    result = engine.score(found, states, rules.params)
    retired = wrong_gold(found, result.pairs, rules.overlap_min) if gold else frozenset()
    if not retired:
        return found, result, retired
    found = _without(found, retired)
    return found, engine.score(found, states, rules.params), retired


def _weights(run: int, standing: Standing, scores: Sequence[Mapping[Address, int]]) -> Mapping[Address, int]:
    """Return who shares a run's pool: by HapticScore over the epochs of its snapshot (SPEC 4)."""
    if run == NO_RUN:
        return scores[-1]
    if run not in standing.runs or standing.runs[run].last >= len(scores):
        return {}
    weights: dict[Address, int] = {}
    for epoch in range(standing.runs[run].first, standing.runs[run].last + 1):
        for wallet, value in scores[epoch].items():
            weights[wallet] = weights.get(wallet, 0) + value
    # Scores of closed epochs never change: a run from which nobody scored would hold its revenue forever.
    return weights if any(weights.values()) else scores[-1]


def _pools(
    facts: Facts, standing: Standing, scores: Sequence[Mapping[Address, int]], engine: Engine
) -> tuple[Pool, ...]:
    pools = []
    for run in sorted(set(facts.funded) | set(standing.carried)):
        funded, carried = facts.funded.get(run, Wei(0)), standing.carried.get(run, Wei(0))
        if funded + carried == 0:
            continue
        split = engine.allocate(Wei(funded + carried), _weights(run, standing, scores))
        paid = {a: v for a, v in sorted(split.shares.items()) if v}
        pools.append(Pool(run, funded, carried, paid, split.carry))
    return tuple(pools)


def _pair_line(key: PairKey, pair: Pair, known: PairResult) -> Line:
    return {
        "kind": "pair", "task": key.task, "a": key.a, "b": key.b, "gold": pair.gold, "bucket": pair.bucket,
        "longer": pair.longer, "logOdds": str(known.log_odds), "label": known.label,
        "confidence": known.confidence,
    }  # fmt: skip


def _wallet_lines(
    found: Comparisons, result: EpochScore, stakes: Sequence[Wei], scores: Mapping[Address, int], facts: Facts
) -> Iterable[Line]:
    for wallet, r, stake in zip(found.wallets, result.wallets, stakes, strict=True):
        yield {
            "kind": "wallet", "wallet": wallet,
            "stakeStart": str(facts.stake_start.get(wallet, 0)),
            "stakeEnd": str(facts.stake_end.get(wallet, 0)),
            "stake": str(stake), "n": str(r.n), "d": str(r.d), "a": r.a, "deltaG": str(r.delta_g),
            "deltaV": str(r.delta_v), "h": str(r.h), "w": str(r.w), "comparisons": r.comparisons,
            "labelN": str(r.state.label_n), "labelD": str(r.state.label_d), "payG": str(r.state.pay_g),
            "payV": str(r.state.pay_v), "payHmax": str(r.state.pay_hmax), "score": str(scores[wallet]),
        }  # fmt: skip


def _payout_lines(pools: Sequence[Pool], cumulative: Mapping[Address, Wei]) -> Iterable[Line]:
    """Yield pools, shares, leaves; a run is decimal text here, because its payer may name any uint64."""
    for p in pools:
        yield {
            "kind": "pool", "run": str(p.run), "funded": str(p.funded),
            "carriedIn": str(p.carried_in), "carriedOut": str(p.carried_out),
        }  # fmt: skip
    for p in pools:
        for wallet, amount in p.shares.items():
            yield {"kind": "share", "run": str(p.run), "wallet": wallet, "amount": str(amount)}
    for account, total in sorted(cumulative.items()):
        yield {"kind": "leaf", "account": account, "cumulative": str(total)}


def _nowhere(_line: bytes) -> None:
    """Keep nothing."""


def _quietly(_stage: str) -> None:
    """Say nothing."""


@paused()
def close(
    evidence: Evidence,
    facts: Facts,
    standing: Standing,
    engine: Engine,
    domain_digests: Mapping[int, Hash32],
    write: Callable[[bytes], object] = _nowhere,
    begin: Callable[[str], object] = _quietly,
) -> Closed:
    """Return the closed epoch. Pure: the same arguments give the same bytes.

    `domain_digests` maps the position of each ranking to its EIP-712 digest, which whoever checked the
    signatures has at hand. `write` is given the bundle, line by line in order: it is large, and never held whole.
    `begin` is told each stage of the work.
    """
    header, params = evidence.header, evidence.header.rules.params
    found, result, retired = _scored(evidence, standing, engine, begin)
    begin("payouts")
    stakes = tuple(
        mean_stake(facts.stake_start.get(w, 0), facts.stake_end.get(w, 0), header.length)
        for w in found.wallets
    )
    proven = {w: r.w for w, r in zip(found.wallets, result.wallets, strict=True)}
    by_wallet = dict(zip(found.wallets, stakes, strict=True))
    scores = {w: engine.haptic_score(proven[w], by_wallet[w], header.lam, params) for w in found.wallets}
    runs = {**standing.runs, **{r.run: r for r in evidence.runs}}
    known = Standing(lam=standing.lam, carried=standing.carried, runs=runs)
    pools = _pools(facts, known, (*standing.scores, scores), engine)
    cumulative = payout.accumulate(standing.cumulative, [p.shares for p in pools])
    lam = engine.lambda_next(proven, by_wallet, header.lam)
    begin("trees")
    tree = SumTree.build([Leaf(a, v) for a, v in sorted(cumulative.items())])
    root = ledger_root((domain_digests[r.position], r.ranking.wallet) for r in evidence.rankings)
    begin("bundle")
    data_hash = _write(
        chain(
            evidence_lines(evidence),
            (_pair_line(k, p, r) for k, p, r in zip(found.keys, found.pairs, result.pairs, strict=True)),
            _wallet_lines(found, result, stakes, scores, facts),
            _payout_lines(pools, cumulative),
        ),
        write,
    )
    after = Standing(
        lam=lam,
        previous=data_hash,
        states={
            **standing.states,
            **{w: r.state for w, r in zip(found.wallets, result.wallets, strict=True)},
        },
        cumulative=cumulative,
        carried={p.run: p.carried_out for p in pools if p.carried_out},
        scores=(*standing.scores, scores),
        runs=runs,
    )
    return Closed(found, result, stakes, scores, pools, tree, root, data_hash, after, retired)


def _write(lines: Iterable[Line], write: Callable[[bytes], object]) -> Hash32:
    """Write lines one by one, and return the hash of their bytes."""
    running = RunningHash()
    for line in lines:
        data = line_bytes(line)
        running.update(data)
        write(data)
    return running.value()
