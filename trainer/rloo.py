"""RLOO (Ahmadian et al. 2024) by trl: REINFORCE, an answer counts by its lead over the mean of its group's others."""

from __future__ import annotations

from trainer import by_trl
from trainer.checkpoint import NOTHING, Keep
from trainer.config import RlooConfig
from trainer.method import Given, Outcome
from trainer.progress import Report


def train(config: RlooConfig, given: Given, seed: int, report: Report, keep: Keep = NOTHING) -> Outcome:
    """Improve a copy of the parent on the reward less a KL penalty towards the parent.

    Raises:
        ConfigError: trl is not installed, or rollouts cannot be cut into minibatches and groups.
        DivergenceError: a gradient is no longer a number.
    """
    return by_trl.train("rloo", config, {"beta": config.beta}, given, seed, report, keep)
