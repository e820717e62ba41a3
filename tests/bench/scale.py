"""An epoch at scale, each measurement in a process of its own: `python -m tests.bench.scale [--small]`.

score    comparisons of 10,000 wallets, and ten times as many, against the plain-Python specification
tree     payout tree and every proof, against OpenZeppelin's JavaScript tree and the bare keccak calls
epoch    from stake events and signed rankings to the root and the bundle, stage by stage
verify   the same recomputed by a stranger, who compares it with the bundle as it goes

CPU seconds of one thread first, wall seconds in brackets; the peak is of the whole process, Python and inputs too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
REVENUE: Final = 10**12
OPENZEPPELIN: Final = """
const { StandardMerkleTree } = require("@openzeppelin/merkle-tree");
const values = [];
for (let i = 1; i <= Number(process.argv[1]); i++)
  values.push(["0x" + (BigInt(i) * 2654435761n).toString(16).padStart(40, "0"), String(i)]);
const began = process.cpuUsage();
const tree = StandardMerkleTree.of(values, ["address", "uint96"]);
for (const [place] of tree.entries()) tree.getProof(place);
const used = process.cpuUsage(began);
console.log((used.user + used.system) / 1e6, process.resourceUsage().maxRSS >> 10);
"""


class Clock:
    """Measures stages that follow each other."""

    def __init__(self) -> None:
        self._stage, self._cpu, self._wall = "", 0.0, 0.0
        self.spent: dict[str, tuple[float, float]] = {}

    def begin(self, stage: str) -> None:
        """Let a stage begin, and end the one before; an empty name only ends that."""
        now = time.process_time(), time.perf_counter()
        if self._stage:
            self.spent[self._stage] = now[0] - self._cpu, now[1] - self._wall
        self._stage, self._cpu, self._wall = stage, time.process_time(), time.perf_counter()

    @property
    def total(self) -> tuple[float, float]:
        """CPU and wall seconds of all stages."""
        return sum(c for c, _ in self.spent.values()), sum(w for _, w in self.spent.values())


def peak_mb() -> int:
    """Return the most memory that this process ever had, MB; `ru_maxrss` would count its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1]) >> 10


def say(name: str, spent: tuple[float, float], more: str = "") -> None:
    print(f"{name:<52} {spent[0]:8.2f} s ({spent[1]:.2f})   {more}", flush=True)


def against(ours: float, peer: str, theirs: float) -> str:
    ratio = f"{ours / theirs:.2f}x" if ours > theirs else f"{theirs / ours:.1f} times faster"
    return f"{peer} {theirs:.2f} s: {ratio}"


# -- score -------------------------------------------------------------------------------------------------------


