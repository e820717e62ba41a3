"""How people were asked, and how they signed: counted from the public bundles, and said in a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from chain.board import Tally
from chain.bundle import Evidence, read_evidence
from chain.evidence import replayed
from chain.lines import raw_lines, read_lines
from chain.rules import METHODS, SIZES
from chain.verify import bundle_source
from service.demo.cast import Player
from service.demo.stage import DemoError, Stage
from service.terminal import out


def tell(stage: Stage, players: Sequence[Player], epochs: int) -> None:
    """Print a line for each thing that was used on the way; DemoError where one was not, or not as it should be."""
    read = bundle_source(stage.api.url)
    found = []
    for epoch in range(epochs):
        with read(epoch) as file:
            found.append(read_evidence(read_lines(raw_lines(file))))
    known = [stage.api.get(f"/epochs/{epoch}") for epoch in range(epochs)]
    signed = _signed(found)
    expected = Counter({p.role.signs: 0 for p in players})
    for p in players:
        expected[p.role.signs] += p.judged
    if signed != expected:
        raise DemoError(
            f"rankings by who signed them: the bundles show {dict(signed)}, sent were {dict(expected)}"
        )
    redacted = sum(e["redacted"] for e in known)
    kept = sum(len(p.receipts) for p in players)
    sizes, methods, tallies = _sizes(found), _methods(found), _tallies(found)
    asked = Counter(t.wanted for t in tallies)
    enough = Counter(t.wanted for t in tallies if t.done >= t.wanted)
    _say("tasks by number of responses", _listed((n, sizes[n]) for n in SIZES))
    _say(
        "tasks by judgements wanted, the fewer the more people agree",
        f"{_listed(sorted(asked.items()))}; had as many when the work was done: {_listed(sorted(enough.items()))}",
    )
    _say("skips, all within their wallets' budgets", f"{sum(len(e.skips) for e in found)}")
    _say(
        "gold tasks",
        f"{sum(len(e.gold) for e in found)}, of which proved wrong and retired: {sum(e['retired_gold'] for e in known)}",
    )
    _say("rankings by method", _listed((m.replace("_", "-"), methods[m]) for m in METHODS))
    _say(
        "rankings by who signed them",
        f"session keys {signed['session']:,}, a wallet itself after Sign-In with Ethereum {signed['wallet']:,}, "
        f"a wallet that is a contract (ERC-1271) {signed['contract']:,}",
    )
    _say("responses that told who wrote them, shown without that", f"{redacted}")
    _say("receipts kept, one for each ranking", f"{kept:,}")


def _say(what: str, found: str) -> None:
    out.print(f"[green]✓[/] {what}: {found}", soft_wrap=True)


def _listed(counts: Iterable[tuple[object, int]]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts)


def _sizes(found: Iterable[Evidence]) -> Counter[int]:
    return Counter(len(task.responses) for e in found for task in e.tasks.values())


def _tallies(found: Iterable[Evidence]) -> list[Tally]:
    """Return what came of each task by the replay of its epoch's log."""
    return [tally for e in found for tally in replayed(e).tallies.values()]


def _methods(found: Iterable[Evidence]) -> Counter[str]:
    return Counter(r.ranking.method for e in found for r in e.rankings)


def _signed(found: Iterable[Evidence]) -> Counter[str]:
    """Return how many rankings were signed by session keys, by a wallet's own key, and by a contract's code."""
    counts: Counter[str] = Counter()
    for e in found:
        lent = {s.session.wallet for s in e.sessions if s.session.key != s.session.wallet}
        counts.update(
            "contract" if r.block else "session" if r.ranking.wallet in lent else "wallet" for r in e.rankings
        )
    return counts
