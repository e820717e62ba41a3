"""The score on judgements of real people: who agrees with whom, and whose labels predict a person who was left out.

LLMFAO (124 people, 1,712 pairs of answers by a hundred models, about four judgements a pair, four in ten of them
ties) and SQuALITY (4 people, 80 questions, three answers each). The files are not part of the project: they lie in
`../shared/data`, or where HAPTIC_DATA says; without them this part says so and is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from crowdkit.aggregation import DawidSkene

from chain import score
from chain.feedback import Comparisons, Task, comparisons, summary_of
from chain.hashing import keccak256
from chain.messages import Ranking
from chain.types import ONE, Address, EpochScore, Hash32, Params, WalletState
from tests.bench.score.items import Ints
from tests.bench.score.peers import fitted
from tests.bench.score.tables import show
from tests.worlds import NO_COMMENT

ROOT: Final = Path(__file__).parents[3]
V1: Final = Params()
BETTER: Final = {"left": (1, 2), "right": (2, 1), "tie": (1, 1)}


@dataclass(frozen=True)
class People:
    """Real judgements as an epoch's comparisons, scored by the production code; nobody has gold or a history."""

    name: str
    tasks: Mapping[Hash32, Task]
    rankings: Sequence[Ranking]
    verdicts: Mapping[tuple[Hash32, Hash32], int]
    """What GPT-4 said of a task's first response (by hash) against the other, where it preferred one."""

    @cached_property
    def found(self) -> Comparisons:
        """The comparisons."""
        return comparisons(self.rankings, self.tasks, {})

    @cached_property
    def rows(self) -> score.Rows:
        """The comparisons as columns."""
        c = self.found.columns
        return score.Rows.of_columns(c.judgement, c.wallet, c.pair, c.x, c.w)

    def scored(self, rows: score.Rows, params: Params = V1) -> EpochScore:
        """Return the score by some of the comparisons."""
        return score.score(
            rows, score.Pairs.of(self.found.pairs), [WalletState()] * len(self.found.wallets), params
        )

    def count(self, rows: score.Rows) -> Ints:
        """Return each pair's votes for its first response less those against it."""
        return np.bincount(rows.pair, rows.x, len(self.found.keys)).astype(np.int64)

    def ours(self, rows: score.Rows) -> Ints:
        """Return HapticScore's labels."""
        return np.array([p.label for p in self.scored(rows).pairs])

    def turning(self, rows: score.Rows) -> Ints:
        """Return the labels that it would make if it learned from whoever is worse than a coin, turned round."""
        params = replace(V1, amin=V1.amin_em)
        return np.array([p.label for p in self.scored(rows, params).pairs])

    def majority(self, rows: score.Rows) -> Ints:
        """Return the majority's labels, 0 where it is even."""
        return np.sign(self.count(rows))

    def dawid_skene(self, rows: score.Rows) -> Ints:
        """Return crowd-kit's DawidSkene's labels, 0 where nobody ordered the pair."""
        answers = pd.DataFrame({"task": rows.pair, "worker": rows.wallet, "label": rows.x})
        labels = fitted(DawidSkene(n_iter=50), answers)
        found: Ints = (
            labels.reindex(np.arange(len(self.found.keys)), fill_value=0).to_numpy().astype(np.int64)
        )
        return found

    @property
    def aggregators(self) -> dict[str, Callable[[score.Rows], Ints]]:
        """What makes labels, by name."""
        return {
            "majority": self.majority,
            "HapticScore": self.ours,
            f"the same with amin = {V1.amin_em / ONE}": self.turning,
            "DawidSkene": self.dawid_skene,
        }


def _address(name: str) -> Address:
    return Address("0x" + keccak256(name.encode())[12:].hex())


def _ranking(who: str, task: Task, name: Hash32, method: str, ranks: tuple[int, ...]) -> Ranking:
    return Ranking(
        _address(who), 0, name, method, summary_of(ranks), task.hashes, ranks, (), "", NO_COMMENT, 0, 0
    )


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _task(row: Mapping[str, Any], method: str) -> tuple[Task, list[int]]:
    """Return the task of a row, and where each of its responses stands in the file."""
    texts = [r["text"] for r in row["responses"]]
    task = Task.of(f"{row['prompt']} [{row['task']}]", texts, [method])
    return task, [texts.index(r) for r in task.responses]


def read(path: Path) -> People:
    """Read a file of judgements or of rankings."""
    tasks, rankings, verdicts = {}, [], {}
    for row in _read(path):
        method = "pairwise" if len(row["responses"]) == 2 else "ranking"
        task, places = _task(row, method)
        name = task.hash()
        tasks[name] = task
        said = [(j["annotator"], BETTER[j["winner"]]) for j in row.get("judgements", ())]
        said += [(r["annotator"], tuple(r["ranks"])) for r in row.get("rankings", ())]
        for who, ranks in said:
            dense = sorted(set(ranks))
            placed = tuple(dense.index(ranks[p]) + 1 for p in places)
            rankings.append(_ranking(who, task, name, method, placed))
        if (verdict := row.get("ai_verdicts", {}).get("gpt4", "tie")) != "tie":
            first, other = (BETTER[verdict][p] for p in places)
            verdicts[name, task.hashes[0]] = 1 if first < other else -1
    return People(path.stem, tasks, rankings, verdicts)


