"""What weighting by reliability saves the reward model: `python -m tests.bench.labels [--seeds 0 1 2 3]`.

For each seed a toy model answers, and a crowd of wallets judges pairs of its answers, three wallets to a pair, each
right with a hidden probability: honest ones .64 to 1, spammers .5, adversaries say the opposite of what honest ones
would. Epoch after epoch goes through the production score (`chain.score`, its parameters, its shares of gold), which
knows a wallet only by its history; of the last epoch the reward model learns. The same pairs are learned by three
labels: the majority's, each counting the same; HapticScore's, each weighted by its confidence; and clean ones, the
ceiling. HapticScore's once more with margins, where a label's log-odds are what the chosen answer has to lead by.
Accuracy is on clean pairs of other prompts. It ends with an error where a bar does not hold.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Final

from chain.rules import Rules
from chain.score import Pairs, Rows, score
from chain.types import ONE, Pair, PairResult, Row, WalletState
from tests.bench.bars import hold
from trainer import corpus, gold, model, reward, run
from trainer.answer import answer
from trainer.config import Config
from trainer.model import LanguageModel
from trainer.preferences import Comparison
from trainer.progress import silent
from trainer.registry import Registry

WALLETS, EPOCHS, JUDGES = 100, 6, 3
LEARNED, MEASURED, PER_PROMPT = 2_000, 1_280, 4
HOSTILE: Final = (0.3, 0.1)
"""Shares of spammers and of adversaries."""
MARGINS: Final = (0.3, 1.0)
"""What `reward.margin` is tried at, beside 0."""
RULES: Final = Rules()
Texts = tuple[str, str, str]
"""A prompt, the better answer, the worse one."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """What a crowd says of the last epoch's pairs; whether the better answer is named, and how surely."""

    majority: list[bool]
    labels: list[PairResult]

    @property
    def right(self) -> tuple[float, float]:
        """Shares of the majority's and of the score's labels that are right."""
        return mean(self.majority), mean(p.label > 0 for p in self.labels)


