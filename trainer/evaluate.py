"""Stage 5: what a new policy is worth, on prompts that nothing was trained on, each share with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer import corpus, duel, gold, losses, pretrain, reward_report
from trainer.answer import answer
from trainer.best_of_n import best_of_n, kl_bound
from trainer.config import EvaluateConfig
from trainer.model import Judge, LanguageModel
from trainer.preferences import Comparison
from trainer.progress import Progress, Report
from trainer.reward import score, score_texts
from trainer.reward_report import Pair
from trainer.sequences import (
    answer_logits,
    answer_texts,
    encode_answer,
    encode_prompt,
    pad,
    parts,
    rows_at_once,
)


@dataclass(frozen=True, slots=True)
class Models:
    """Who is compared."""

    policy: LanguageModel
    """The new one."""
    parent: LanguageModel
    """The one it started from."""
    reference: LanguageModel
    """The supervised model that KL is measured from."""
    reward: Judge
    """The reward model that taught it."""
    best_of: int = 1
    """Answers that the policy draws to each prompt, of which the reward model picks one."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured."""

    metrics: dict[str, float]
    """By name; `x_low` and `x_high` are the 95 % Wilson interval of the share `x`, over `x_n`."""
    reliability: list[dict[str, Any]]
    """Bins of the reward model's calibration, as `reward_report.Bin`."""
    prompts: list[str]
    """What was asked."""


def evaluate(
    config: EvaluateConfig,
    models: Models,
    held_out: Sequence[Comparison],
    trained: Sequence[str],
    seed: int,
    report: Report,
) -> Evaluation:
    """Measure the reward model on held-out comparisons and the policy on prompts that are not among `trained`."""
    pairs = judged(models, held_out)
    metrics = reward_report.metrics(pairs)
    prompts = unseen_prompts(trained, held_out, config.prompts, seed)
    texts = {
        name: _one_each(model, prompts, config.temperature, seed)
        for name, model in (("policy", models.policy), ("parent", models.parent), ("sft", models.reference))
    }
    if models.best_of > 1:
        texts["policy"] = _best_each(models, prompts, config.temperature, seed)
    golds = {name: [gold.score(p, t) for p, t in zip(prompts, texts[name], strict=True)] for name in texts}
    for rival in ("sft", "parent"):
        metrics |= duel.win_rate(duel.by_gold, prompts, texts["policy"], texts[rival], f"win_rate_{rival}")
        metrics[f"gold_{rival}"] = _mean(golds[rival])
    metrics["gold_policy"] = _mean(golds["policy"])
    metrics["repetition"] = _mean([gold.repetition(text) for text in texts["policy"]])
    metrics["distinct"] = len(set(texts["policy"])) / len(prompts)
    for name in ("policy", "sft"):
        metrics |= {f"distinct_{n}_{name}": distinct(texts[name], n) for n in (1, 2)}
    metrics["length_words"] = _mean([len(text.split()) for text in texts["policy"]])
    metrics["length_words_sft"] = _mean([len(text.split()) for text in texts["sft"]])
    metrics["reward_policy"] = (
        score_texts(models.reward, models.policy, prompts, texts["policy"]).mean().item()
    )
    metrics["reward_sft"] = score_texts(models.reward, models.policy, prompts, texts["sft"]).mean().item()
    metrics["kl"] = mean_kl(models.policy, models.reference, prompts, texts["policy"])
    if models.best_of > 1:
        metrics["kl"] = kl_bound(models.best_of)
    metrics |= text_losses(models, corpus.documents(seed, config.texts), seed)
    report(Progress("evaluate", 1, 1, metrics))
    return Evaluation(metrics, reward_report.table(pairs), prompts)


@torch.no_grad()
def text_losses(models: Models, texts: Sequence[str], seed: int) -> dict[str, float]:
    """Return the mean loss of next tokens on plain text, of the policy and of the reference: what was unlearned."""
    found = {}
    for name, language in (("policy", models.policy), ("sft", models.reference)):
        generator = torch.Generator().manual_seed(seed)
        blocks = pretrain.blocks(pretrain.encode(language, texts), 64, 48, generator)
        split = torch.split(blocks, rows_at_once(language, blocks.shape[1]))
        losses_of = [pretrain.text_loss(language, part).item() * len(part) for part in split]
        found[f"text_loss_{name}"] = sum(losses_of) / len(blocks)
    return found


@torch.no_grad()
def judged(models: Models, held_out: Sequence[Comparison]) -> list[Pair]:
    """Return held-out comparisons as the reward model sees them.

    Odds are the members' own, mean over them: what normalising divided by is multiplied back, as the Bradley-Terry
    loss that they learned by knows no scale but its own.
    """
    prompts = [encode_prompt(models.policy, row.prompt) for row in held_out]
    sides = [
        pad(prompts, [encode_answer(models.policy, text) for text in texts])
        for texts in ([row.chosen for row in held_out], [row.rejected for row in held_out])
    ]
    chosen, rejected = (score(models.reward, side).tolist() for side in sides)
    members = models.reward.scorers
    odds = [member.scale * (score(member, sides[0]) - score(member, sides[1])) for member in members]
    return [
        Pair(log_odds, (good, bad), (len(row.chosen.split()), len(row.rejected.split())))
        for log_odds, good, bad, row in zip(
            torch.stack(odds).mean(dim=0).tolist(), chosen, rejected, held_out, strict=True
        )
    ]


def distinct(texts: Sequence[str], n: int) -> float:
    """Return the share of runs of n words that are different, over all texts (Li et al. 2016); 0 where there is none."""
    runs = [tuple(words[i : i + n]) for words in map(str.split, texts) for i in range(len(words) - n + 1)]
    return len(set(runs)) / max(len(runs), 1)


@torch.no_grad()
def mean_kl(
    policy: LanguageModel, reference: LanguageModel, prompts: Sequence[str], answers: Sequence[str]
) -> float:
    """Return KL(policy, reference) in nats per answer, exact at each token along the policy's own answers."""
    batch = pad([encode_prompt(policy, p) for p in prompts], [encode_answer(policy, a) for a in answers])
    batch = batch.to(policy.device)
    sums = [
        (losses.kl_exact(answer_logits(policy, part), answer_logits(reference, part)) * part.answer_mask).sum(
            dim=1
        )
        for part in parts(policy, batch)
    ]
    return float(torch.cat(sums).mean())


def unseen_prompts(trained: Sequence[str], held_out: Sequence[Comparison], n: int, seed: int) -> list[str]:
    """Return up to n prompts that were not trained on: the held-out ones first, then the devnet's grammar."""
    known = set(trained)
    grammar = corpus.prompts(seed, len(corpus.every_prompt()))
    candidates = dict.fromkeys([row.prompt for row in held_out] + grammar)
    return [prompt for prompt in candidates if prompt not in known][:n]


def _one_each(language: LanguageModel, prompts: Sequence[str], temperature: float, seed: int) -> list[str]:
    """Return one answer to each prompt, drawn as the arena draws them."""
    return [texts[0] for texts in answer(language, prompts, samples=1, temperature=temperature, seed=seed)]


def _best_each(models: Models, prompts: Sequence[str], temperature: float, seed: int) -> list[str]:
    """Return the answer to each prompt that the reward model likes best."""
    generator = torch.Generator().manual_seed(seed)
    encoded = [encode_prompt(models.policy, prompt) for prompt in prompts]
    samples, best = best_of_n(
        models.policy, models.reward, encoded, models.best_of, temperature=temperature, generator=generator
    )
    return answer_texts(models.policy, samples.batch.rows(best))


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / max(len(numbers), 1)
