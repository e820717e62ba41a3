"""What every method of improving a policy is given, and what it gives back.

A method is a file with `train(config, given, seed, report, keep) -> Outcome`, its settings in `config.py`, its losses
in `losses.py`; `run.improve` names them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.model import Judge, LanguageModel
from trainer.preferences import Comparison


@dataclass(frozen=True, slots=True)
class Given:
    """What a method may use, and never changes."""

    parent: LanguageModel
    """The policy's first weights."""
    reference: LanguageModel
    """The supervised model that KL is measured from."""
    reward: Judge
    """The normalised reward model."""
    prompts: Sequence[str] = ()
    """Prompts to practise on."""
    comparisons: Sequence[Comparison] = ()
    """What people preferred, for methods that learn from it directly."""
    texts: Sequence[str] = ()
    """Plain text such as the base was pretrained on, for methods that keep it in mind."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished training."""

    policy: LanguageModel
    """The new policy, adapters still apart; of a method that stops at a budget the last that was within it."""
    metrics: dict[str, float]
    """What the method says of its end."""