def crowd(seed: int, spam: float, adversaries: float) -> Crowd:
    """Let a crowd judge EPOCHS epochs of LEARNED pairs; in each, the first response is the better one."""
    draw = random.Random(f"crowd {seed}")
    honest = [draw.uniform(0.64, 1.0) for _ in range(WALLETS)]
    liars, clickers = round(adversaries * WALLETS), round(spam * WALLETS)
    skill = [1 - a for a in honest[:liars]] + [0.5] * clickers + honest[liars + clickers :]
    states = [WalletState()] * WALLETS
    for epoch in range(EPOCHS):
        share = RULES.gold_ppm if epoch < RULES.gold_epochs else RULES.gold_floor_ppm
        pairs = [Pair(int(n < LEARNED * share // ONE), 0, 0) for n in range(LEARNED)]
        asked = [(pair, w) for pair in range(LEARNED) for w in draw.sample(range(WALLETS), JUDGES)]
        rows = [
            Row(j, w, pair, 1 if draw.random() < skill[w] else -1, 6) for j, (pair, w) in enumerate(asked)
        ]
        found = score(Rows.of(rows), Pairs.of(pairs), states, RULES.params)
        states = [w.state for w in found.wallets]
    votes = [sum(row.x for row in rows[JUDGES * n : JUDGES * (n + 1)]) for n in range(LEARNED)]
    return Crowd([v > 0 for v in votes], list(found.pairs))


def texts_of(language: LanguageModel, prompts: Sequence[str], count: int, seed: int) -> list[Texts]:
    """Return pairs of answers of which gold likes one better, the better first."""
    found = []
    for prompt, texts in zip(
        prompts, answer(language, prompts, samples=4 * PER_PROMPT, temperature=1.0, seed=seed), strict=True
    ):
        pairs = [
            sorted(both, key=lambda text: -gold.score(prompt, text))
            for both in zip(texts[::2], texts[1::2], strict=True)
        ]
        clear = [(prompt, a, b) for a, b in pairs if gold.score(prompt, a) > gold.score(prompt, b)]
        found += clear[:PER_PROMPT]
    if len(found) < count:
        raise SystemExit(f"only {len(found)} of {count} pairs have a better answer: ask more prompts")
    return found[:count]


def accuracy(
    language: LanguageModel,
    learned: Sequence[Comparison],
    measured: Sequence[Texts],
    seed: int,
    margin: float = 0.0,
) -> float:
    """Train a reward model and return the share of clean pairs that it orders right."""
    judge = reward.train(replace(Config().reward, margin=margin), language, learned, seed, silent)
    prompts = [prompt for prompt, _, _ in measured]
    better, worse = (
        reward.score_texts(judge, language, prompts, [pair[side] for pair in measured]) for side in (1, 2)
    )
    return float((better > worse).float().mean())


def comparison(pair: Texts, *, right: bool, confidence_ppm: int) -> Comparison:
    prompt, better, worse = pair
    return Comparison(
        prompt, better if right else worse, worse if right else better, confidence_ppm, JUDGES, EPOCHS
    )


def plain(pairs: Sequence[Texts], rights: Sequence[bool]) -> list[Comparison]:
    """Return labels that all count the same."""
    return [comparison(p, right=r, confidence_ppm=ONE) for p, r in zip(pairs, rights, strict=True)]


def weighed(pairs: Sequence[Texts], labels: Sequence[PairResult]) -> list[Comparison]:
    """Return labels with their confidence, as an epoch's preference lines have them."""
    return [
        comparison(p, right=known.label > 0, confidence_ppm=known.confidence)
        for p, known in zip(pairs, labels, strict=True)
        if known.label
    ]


def measure(seed: int, folder: Path) -> dict[str, float]:
    """Return the accuracies of one seed."""
    registry = Registry(folder / "models")
    run.bootstrap(run.Run(registry, "sft-0", seed, Config(), 0, silent))
    language = model.load(registry.path("sft-0") / "model")
    prompts = corpus.prompts(seed, len(corpus.every_prompt()))
    border = LEARNED // PER_PROMPT + 50
    learned = texts_of(language, prompts[:border], LEARNED, seed)
    measured = texts_of(language, prompts[border:], MEASURED, seed + 1)
    found = {"clean": accuracy(language, plain(learned, [True] * LEARNED), measured, seed)}
    for name, shares in (("hostile", HOSTILE), ("honest", (0.0, 0.0))):
        said = crowd(seed, *shares)
        found[f"{name} majority"] = accuracy(language, plain(learned, said.majority), measured, seed)
        rows = weighed(learned, said.labels)
        found[f"{name} weighed"] = accuracy(language, rows, measured, seed)
        for margin in MARGINS:
            found[f"{name} weighed, margin {margin}"] = accuracy(language, rows, measured, seed, margin)
        found[f"{name} labels right, majority"], found[f"{name} labels right, weighed"] = said.right
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    warnings.simplefilter("ignore")
    found = []
    for seed in parser.parse_args().seeds:
        with tempfile.TemporaryDirectory(prefix="haptic-bench-") as folder:
            found.append(measure(seed, Path(folder)))
        print(f"seed {seed}: " + ", ".join(f"{name} {x:.3f}" for name, x in found[-1].items()), flush=True)
    gained = [100 * (x["hostile weighed"] - x["hostile majority"]) for x in found]
    cost = [100 * (x["clean"] - x["hostile majority"]) for x in found]
    lost = [100 * (x["honest majority"] - x["honest weighed"]) for x in found]
    won_back = mean(gained) / mean(cost)
    print()
    for words, points in (
        ("what noise costs at 30 % spam and 10 % adversaries", cost),
        ("what weighting wins there", gained),
        ("what weighting costs on an honest crowd", lost),
    ):
        spread = f" ± {stdev(points):.1f}" if len(points) > 1 else ""
        print(f"{words}: {mean(points):+.1f}{spread} points ({', '.join(f'{p:+.1f}' for p in points)})")
    for margin in MARGINS:
        for name in ("hostile", "honest"):
            points = [100 * (x[f"{name} weighed, margin {margin}"] - x[f"{name} weighed"]) for x in found]
            print(f"what a margin of {margin} wins, {name} crowd: {mean(points):+.1f} points", end="")
            print(f" ({', '.join(f'{p:+.1f}' for p in points)})")
    shares = ", ".join(f"{g / c:.0%}" for g, c in zip(gained, cost, strict=True))
    print(f"share won back: {won_back:.0%} of the means, by seed {shares}")
    bars: Final = {
        "weighting wins at least 3 points, on the mean": mean(gained) >= 3,
        "weighting wins back at least 60 % of what noise cost, on the mean": won_back >= 0.6,
        "on an honest crowd it costs at most 0.5 points, on the mean": mean(lost) <= 0.5,
    }
    hold(bars)


if __name__ == "__main__":
    main()
