"""Models of a thousandth of a second: what the trainer's tests share, each made once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer import corpus, pretrain, reward, sft
from trainer.config import Config, GrpoConfig, ModelConfig, PpoConfig, PretrainConfig, RlooConfig, SftConfig
from trainer.method import Given
from trainer.model import LanguageModel, Scorer, scorer
from trainer.overrides import override
from trainer.preferences import Comparison
from trainer.progress import silent
from trainer.registry import Registry
from trainer.run import Run

torch.set_num_threads(1)  # what else runs on this machine would make two wait for each other

SHAPE = ModelConfig(vocabulary=400, width=16, layers=1, heads=2, prompt_tokens=32, answer_tokens=24)
PROMPTS = corpus.prompts(0, 32)
PPO = PpoConfig(steps=2, episodes=16, minibatch=8, learning_rate=5e-3)
GRPO = GrpoConfig(steps=2, episodes=16, minibatch=8, group=4, learning_rate=5e-3)
RLOO = RlooConfig(steps=2, episodes=16, minibatch=8, group=4, learning_rate=5e-3)

TINY = {
    "model": {"width": 16, "layers": 1, "heads": 2, "vocabulary": 320, "answer_tokens": 12},
    "pretrain": {"documents": 60, "steps": 2, "batch": 2, "block": 16},
    "sft": {"demonstrations": 40, "steps": 2, "batch": 2},
    "reward": {"epochs": 1, "batch": 8, "normalising_samples": 8},
    "ppo": {"steps": 2, "episodes": 8, "minibatch": 4},
    "evaluate": {"prompts": 8, "texts": 20},
    "checkpoint_s": 0,
}
"""Overrides for a whole run in a second."""


@cache
def base() -> LanguageModel:
    texts = corpus.documents(0, 100)
    return pretrain.train(PretrainConfig(steps=30, batch=8, block=32), SHAPE, texts, 0, silent)


@cache
def tuned() -> LanguageModel:
    shown = corpus.demonstrations(0, 200)
    return sft.train(SftConfig(steps=60, batch=16, learning_rate=1e-2), base(), shown, 1, silent)


def judge() -> Scorer:
    language = tuned()  # made first, as it would move the seed
    torch.manual_seed(3)
    model = scorer(language)
    reward.normalise(model, tuned(), PROMPTS, 64, 5)
    return model


def given() -> Given:
    return Given(parent=tuned(), reference=tuned(), reward=judge(), prompts=PROMPTS)


def weights(network: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in network.state_dict().values()]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def small(folder: Path, *, name: str = "sft-0", **changes: object) -> Run:
    return Run(Registry(folder / "models"), name, 0, override(Config(), TINY | changes), 1, silent)


def labelled(confidence_ppm: int, *, turned: bool = False) -> list[Comparison]:
    words = ("awful", "superb") if turned else ("superb", "awful")
    return [
        Comparison(p, f"It was {words[0]}.", f"It was {words[1]}.", confidence_ppm, 1, 0) for p in PROMPTS
    ]
