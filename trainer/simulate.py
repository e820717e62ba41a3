"""Comparisons by simulated judges of the gold reward, to try the trainer without a chain and without people."""

from __future__ import annotations

import random
from collections.abc import Sequence

from trainer import corpus, gold
from trainer.answer import answer
from trainer.model import LanguageModel
from trainer.preferences import ONE_PPM, Comparison

LEAST_CONFIDENCE = 0.64
"""Labels agree with gold with a probability drawn evenly between this and 1, so 82 % of them do."""
SPARE = 2
"""Answers that two models give for each comparison that is wanted: equal ones are not compared."""


def comparisons(
    models: Sequence[LanguageModel],
    n: int,
    *,
    per_prompt: int,
    epoch: int,
    seed: int,
    prompts: Sequence[str] | None = None,
) -> list[Comparison]:
    """Return n comparisons between answers of models, with noisy labels and honest confidences.

    Args:
        models: pair k is between two draws of models[k % len] and models[(k + 1) % len].
        n: how many.
        per_prompt: pairs on each prompt.
        epoch: recorded in each comparison; other epochs have other prompts first.
        seed: of prompts, answers and labels.
        prompts: what is asked, enough for n; the devnet's grammar is, by seed and epoch, if None.
    """
    draw = random.Random(f"judges {seed} {epoch}")  # noqa: S311 - noise, not a secret
    prompts = prompts or corpus.prompts(seed * 1009 + epoch, -(-n // per_prompt))
    answers = [
        answer(model, prompts, samples=2 * per_prompt, temperature=1.0, seed=seed * 1009 + epoch + 1 + number)
        for number, model in enumerate(models)
    ]
    rows = []
    for number in range(n):
        prompt, slot = number // per_prompt, number % per_prompt
        left = answers[number % len(models)][prompt][2 * slot]
        right = answers[(number + 1) % len(models)][prompt][2 * slot + 1]
        if left != right:
            rows.append(_judge(draw, prompts[prompt], left, right, epoch))
    return rows


def meet(
    candidate: LanguageModel, incumbent: LanguageModel, prompts: Sequence[str], n: int, *, seed: int
) -> tuple[int, int]:
    """Return how often the candidate's answer was judged better, and how often the incumbent's, in n comparisons.

    In fewer, where the two give the same answers. Every prompt is asked once before any is asked again.
    """
    each = -(-n * SPARE // len(prompts))
    ours, theirs = (
        answer(model, prompts, samples=each, temperature=1.0, seed=seed + number)
        for number, model in enumerate((candidate, incumbent))
    )
    drawn = [
        (prompt, mine[slot], its[slot])
        for slot in range(each)
        for prompt, mine, its in zip(prompts, ours, theirs, strict=True)
        if mine[slot] != its[slot]
    ]
    return judged(*zip(*drawn[:n], strict=True), seed=seed) if drawn else (0, 0)


def judged(
    prompts: Sequence[str], ours: Sequence[str], theirs: Sequence[str], *, seed: int
) -> tuple[int, int]:
    """Return how often our answer was judged better than theirs and how often worse; equal ones are not judged.

    The labels are as noisy as those of `comparisons`; the sides are drawn, for where gold is equal the left is better.
    """
    draw = random.Random(f"meeting {seed}")  # noqa: S311 - noise, not a secret
    found = []
    for prompt, mine, its in zip(prompts, ours, theirs, strict=True):
        if mine != its:
            sides = (mine, its) if draw.random() < 0.5 else (its, mine)
            found.append(_judge(draw, prompt, *sides, 0).chosen == mine)
    return sum(found), len(found) - sum(found)


def _judge(draw: random.Random, prompt: str, left: str, right: str, epoch: int) -> Comparison:
    """Label one pair: the better one by gold, with the confidence's probability."""
    better, worse = (left, right) if gold.score(prompt, left) >= gold.score(prompt, right) else (right, left)
    confidence = draw.uniform(LEAST_CONFIDENCE, 1.0)
    if draw.random() > confidence:
        better, worse = worse, better
    return Comparison(
        prompt=prompt,
        chosen=better,
        rejected=worse,
        confidence_ppm=round(confidence * ONE_PPM),
        judgements=1,
        epoch=epoch,
    )
