"""Every stage of training on a toy, by as many processes as are launched: `torchrun … -m tests.together out ddp`.

The first process writes what came of it: each stage's progress and final weights, and whether all processes hold the
same ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.toys import PPO, PROMPTS, SHAPE, labelled, weights
from trainer import corpus, dpo, ppo, pretrain, processes, raft, reward, run, sft
from trainer.config import (
    Config,
    DpoConfig,
    HardwareConfig,
    PretrainConfig,
    RaftConfig,
    RewardConfig,
    SftConfig,
)
from trainer.losses import kl_k1
from trainer.method import Given
from trainer.model import build, scorer, train_tokenizer
from trainer.progress import Progress, leave, silent
from trainer.sampler import sample
from trainer.sequences import answer_logprobs, encode_prompt

PRETRAIN = PretrainConfig(steps=12, batch=5, block=32)
SFT = SftConfig(steps=20, batch=7, learning_rate=1e-2)
REWARD = RewardConfig(epochs=2, batch=7)
DPO = DpoConfig(epochs=2, batch=7)
RAFT = RaftConfig(rounds=2, prompts=9, samples=3, steps=4, batch=5)
ROWS = labelled(900_000) + labelled(700_000, turned=True)[:18]
"""50 comparisons: the last batch of seven has one, of which the second process has none."""


def main(out: Path, parallel: str) -> None:
    """Train each stage and write what came of it."""
    run.prepare(_config(parallel))
    found: dict[str, object] = {}

    def noted(stage: str, train: Callable[[Callable[[Progress], None]], nn.Module]) -> nn.Module:
        log: list[float] = []
        network = train(lambda progress: log.extend(progress.metrics.values()))
        state = weights(network)
        alike = all(_same(state, other) for other in processes.gathered(state))
        found[stage] = {"log": log, "weights": state, "alike": alike}
        return network

    pretrain.LOG_EVERY = sft.LOG_EVERY = reward.LOG_EVERY = dpo.LOG_EVERY = 1
    texts, shown = corpus.documents(0, 100), corpus.demonstrations(0, 100)
    base = pretrain.train(PRETRAIN, SHAPE, texts, 0, silent)
    noted("pretrain", lambda report: pretrain.train(PRETRAIN, SHAPE, texts, 0, report).network)
    tuned = sft.train(SFT, base, shown, 1, silent)
    noted("sft", lambda report: sft.train(SFT, base, shown, 1, report).network)
    noted("sft-lora", lambda report: sft.train(replace(SFT, lora_rank=2), base, shown, 1, report).network)
    noted("sft-packed", lambda report: sft.train(replace(SFT, packing=80), base, shown, 1, report).network)
    judge = reward.train(REWARD, tuned, ROWS, 2, silent)
    noted("reward", lambda report: reward.train(REWARD, tuned, ROWS, 2, report))
    reward.normalise(judge, tuned, PROMPTS, 16, 5)
    given = Given(tuned, tuned, judge, PROMPTS, ROWS, texts)
    noted("dpo", lambda report: dpo.train(DPO, given, 3, report).policy.network)
    run.prepare(_config(parallel, precision="bfloat16", gradient_checkpointing=True))
    noted("half", lambda report: sft.train(SFT, base, shown, 1, report).network)
    run.prepare(_config(parallel))
    noted("ppo-update", lambda _report: _update(texts))
    noted("ppo", lambda report: ppo.train(replace(PPO, episodes=15), given, 4, report).policy.network)
    noted("raft", lambda report: raft.train(RAFT, given, 5, report).policy.network)
    found["draws"] = [float(torch.rand((), generator=g)) for g in _generators()]
    if not processes.place():
        torch.save(found, out)


def _config(parallel: str, **hardware: object) -> Config:
    return Config(hardware=HardwareConfig(parallel=parallel, **hardware))  # type: ignore[arg-type]


def _update(texts: list[str]) -> nn.Module:
    """Return policy and critic after an update, of text too; weights and episodes follow from the seed alone."""
    config = replace(PPO, minibatch=7, ptx_coefficient=0.1, ptx_batch=5, adam_epsilon=0.1)
    torch.manual_seed(6)
    fresh = build(SHAPE, train_tokenizer(texts, SHAPE.vocabulary))
    given = Given(fresh, fresh, scorer(fresh), PROMPTS, texts=texts)
    learner = ppo._learner(config, given)
    generator = torch.Generator().manual_seed(6)
    encoded = [encode_prompt(given.parent, prompt) for prompt in PROMPTS[:15]]
    batch = sample(given.parent, encoded, temperature=1.0, generator=generator).batch
    with torch.no_grad():
        logprobs = answer_logprobs(given.parent, batch)
        values = batch.before_answers(learner.critic(batch.tokens, batch.mask)) * batch.answer_mask
    rollout = ppo.Rollout(batch, logprobs, kl_k1(logprobs, logprobs), values, torch.randn(15), {})
    ppo._update(config, learner, rollout, ppo._text(config, given), 0.1, generator)
    critic = scorer(given.reference)
    processes.collect(learner.critic, critic)
    return nn.ModuleList([learner.answering().network, critic])


def _generators() -> list[torch.Generator]:
    """Return each process's own, from what all share."""
    mine = processes.own(torch.Generator().manual_seed(0)).get_state()
    return [torch.Generator().set_state(state) for state in processes.gathered(mine)]


def _same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
    leave(0)
