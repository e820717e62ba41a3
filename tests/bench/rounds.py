"""Retraining in rounds behind the gate, on one toy: `python -m tests.bench.rounds [--seeds 0 1 2]`.

For each seed a model is made from scratch and retrained four times, with the settings as they are (KL .1 to the
parent): fresh comparisons by simulated judges of whom 82 % agree with gold, a candidate, 800 comparisons with what is
published, promotion or roll-back (`trainer.rounds`). Then all that was ever published meets in an arena: new answers
to 640 prompts that no round asked, each pair of models once on each, by judges as noisy. The rating that may not fall
is the Bradley-Terry rating of that arena (`trainer.rating`), which no gate has seen; the win rates are by gold, ties
half, on the same answers. CPU seconds are of one thread. It ends with an error where a bar does not hold.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Final

from tests.bench.bars import hold
from trainer import corpus, duel, model, rounds, run, simulate
from trainer.answer import answer
from trainer.config import Config
from trainer.progress import silent
from trainer.rating import Rating, Result, rate
from trainer.registry import Registry

ROUNDS, LEARNED, JUDGED, PROMPTS = 4, 800, 800, 640
LEAST, CPU_S = 0.78, 240.0


@dataclass(frozen=True, slots=True)
class Step:
    """What was published after a round."""

    name: str
    rating: Rating
    win_rate: float
    """Against SFT, by gold."""
    low: float
    high: float


def steps_of(seed: int, folder: Path) -> list[Step]:
    """Make a model, retrain it in rounds, let all that was published meet; return it by round, SFT first."""
    registry = Registry(folder / "models")
    first = run.Run(registry, "sft-0", seed, Config(), 0, silent)
    run.bootstrap(first)
    plan = rounds.Plan("sft-0", ROUNDS, LEARNED, JUDGED, folder)
    verdicts = rounds.rounds(replace(first, name="policy"), plan)
    print(f"\nseed {seed}\n{rounds.table(verdicts, registry)}", flush=True)
    published = ["sft-0", *(v.published for v in verdicts)]
    names = list(dict.fromkeys(published))
    asked = set(corpus.prompts(seed, rounds.ASKED))
    prompts = [prompt for prompt in corpus.every_prompt() if prompt not in asked][:PROMPTS]
    texts = {
        name: [
            drawn[0]
            for drawn in answer(
                model.load(registry.path(name) / "model"), prompts, samples=1, temperature=1.0, seed=seed + number
            )
        ]
        for number, name in enumerate(names)
    }  # fmt: skip
    results = []
    for place, (a, b) in enumerate(combinations(names, 2)):
        won, lost = simulate.judged(prompts, texts[a], texts[b], seed=1_000 * seed + place)
        results += [Result(a, b, won), Result(b, a, lost)]
    if not results:
        raise SystemExit(f"seed {seed}: no candidate was promoted, so that there is nothing to rate")
    ratings = {rating.name: rating for rating in rate(results)}
    found = {n: duel.win_rate(duel.by_gold, prompts, texts[n], texts["sft-0"], "won") for n in names}
    return [
        Step(n, ratings[n], *(found[n][key] for key in ("won", "won_low", "won_high"))) for n in published
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    warnings.simplefilter("ignore")
    runs, spent = [], []
    for seed in parser.parse_args().seeds:
        began = time.process_time()
        with tempfile.TemporaryDirectory(prefix="haptic-bench-") as folder:
            runs.append(steps_of(seed, Path(folder)))
        spent.append(time.process_time() - began)
        for number, step in enumerate(runs[-1]):
            print(
                f"round {number}: {step.name:<9} rating {step.rating.strength:+.2f} "
                f"[{step.rating.low:+.2f}, {step.rating.high:+.2f}]   "
                f"gold against SFT {step.win_rate:.3f} [{step.low:.3f}, {step.high:.3f}]"
            )
        print(f"{spent[-1]:.0f} CPU seconds", flush=True)
    bars: Final = {
        "the published policy's rating never falls, on every seed": all(
            after.rating.strength >= before.rating.strength
            for steps in runs
            for before, after in pairwise(steps)
        ),
        f"it ends at {LEAST} against SFT or above, on every seed": all(s[-1].win_rate >= LEAST for s in runs),
        f"no seed takes more than {CPU_S:.0f} CPU seconds": max(spent) <= CPU_S,
    }
    print()
    hold(bars)


if __name__ == "__main__":
    main()
