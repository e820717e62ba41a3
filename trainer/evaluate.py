"""Stage 5: what a new policy is worth, on prompts that nothing was trained on, each share with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer import corpus, gold, losses, pretrain
from trainer.answer import answer
from trainer.best_of_n import best_of_n, kl_bound
from trainer.config import EvaluateConfig
from trainer.model import Judge, LanguageModel
from trainer.preferences import Comparison
from trainer.progress import Progress, Report
from trainer.rating import Z_95
from trainer.reward import score_texts
from trainer.sequences import answer_logits, decode, encode_answer, encode_prompt, pad, parts, rows_at_once


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


def evaluate(
    config: EvaluateConfig,
    models: Models,
    held_out: Sequence[Comparison],
    trained: Sequence[str],
    seed: int,
    report: Report,
) -> dict[str, float]:
    """Measure the reward model on held-out comparisons and the policy on prompts that are not among `trained`.

    Returns:
        Metrics by name; `x_low` and `x_high` are the 95 % Wilson interval of the share `x`.
    """
    metrics = pair_accuracy(models, held_out)
    prompts = unseen_prompts(trained, held_out, config.prompts, seed)
    texts = {
        name: _one_each(model, prompts, config.temperature, seed)
        for name, model in (("policy", models.policy), ("parent", models.parent), ("sft", models.reference))
    }
    if models.best_of > 1:
        texts["policy"] = _best_each(models, prompts, config.temperature, seed)
    golds = {name: [gold.score(p, t) for p, t in zip(prompts, texts[name], strict=True)] for name in texts}
    for rival in ("sft", "parent"):
        metrics |= win_rate(golds["policy"], golds[rival], f"win_rate_{rival}")
        metrics[f"gold_{rival}"] = _mean(golds[rival])
    metrics["gold_policy"] = _mean(golds["policy"])
    metrics["repetition"] = _mean([gold.repetition(text) for text in texts["policy"]])
    metrics["distinct"] = len(set(texts["policy"])) / len(prompts)
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
    return metrics


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


def pair_accuracy(models: Models, held_out: Sequence[Comparison]) -> dict[str, float]:
    """Return the share of held-out comparisons that the reward model orders as people did."""
    prompts = [row.prompt for row in held_out]
    chosen = score_texts(models.reward, models.policy, prompts, [row.chosen for row in held_out])
    rejected = score_texts(models.reward, models.policy, prompts, [row.rejected for row in held_out])
    right = float((chosen > rejected).sum() + 0.5 * (chosen == rejected).sum())
    return _share(right, len(held_out), "reward_accuracy")


def win_rate(ours: Sequence[float], theirs: Sequence[float], name: str) -> dict[str, float]:
    """Return the share of prompts on which our gold reward is higher, ties as half."""
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(ours, theirs, strict=True))
    return _share(wins, len(ours), name)


@torch.no_grad()
def mean_kl(
    policy: LanguageModel, reference: LanguageModel, prompts: Sequence[str], answers: Sequence[str]
) -> float:
    """Return KL(policy, reference) in nats per answer, exact at each token along the policy's own answers."""
    batch = pad([encode_prompt(policy, p) for p in prompts], [encode_answer(policy, a) for a in answers])
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


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); (0, 1) where nothing was observed."""
    if n == 0:
        return 0.0, 1.0
    share, spread = successes / n, Z_95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return centre - half, centre + half


def _share(successes: float, n: int, name: str) -> dict[str, float]:
    low, high = wilson(successes, n)
    return {name: successes / max(n, 1), f"{name}_low": low, f"{name}_high": high, f"{name}_n": float(n)}


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
    return [decode(models.policy, row) for row in samples.batch.answers[best].tolist()]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / max(len(numbers), 1)