def score_rows(comparisons: int, wallets: int = 10_000) -> None:
    """Score rankings of four responses, five to a task, in the order in which an epoch gives them."""
    import numpy as np

    from chain import score
    from chain.types import Params, WalletState

    luck = np.random.default_rng(1)
    judgements = comparisons // 6
    tasks = judgements // 5
    judgement, wallet = np.arange(judgements), luck.permutation(np.arange(judgements) * wallets // judgements)
    task = judgement * tasks // judgements
    wallet = wallet[np.lexsort((wallet, task))]
    rows = score.Rows(
        np.repeat(judgement, 6), np.repeat(wallet, 6), np.repeat(task * 6, 6) + np.tile(np.arange(6), judgements),
        np.where(luck.random(judgements * 6) < 0.7, 1, -1), np.full(judgements * 6, 3),
    )  # fmt: skip
    pairs = score.Pairs(
        luck.choice(np.array([0] * 19 + [1]), tasks * 6), luck.integers(0, 5, tasks * 6), luck.integers(-1, 2, tasks * 6)
    )  # fmt: skip
    clock = Clock()
    clock.begin("score")
    found = score.score(rows, pairs, [WalletState()] * wallets, Params())
    clock.begin("")
    say(f"score, {len(rows.x):,} comparisons x {wallets:,} wallets", clock.total, f"peak {peak_mb()} MB")
    if comparisons <= 10**6:
        _score_by_specification(rows, pairs, found, clock.total[0], wallets)


def _score_by_specification(rows: object, pairs: object, found: object, ours: float, wallets: int) -> None:
    from dataclasses import astuple

    from chain import spec
    from chain.types import Pair, Params, Row, WalletState

    listed = [Row(*r) for r in zip(*(c.tolist() for c in astuple(rows)), strict=True)]  # type: ignore[call-overload]
    known = [Pair(*p) for p in zip(*(c.tolist() for c in astuple(pairs)), strict=True)]  # type: ignore[call-overload]
    clock = Clock()
    clock.begin("specification")
    plain = spec.score(listed, known, [WalletState()] * wallets, Params())
    clock.begin("")
    if plain != found:
        raise SystemExit("the two implementations differ")
    print(" " * 20 + against(ours, "chain.spec in plain Python, the same answer", clock.total[0]))


# -- tree --------------------------------------------------------------------------------------------------------


def tree(accounts: int) -> None:
    """Build the tree and make every proof once, as OpenZeppelin's does in the same run where it is not too long."""
    from chain.hashing import keccak256
    from chain.tree import SumTree
    from chain.types import Address, Leaf, Wei

    names = [Address(f"0x{i * 2654435761:040x}") for i in range(1, accounts + 1)]
    leaves = [Leaf(a, Wei(i + 1)) for i, a in enumerate(names)]
    clock = Clock()
    clock.begin("tree")
    built = SumTree.build(leaves)
    clock.begin("proofs")
    for name in names:
        built.proof(name)
    clock.begin("")
    ours, peak = clock.total, peak_mb()
    clock.begin("floor")
    for size in (32, 88):
        for _ in range(accounts):
            keccak256(bytes(size))
    clock.begin("")
    say(
        f"tree and all proofs, {accounts:,} accounts",
        ours,
        f"peak {peak} MB; the tree alone {clock.spent['tree'][0]:.2f} s",
    )
    print(" " * 20 + against(ours[0], "floor: its keccak calls alone", clock.spent["floor"][0]))
    if accounts <= 10**5:
        _tree_by_openzeppelin(accounts, ours[0])


def _tree_by_openzeppelin(accounts: int, ours: float) -> None:
    command = ["node", "-e", OPENZEPPELIN, str(accounts)]
    done = subprocess.run(command, cwd=ROOT / "contracts", capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["?"])[0]
        print(" " * 20 + f"@openzeppelin/merkle-tree cannot be run: `make setup` installs it ({why})")
        return
    cpu, peak = done.stdout.split()
    print(" " * 20 + against(ours, f"@openzeppelin/merkle-tree, peak {peak} MB,", float(cpu)))


# -- epoch -------------------------------------------------------------------------------------------------------


def make_world(folder: Path, wallets: int, comparisons: int) -> None:
    """Sign an epoch's rankings with real keys, and write the evidence as a bundle's first lines."""
    from chain.bundle import evidence_lines
    from chain.lines import line_bytes
    from tests.bench.crowd import Crowd

    with (folder / "evidence.jsonl").open("wb") as file:
        file.writelines(map(line_bytes, evidence_lines(Crowd(wallets, comparisons).evidence())))


def epoch(folder: Path) -> None:
    """Close the epoch as the operator does, then read back what was written."""
    _recompute(folder, verifying=False)


def verify(folder: Path) -> None:
    """Check the epoch as a stranger does, but for the chain, which the other benches read."""
    _recompute(folder, verifying=True)


def _recompute(folder: Path, *, verifying: bool) -> None:
    from chain.bundle import read_evidence
    from chain.difference import Comparison
    from chain.epoch import FAST, SPEC, close
    from chain.evidence import check_evidence
    from chain.lines import raw_lines, read_lines
    from tests.bench import crowd
    from tests.worlds import DOMAIN

    clock, bundle = Clock(), folder / "epoch-0.jsonl"
    clock.begin("read and parse the evidence")
    with (bundle if verifying else folder / "evidence.jsonl").open("rb") as file:
        found = read_evidence(read_lines(raw_lines(file)))
    clock.begin("")
    wallets = sorted({r.ranking.wallet for r in found.rankings})
    before, changes = crowd.standing(dict.fromkeys(wallets, crowd.PAID)), list(crowd.changes(wallets))
    clock.begin("fold stake")
    facts = crowd.facts(changes, found.header, REVENUE)
    clock.begin("check evidence, every signature recovered")
    digests = check_evidence(found, DOMAIN)
    with bundle.open("rb" if verifying else "wb") as file:
        given = Comparison(0, file) if verifying else None
        write = given.expect if given else file.write
        closed = close(found, facts, before, SPEC if verifying else FAST, digests, write, clock.begin)
    clock.begin("")
    what = "verify" if verifying else "epoch"
    counts = {
        "fold stake": (len(changes), "change"), "comparisons": (len(found.rankings), "ranking"),
        "check evidence, every signature recovered": (len(found.rankings), "ranking"),
        "score": (len(closed.comparisons.columns.x), "comparison"), "trees": (len(closed.standing.cumulative), "account"),
        "payouts": (len(wallets), "wallet"), "bundle": (bundle.stat().st_size >> 10, "KB"),
    }  # fmt: skip
    for stage, spent in clock.spent.items():
        count, noun = counts.get(stage, (len(found.rankings), "ranking"))
        say(f"{what}: {stage}", spent, f"{spent[0] / count * 1e6:.2f} us a {noun}, {count:,} of them")
    say(
        f"{what}, {len(wallets):,} wallets, in all",
        clock.total,
        f"peak {peak_mb()} MB; dataHash {closed.data_hash}",
    )


# -- all of it ---------------------------------------------------------------------------------------------------


def main(arguments: Iterable[str]) -> None:
    """Run everything, each in a process of its own; with a name, only that one, in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a tenth of everything")
    parser.add_argument("one", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args(list(arguments))
    if given.one:
        name, *rest = given.one
        run: dict[str, Callable[[], None]] = {
            "score": lambda: score_rows(int(rest[0])), "tree": lambda: tree(int(rest[0])),
            "world": lambda: make_world(Path(rest[0]), int(rest[1]), int(rest[2])),
            "epoch": lambda: epoch(Path(rest[0])), "verify": lambda: verify(Path(rest[0])),
        }  # fmt: skip
        run[name]()
        return
    tenth = 10 if given.small else 1
    with tempfile.TemporaryDirectory(prefix="haptic-scale-") as folder:
        for step in (
            ["score", 1_000_000 // tenth], ["score", 10_000_000 // tenth],
            ["tree", 100_000 // tenth], ["tree", 1_000_000 // tenth],
            ["world", folder, 100_000 // tenth, 1_000_000 // tenth], ["epoch", folder], ["verify", folder],
        ):  # fmt: skip
            command = [sys.executable, "-m", "tests.bench.scale", *map(str, step)]
            subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
