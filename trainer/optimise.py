"""One optimizer step as the supervised stages take it: AdamW, one-cycle schedule, clipped gradients, finite loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from trainer import processes
from trainer.errors import DivergenceError

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises; then it falls as a cosine to a hundredth of the peak."""


class Stepper:
    """An optimizer with its schedule."""

    def __init__(
        self, parameters: Iterable[Parameter], learning_rate: float, steps: int, decay: float = 0.01
    ) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._optimizer = torch.optim.AdamW(  # fused: one kernel for all weights, where most are small
            self._parameters, lr=learning_rate, weight_decay=decay, betas=(0.9, 0.98), fused=True
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: _share(step, steps))

    def step(self, loss: Tensor) -> Tensor:
        """Take one step down a scalar loss, of which each process has its part, and return the whole.

        Raises:
            DivergenceError: the loss or its gradient is no longer a number; no weight has been changed.
        """
        whole = processes.total(loss.detach())
        finite(whole)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip(self._parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        return whole

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step follows from, beside the weights."""
        return {"optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        processes.put_back(self._optimizer, state_dict["optimizer"])
        self._schedule.load_state_dict(state_dict["schedule"])


def batches(rows: int, batch: int, epochs: int, generator: torch.Generator) -> list[list[int]]:
    """Return the rows of every step of several passes, each in an order of its own.

    All are drawn at the beginning, so that a step's number alone says where a run goes on.
    """
    return [
        drawn.tolist()
        for _ in range(epochs)
        for drawn in torch.split(torch.randperm(rows, generator=generator), batch)
    ]


def learnable(module: nn.Module) -> list[Parameter]:
    """Return the parameters that are to be trained."""
    return [p for p in module.parameters() if p.requires_grad]


def clip(parameters: Sequence[Parameter], norm: float) -> None:
    """Add up the gradients of all processes and scale them down to a norm.

    Raises:
        DivergenceError: they are no numbers.
    """
    processes.add_up(parameters)
    found = torch.nn.utils.clip_grad_norm_(parameters, norm)
    finite(processes.whole(found), "norm of the gradient")


def finite(value: Tensor, what: str = "loss") -> None:
    """Refuse a loss that is no number, before it spoils the weights."""
    if not torch.isfinite(value):
        raise DivergenceError(f"the {what} became {value.item()}: lower the learning rate of this stage")


def _share(step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step from 0."""
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
