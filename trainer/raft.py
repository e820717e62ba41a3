"""RAFT (Dong et al. 2023): in rounds, draw several answers, keep the best by reward, and fine-tune on those."""

from __future__ import annotations

import torch

from trainer import processes, sft
from trainer.best_of_n import best_of_n
from trainer.checkpoint import NOTHING, Keep, Parts
from trainer.config import RaftConfig
from trainer.method import Given, Outcome
from trainer.model import clone
from trainer.progress import Progress, Report, silent
from trainer.reward import score
from trainer.sequences import encode_prompt


def train(config: RaftConfig, given: Given, seed: int, report: Report, keep: Keep = NOTHING) -> Outcome:
    """Fine-tune a copy of the parent on the best of its own answers, again and again.

    Raises:
        DivergenceError: a loss is no longer a number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    policy = clone(given.parent, config)
    encoded = [encode_prompt(policy, prompt) for prompt in given.prompts]
    parts: Parts = {"policy": policy.network, "generator": generator}
    begun = keep.load(parts, step=0, metrics={})
    metrics: dict[str, float] = begun["metrics"]
    for done in range(begun["step"] + 1, config.rounds + 1):
        drawn = torch.randperm(len(encoded), generator=generator)[: config.prompts].tolist()
        share, counts = processes.share(len(drawn))
        prompts = [encoded[drawn[row]] for row in share.tolist()]
        samples, best = best_of_n(
            policy, given.reward, prompts, config.samples,
            temperature=config.temperature, generator=processes.own(generator),
        )  # fmt: skip
        kept, mine = samples.batch.rows(best), int(counts.sum())
        pairs = [
            (prompt, row[: int(length)])
            for prompt, row, length in zip(
                prompts, kept.answers.tolist(), kept.answer_mask.sum(dim=1).tolist(), strict=True
            )
        ]
        scores = score(given.reward, samples.batch).view(len(prompts), -1)
        found = processes.gathered((pairs[:mine], scores[:mine], score(given.reward, kept)[:mine]))
        pairs = [pair for pairs, _, _ in found for pair in pairs]
        loss = sft.fit(
            policy, pairs, config.steps, config.batch, config.learning_rate, generator, silent, stage="raft"
        )
        metrics = {
            "loss": loss,
            "reward": torch.cat([scores for _, scores, _ in found]).mean().item(),
            "reward_kept": torch.cat([scores for _, _, scores in found]).mean().item(),
        }
        report(Progress("raft", done, config.rounds, metrics))
        keep.save(parts, done, config.rounds, metrics=metrics)
    return Outcome(policy, metrics)
