"""What every method of improving a policy is given, and what it gives back.

A method is a file with `train(config, given, seed, report, keep) -> Outcome`, its settings in `config.py`, its losses
in `losses.py`; `run.improve` names them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

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
    """The new policy; of a method that stops at a budget the last that was within it."""
    metrics: dict[str, float]
    """What the method says of its end."""


def freeze(language: LanguageModel, layers: int) -> list[nn.Parameter]:
    """Keep the lowest `layers` blocks as they are and return the parameters that are left to train.

    The embedding stays trainable where it is also the output head: freezing it would stop all learning there.
    """
    network = language.network
    blocks = network.model.layers
    kept: list[nn.Module] = list(blocks[:layers])
    if layers and network.lm_head.weight is not network.model.embed_tokens.weight:
        kept.append(network.model.embed_tokens)
    for module in kept:
        module.requires_grad_(requires_grad=False)
    return [p for p in network.parameters() if p.requires_grad]
