"""One optimizer step as the supervised stages take it: AdamW, one-cycle schedule, clipped gradients, finite loss."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from trainer.errors import DivergenceError

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises; then it falls as a cosine to a hundredth of the peak."""


class Stepper:
    """An optimizer with its schedule."""

    def __init__(
        self, parameters: Iterable[Parameter], learning_rate: float, steps: int, decay: float = 0.01
    ) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=learning_rate, weight_decay=decay, betas=(0.9, 0.98)
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: _share(step, steps))

    def step(self, loss: Tensor) -> None:
        """Take one step down a scalar loss.

        Raises:
            DivergenceError: the loss is no longer a number; nothing has been changed.
        """
        finite(loss)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()


def learnable(module: nn.Module) -> list[Parameter]:
    """Return the parameters that are to be trained."""
    return [p for p in module.parameters() if p.requires_grad]


def finite(loss: Tensor) -> None:
    """Refuse a loss that is no number, before it spoils the weights."""
    if not torch.isfinite(loss):
        raise DivergenceError(f"the loss became {loss.item()}: lower the learning rate of this stage")


def _share(step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step from 0."""
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
