"""Laws of the verdict: the surpluses of all that a wallet judged are the integers of its line, to the last one."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import combinations
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chain.epoch import FAST, close
from chain.messages import Ranking
from chain.spec import div
from chain.types import Hash32
from chain.verdict import Known, Verdict, verdicts
from tests.worlds import DOMAIN, evidence_of, facts_of, first_standing

Came = list[tuple[Ranking, list[Verdict]]]
worlds = settings(max_examples=30)


def _judged(seed: int) -> list[tuple[dict[str, Any], Came]]:
    """Return each wallet's bundle line of two chained epochs, and what came of each of its last rankings."""
    luck, standing, told = Random(seed), first_standing(), []
    for epoch in range(2):
        found, raw = evidence_of(luck, standing, epoch=epoch, people=7), bytearray()
        digests = {r.position: r.ranking.digest(DOMAIN) for r in found.rankings}
        closed = close(found, facts_of(epoch, {}), standing, FAST, digests, raw.extend)
        lines = [json.loads(x) for x in raw.splitlines()]
        known = {
            (x["task"], x["a"], x["b"]):
            Known(x["gold"], x["bucket"], x["longer"], int(x["logOdds"]), x["label"], x["confidence"])
            for x in lines if x["kind"] == "pair"
        }  # fmt: skip
        last: dict[tuple[str, str], Ranking] = {}
        for each in sorted((r.ranking for r in found.rankings), key=lambda r: r.revision):
            last[each.wallet, each.task] = each
        wallets = {x["wallet"]: x for x in lines if x["kind"] == "wallet"}
        came: dict[str, Came] = defaultdict(list)
        for (wallet, task), said in last.items():
            pairs = [known.get((task, a, b)) for a, b in combinations(sorted(said.shown), 2)]
            found_out = verdicts(said, pairs, wallets[wallet]["a"], closed.result.style_bias)
            came[wallet].append((said, found_out))
        told += [(line, came[wallet]) for wallet, line in wallets.items()]
        standing = closed.standing
    return told


@given(st.integers(0, 2**32))
@worlds
def test_the_surpluses_of_all_judgements_are_what_the_wallet_earned(seed: int) -> None:
    told = _judged(seed)
    assert any(line["deltaG"] != "0" for line, _ in told)
    for line, came in told:
        sums = [sum(v.surplus for v in found) for _, found in came]
        assert sum(sums) == int(line["deltaG"])
        assert sum(div(s, 1000) ** 2 for s in sums) == int(line["deltaV"])
        assert sum(v.weight for _, found in came for v in found) == line["comparisons"]


@given(st.integers(0, 2**32))
@worlds
def test_a_pair_that_was_said_to_be_even_earns_nothing_and_every_other_counts(seed: int) -> None:
    for _, came in _judged(seed):
        for said, found in came:
            ranks = dict(zip(said.shown, said.ranks, strict=True))
            for v in found:
                better = 0 if said.flag else (ranks[v.a] < ranks[v.b]) - (ranks[v.a] > ranks[v.b])
                assert v.said == better
                assert v.weight == (12 // len(ranks) if better else 0)
                assert better or not v.surplus


@given(st.integers(0, 2**32))
@worlds
def test_to_agree_with_gold_earns_and_to_contradict_it_costs_where_length_says_nothing(seed: int) -> None:
    for _, came in _judged(seed):
        for v in (v for _, found in came for v in found if v.said and v.known.gold and not v.known.longer):
            assert v.surplus == v.weight * 1_000_000 * v.said * v.known.gold


signs = st.sampled_from([-1, 0, 1])


@given(signs, signs, signs)
def test_who_agrees_does_so_with_gold_first_and_then_with_the_label(said: int, gold: int, label: int) -> None:
    a, b = Hash32("0xa"), Hash32("0xb")
    agreed = Verdict(a, b, said, Known(gold, 0, 0, 0, label, 500_000), 6, 0).agreed
    if not said or not (gold or label):
        assert agreed is None
    elif gold:
        assert agreed is (said == gold)
    else:
        assert agreed is (said == label)
