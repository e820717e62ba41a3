"""Several processes that train one model together: what each takes of a minibatch, how what they find becomes one.

`torchrun` or `accelerate launch` starts the same command several times. All have the same data and seed and draw the
same minibatch; each passes over its share of the rows, its loss the mean over those times their part of the whole, so
that the sum of the gradients is the gradient of the minibatch as one process has it. A process alone is a sum of one:
to the bit what it would be without this file.
"""

from __future__ import annotations

import atexit
import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils import _pytree as pytree

from trainer.errors import ConfigError
from trainer.progress import launched

BUCKET = 1 << 24
"""Numbers of a gradient that are added up at once, 64 MB."""
PATIENCE = timedelta(hours=2)
"""How long one waits for another; a launcher ends all at once when one of them dies."""

_Any = TypeVar("_Any")


def join(device: torch.device) -> None:
    """Meet the processes that were launched together with this one, if any; a second time changes nothing.

    Raises:
        ConfigError: it is not said where to meet.
    """
    if launched() > 1 and not dist.is_initialized():
        if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise ConfigError(
                f"WORLD_SIZE is {launched()}, but there is no {', '.join(missing)}: launch by torchrun or accelerate, or "
                "unset WORLD_SIZE"
            )
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)


def count() -> int:
    """Return how many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def place() -> int:
    """Return this process's place among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(rows: int) -> tuple[Tensor, Tensor]:
    """Return this process's rows of a minibatch, as many for each process, and 1 for each of them that counts [rows].

    Where they do not come out even, the last row is passed over again and counts 0: with sharded weights nobody may
    pass less often than the others.
    """
    each = -(-rows // count())
    mine = torch.arange(place() * each, (place() + 1) * each)
    return mine.clamp(max=rows - 1), (mine < rows).float()


def part(mine: Tensor, whole: Tensor) -> Tensor:
    """Return what part of a mean's weights [any shape] is this process's [any shape]: a scalar from 0 to 1."""
    return mine.sum() / whole.sum().clamp(min=1e-8)


def total(x: Tensor) -> Tensor:
    """Return the sum over all processes."""
    if count() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x


def hear() -> Any:
    """Return what the first process tells."""
    return told(None)


def told(value: _Any) -> _Any:
    """Return what the first process says, whatever the others do."""
    if count() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: _Any) -> list[_Any]:
    """Return what each process has, in their order; its tensors come to the device of this one's, the first's."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    device = next((leaf.device for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)), None)
    dist.all_gather_object(found, pytree.tree_map_only(Tensor, lambda x: x.cpu(), value))
    return [pytree.tree_map_only(Tensor, lambda x: x.to(device), value) for value in found]


def own(generator: torch.Generator) -> torch.Generator:
    """Return randomness that no other process has, which follows from what all of them share."""
    if count() == 1:
        return generator
    seed = int(torch.randint(1 << 62, (), generator=generator))
    return torch.Generator().manual_seed(seed + place())


def add_up(parameters: Iterable[nn.Parameter]) -> None:
    """Put the sum over all processes into each parameter's gradient; sharded ones were added up when they were made."""
    if count() == 1:
        return
    for bucket in _buckets([p for p in parameters if not isinstance(p, DTensor)]):
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        dist.all_reduce(flat)
        for parameter, summed in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
            parameter.grad = summed.view_as(parameter)


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield parameters some at a time, BUCKET numbers at most where one has no more, to spare a second gradient."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def spread(network: nn.Module, blocks: Iterable[str], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return a twin of a network of which each process holds a share of the weights (FSDP).

    Args:
        network: goes to the host's memory meanwhile; `collect` puts there what the twin has learned.
        blocks: names of the modules that are gathered at their turn.
        device: where the shares are.
        dtype: what a block is gathered and computes in; shares, gradients and what is no block stay float32.
    """
    twin = copy.deepcopy(network.cpu())
    mesh = init_device_mesh(device.type, (count(),))
    # A copy that autocast made of a gathered block would be kept for the way back, by each process the whole of it.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for name in blocks:
        fully_shard(twin.get_submodule(name), mesh=mesh, mp_policy=policy)
    fully_shard(twin, mesh=mesh)
    for sharded in (module for module in twin.modules() if isinstance(module, FSDPModule)):
        sharded.set_gradient_divide_factor(1.0)  # a sum, as the losses' parts are of one whole
        sharded.set_force_sum_reduction_for_comms(enable=True)
    return twin


@torch.no_grad()
def collect(twin: nn.Module, network: nn.Module) -> None:
    """Put a twin's weights into the whole network that it was made of; nothing to do where that is the same."""
    if twin is network:
        return
    here = network.state_dict()
    for name, x in twin.state_dict().items():
        here[name].copy_(whole(x))
    network.to(next(twin.parameters()).device)


def whole(state: Any) -> Any:
    """Return a state with all shares of its tensors put together; all processes have to ask for it."""
    return pytree.tree_map_only(DTensor, lambda x: x.full_tensor(), state)


def put_back(part: nn.Module | torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a whole state, of which each process keeps its share where it has one."""
    if isinstance(part, nn.Module):
        here = part.state_dict()
        part.load_state_dict({name: _like(here[name], x) if name in here else x for name, x in state.items()})
        return
    part.load_state_dict(dict(state))
    for parameter, found in part.state.items():
        moments = {
            name: x for name, x in found.items() if x.shape == parameter.shape
        }  # all but the step's number
        found |= {name: _like(parameter, x) for name, x in moments.items()}


def _like(shape: Tensor, x: Tensor) -> Tensor:
    """Return a whole tensor as another is: whole, or this process's share of it."""
    if not isinstance(shape, DTensor):
        return x
    return distribute_tensor(x.to(shape.device), shape.device_mesh, shape.placements, src_data_rank=None)