def agreement(people: People) -> tuple[float, int]:
    """Return how often two people who both ordered a pair agree, and on how many such meetings."""
    rows = people.rows
    ups = np.bincount(rows.pair, rows.x > 0, len(people.found.keys))
    downs = np.bincount(rows.pair, rows.x < 0, len(people.found.keys))
    same = (ups * (ups - 1) + downs * (downs - 1)) / 2
    return float(same.sum() / (same + ups * downs).sum()), int((same + ups * downs).sum())


def _right(labels: Ints, truth: Ints) -> tuple[float, float, int]:
    """Return how many labels are right with half of one for none, how many of those that were made, and their number."""
    made = labels != 0
    right = labels * truth > 0
    decided = int(made.sum())
    return (
        float((right.sum() + (len(labels) - decided) / 2) / len(labels)),
        float(right.sum() / max(1, decided)),
        decided,
    )


def left_out(people: People) -> tuple[int, dict[str, tuple[float, float, int]]]:
    """Return how well labels made without a person predict this person's answers, for each way of making them.

    Asked of every answer whose pair somebody else ordered too.
    """
    rows, said = people.rows, {name: [np.empty(0, np.int64)] for name in people.aggregators}
    truth = [np.empty(0, np.int64)]
    for wallet in range(len(people.found.wallets)):
        mine, others = rows.wallet == wallet, rows.take(np.flatnonzero(rows.wallet != wallet))
        known = np.bincount(others.pair, minlength=len(people.found.keys)) > 0
        asked = mine & known[rows.pair]
        truth.append(rows.x[asked])
        for name, labels in people.aggregators.items():
            said[name].append(labels(others)[rows.pair[asked]])
    everything = np.concatenate(truth)
    return len(everything), {n: _right(np.concatenate(found), everything) for n, found in said.items()}


def with_gpt4(people: People) -> tuple[int, dict[str, tuple[float, float, int]]]:
    """Return how often labels by everybody agree with GPT-4, over pairs that it and somebody ordered."""
    keys = [(n, k.task, k.a) for n, k in enumerate(people.found.keys)]
    truth = np.array([people.verdicts.get((task, a), 0) for _, task, a in keys])
    asked = np.flatnonzero(truth)
    return len(asked), {n: _right(f(people.rows)[asked], truth[asked]) for n, f in people.aggregators.items()}


def _table(title: str, found: Mapping[str, tuple[float, float, int]]) -> None:
    columns = ("undecided = 1/2", "where decided", "decided")
    show(title, columns, [(n, (f"{a:.3f}", f"{b:.3f}", f"{c:,}")) for n, (a, b, c) in found.items()])


def _persons(people: People, result: EpochScore) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield a line for each person, the most reliable first."""
    rows, votes = people.rows, people.count(people.rows)
    for c in sorted(
        range(len(result.wallets)), key=lambda c: (-result.wallets[c].a, people.found.wallets[c])
    ):
        w, mine = result.wallets[c], rows.wallet == c
        others = (votes[rows.pair[mine]] - rows.x[mine]) * rows.x[mine]
        agreed = (others > 0).sum() / max(1, (others != 0).sum())
        yield f"person {c}", (str(mine.sum()), f"{agreed:.2f}", f"{w.a / ONE:.2f}", f"{w.w / 6 / ONE:.1f}")


def show_people(people: People) -> None:
    """Print what the score makes of real people."""
    size = len(people.found.wallets)
    agreed, meetings = agreement(people)
    judged = f"{len(people.rankings):,} judgements, {len(people.rows.x):,} comparisons"
    print(f"\n{people.name}: {size} people, {len(people.tasks):,} tasks, {judged}")
    print(f"  two people who both order a pair agree {agreed:.3f} of the time ({meetings:,} meetings)")
    result = people.scored(people.rows)
    found = np.quantile([w.a / ONE for w in result.wallets], [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    print(
        f"  reliability, least, 10 %, 25 %, median, 75 %, 90 %, most: {', '.join(f'{v:.2f}' for v in found)}"
    )
    print(f"  paid in this one epoch: {sum(w.w > 0 for w in result.wallets)}")
    lines, columns = (
        list(_persons(people, result)),
        ("comparisons", "with others' majority", "reliability", "proven"),
    )
    title = "the most and the least reliable" if size > 10 else "each of them"
    show(title, columns, [*lines[:5], *lines[-5:]] if size > 10 else lines)
    count, right = left_out(people)
    _table(f"a person left out, predicted by the labels of the others ({count:,} answers)", right)
    if people.verdicts:
        count, right = with_gpt4(people)
        _table(f"agreement with GPT-4, where it prefers one ({count:,} pairs)", right)


def show_all(*, small: bool) -> None:
    """Print it for each file that is there; only the smaller when there is little time."""
    folder = Path(os.environ.get("HAPTIC_DATA", ROOT.parent / "shared" / "data"))
    for name in ("squality_rankings",) if small else ("llmfao_judgements", "squality_rankings"):
        path = folder / f"{name}.jsonl"
        if path.exists():
            show_people(read(path))
        else:
            print(f"\n{name}: left out, {path} is not there (HAPTIC_DATA names the folder)")
