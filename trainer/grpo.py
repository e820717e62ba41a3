"""GRPO (Shao et al. 2024) by trl: an answer counts by how far its reward is from the mean of its group's."""

from __future__ import annotations

from trainer import by_trl
from trainer.checkpoint import NOTHING, Keep
from trainer.config import GrpoConfig
from trainer.method import Given, Outcome
from trainer.progress import Report


def train(config: GrpoConfig, given: Given, seed: int, report: Report, keep: Keep = NOTHING) -> Outcome:
    """Improve a copy of the parent on the reward, held to the parent by a KL penalty in the loss.

    Raises:
        ConfigError: trl is not installed, or rollouts cannot be cut into minibatches and groups.
        DivergenceError: a gradient is no longer a number.
    """
    settings = {"beta": config.beta, "scale_rewards": config.reward_scale}
    return by_trl.train("grpo", config, settings, given, seed, report, keep)
