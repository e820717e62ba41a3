"""Haptic's trainer against trl, from the same weights on the same data: `python -m tests.bench.trl`.

Reward model against trl 1.16's RewardTrainer, PPO against trl 1.12's PPOTrainer (the last release with one), both in
an environment of their own (`make .trl/.installed`) with the same torch. CPU seconds of one thread, without loading
and the first steps; trl's garbage collections are left out, as at this size they are most of its time. It ends with
an error where a bar does not hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

import torch
import transformers
from transformers import LlamaConfig, LlamaForSequenceClassification

from tests.bench.bars import hold
from trainer import corpus, gold, model, ppo, pretrain, reward, sft, simulate
from trainer.answer import answer
from trainer.config import ModelConfig, PpoConfig, PretrainConfig, RewardConfig, SftConfig
from trainer.method import Given
from trainer.model import LanguageModel, Scorer, scorer
from trainer.preferences import ONE_PPM, Comparison
from trainer.progress import Progress, silent
from trainer.reward import LOG_EVERY
from trainer.sampler import sample
from trainer.sequences import encode_answer, encode_prompt

ROOT: Final = Path(__file__).parents[2]
PEER: Final = ROOT / ".trl"
COMPARISONS, EPISODES, TOKENS, UPDATES, WARM_UP = 800, 32, 16, 24, 4
PPO: Final = PpoConfig(
    steps=UPDATES, episodes=EPISODES, minibatch=16, learning_rate=1e-6, critic_learning_rate=1e-6, kl_budget=1e9,
    unfinished_reward=0.0,
)  # fmt: skip
"""Steps so small that answers stay as long as they are: the time of an update is asked for, not its worth."""


Bars = dict[str, bool]
"""Whether each holds."""


def peer(what: str, folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Run trl on a task and return what it says."""
    (folder / f"{what}.json").write_text(json.dumps(task), encoding="utf-8")
    environ = os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"}
    environ["PYTHONPATH"] = str(PEER / "ppo") if what == "ppo" else ""
    done = subprocess.run(
        [PEER / "bin" / "python", "-W", "ignore", ROOT / "tests" / "oracles" / "trl_time.py", what, folder],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"trl ended with an error:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def save_scalar(judge: Scorer, folder: Path) -> None:
    """Write a reward model as transformers keeps one; its head's bias is 0 and stays so in both."""
    config = LlamaConfig(**(judge.trunk.config.to_dict() | {"num_labels": 1}))
    theirs = LlamaForSequenceClassification(config)
    theirs.model.load_state_dict(judge.trunk.state_dict())
    theirs.score.weight.data.copy_(judge.head.weight.data)
    theirs.save_pretrained(folder)


def tuned() -> LanguageModel:
    """Return a tiny language model that answers."""
    base = pretrain.train(PretrainConfig(steps=150), ModelConfig(), corpus.documents(0, 2000), 0, silent)
    return sft.train(SftConfig(steps=150), base, corpus.demonstrations(0, 800), 1, silent)


def untrained(like: LanguageModel) -> LanguageModel:
    """Return a language model of the same shape that hardly ever ends an answer."""
    torch.manual_seed(0)
    return model.build(replace(like.limits, answer_tokens=TOKENS), like.tokenizer)


def reward_rate(language: LanguageModel, rows: Sequence[Comparison]) -> tuple[float, Scorer]:
    """Train our reward model and return its pairs per second."""
    config, at = RewardConfig(), []

    def clock(progress: Progress) -> None:
        at.append((progress.step, time.process_time()))

    judge = reward.train(config, language, rows, 0, clock)
    (first, began), (last, ended) = at[0], at[-1]
    return (last - first) * config.batch / (ended - began), judge


def peer_rate(
    language: LanguageModel, rows: Sequence[Comparison], held_out: Sequence[Comparison]
) -> tuple[float, float]:
    """Train trl's reward model and return its pairs per second and its accuracy."""
    config = RewardConfig()
    names = ("batch", "epochs", "learning_rate", "weight_decay")
    task: dict[str, Any] = {name: getattr(config, name) for name in names}
    task |= {"train": [_ids(language, row) for row in rows]}
    task |= {"held_out": [_ids(language, row) for row in held_out]}
    with tempfile.TemporaryDirectory(prefix="haptic-bench-") as folder:
        model.save(language, Path(folder) / "policy")
        torch.manual_seed(0)
        save_scalar(scorer(language), Path(folder) / "scalar")
        found = peer("reward", Path(folder), task)
    at = found["at"]
    return (len(at) - LOG_EVERY) * config.batch / (at[-1] - at[LOG_EVERY - 1]), found["accuracy"]


def reward_bars(language: LanguageModel) -> Bars:
    """Train the same reward model on the same comparisons by both, and return the bars."""
    rows = simulate.comparisons([language], COMPARISONS, per_prompt=4, epoch=1, seed=0)
    rows = [replace(row, confidence_ppm=ONE_PPM) for row in rows]  # trl has no weights
    held_out = [_by_gold(row) for row in simulate.comparisons([language], 640, per_prompt=1, epoch=2, seed=0)]
    ours, judge = reward_rate(language, rows)
    theirs, their_accuracy = peer_rate(language, rows, held_out)
    prompts = [row.prompt for row in held_out]
    chosen, rejected = (
        reward.score_texts(judge, language, prompts, answers)
        for answers in ([row.chosen for row in held_out], [row.rejected for row in held_out])
    )
    accuracy = (chosen > rejected).float().mean().item()
    print(f"reward model           {ours:6.0f} pairs/s, accuracy {accuracy:.3f}", end="")
    print(f"   trl {theirs:6.0f} pairs/s, accuracy {their_accuracy:.3f}   {ours / theirs:.2f}x")
    return {
        "the reward model trains at least as fast as trl's": ours >= theirs,
        "its accuracy is within .03 of trl's": accuracy >= their_accuracy - 0.03,
    }


def ranking_bars(language: LanguageModel) -> Bars:
    """Train on rankings of four, whose answers are encoded once, and on the same pairs as if each stood alone."""
    together, alone = rankings(language, apart=False), rankings(language, apart=True)
    (ours, _), (single, _) = reward_rate(language, together), reward_rate(language, alone)
    theirs, _ = peer_rate(language, together, together[:20])
    print(f"the same, rankings of 4 {ours:5.0f} pairs/s, as single pairs {single:.0f}", end="")
    print(f"   trl {theirs:6.0f} pairs/s   {ours / theirs:.2f}x, {ours / single:.2f}x of single pairs")
    return {"rankings of 4 train 1.3 times as fast as their pairs": ours >= 1.3 * single}


def rankings(language: LanguageModel, *, apart: bool) -> list[Comparison]:
    """Return the pairs of rankings of four by gold; apart, no two are of one prompt, and nothing else differs."""
    prompts, rows = corpus.prompts(0, COMPARISONS // 6), []
    for prompt, answers in zip(
        prompts, answer(language, prompts, samples=4, temperature=1.0, seed=0), strict=True
    ):
        best = sorted(set(answers), key=lambda text: -gold.score(prompt, text))
        for number, (chosen, rejected) in enumerate(combinations(best, 2)):
            mark = "abcdef"[number if apart else 0]
            rows.append(Comparison(f"{prompt} {mark}", chosen, rejected, ONE_PPM, 1, 1))
    return rows


def _by_gold(row: Comparison) -> Comparison:
    """Return a comparison with the better answer first, whatever its judge said."""
    if gold.score(row.prompt, row.chosen) >= gold.score(row.prompt, row.rejected):
        return row
    return replace(row, chosen=row.rejected, rejected=row.chosen)


def _ids(language: LanguageModel, row: Comparison) -> dict[str, list[int]]:
    prompt = encode_prompt(language, row.prompt)
    return {
        f"{side}_ids": prompt + encode_answer(language, getattr(row, side)) for side in ("chosen", "rejected")
    }


def ppo_bars(language: LanguageModel) -> Bars:
    """Run the same PPO by both, and return the bars."""
    torch.manual_seed(0)
    judge = scorer(language)
    at, generation_s, lengths = [], [], []

    def clock(progress: Progress) -> None:
        at.append(time.process_time())
        lengths.append(progress.metrics["length"])

    def timed(*args: Any, **named: Any) -> Any:
        began = time.process_time()
        found = sample(*args, **named)
        generation_s.append(time.process_time() - began)
        return found

    prompts = corpus.prompts(0, 128)
    ppo.sample = timed  # type: ignore[assignment]
    ppo.train(PPO, Given(parent=language, reference=language, reward=judge, prompts=prompts), 0, clock)
    ppo.sample = sample
    task = {
        "episodes": EPISODES, "minibatch": PPO.minibatch, "epochs": PPO.epochs, "updates": UPDATES,
        "tokens": TOKENS, "learning_rate": PPO.learning_rate,
        "prompts": [encode_prompt(language, prompt) for prompt in prompts],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="haptic-bench-") as folder:
        model.save(language, Path(folder) / "policy")
        save_scalar(judge, Path(folder) / "scalar")
        theirs = peer("ppo", Path(folder), task)
    mine, other = _update_s(at), _update_s(theirs["at"])
    for name, took, generation, length in (
        ("PPO", mine, generation_s, lengths),
        ("trl", other, theirs["generation_s"], theirs["lengths"]),
    ):
        print(
            f"{name:<4} {1000 * took:6.0f} ms per update of {EPISODES} x {mean(length):.1f} tokens,", end=""
        )
        print(f" {EPISODES / took:5.0f} episodes/s, {median(generation[WARM_UP:]) / took:.0%} in generation")
    print(f"PPO takes {mine / other:.2f} of trl's time")
    return {
        "an update of PPO takes no longer than trl's": mine <= other,
        "PPO makes at least 150 episodes per CPU second": EPISODES / mine >= 150,
    }


def _update_s(at: Sequence[float]) -> float:
    """Return the median CPU seconds between the ends of updates, the first ones left out."""
    return median(b - a for a, b in zip(at[WARM_UP:], at[WARM_UP + 1 :], strict=False))


def main() -> None:
    """Make a model, let both train it, print a line each."""
    if not (PEER / ".installed").exists():
        print("nothing to compare with, as trl is not installed: make .trl/.installed (a minute, 1.5 GB)")
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    language = tuned()
    hold(reward_bars(language) | ranking_bars(language) | ppo_bars(untrained(language)))


if __name__ == "__main__":
    main()
