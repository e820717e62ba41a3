"""Where a training runs and how: processor or GPU, half precision, attention, checkpointed activations, compiled blocks.

It is a matter of the process, like its threads: `use` settles it once, before any work, and networks come here when
they are made (`placed`), trained (`trained`) and passed through (`passing`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer import by_vllm, processes
from trainer.config import HardwareConfig, Precision
from trainer.errors import ConfigError

PLAIN = HardwareConfig()
"""What is used before anything is said."""

_Module = TypeVar("_Module", bound=nn.Module)
_USED: ContextVar[HardwareConfig] = ContextVar("hardware", default=PLAIN)


def use(config: HardwareConfig) -> None:
    """Settle where and how this process trains from now on.

    Raises:
        ConfigError: what is asked for is not here.
    """
    config = resolved(config)
    _check(config)
    if config.device == "cuda":
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # sums in one order, as far as there is one
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    _USED.set(config)
    processes.join(device())


def _check(config: HardwareConfig) -> None:
    """Refuse what is not here, each by what to do instead."""
    if config.generation == "vllm":
        by_vllm.check()
    gpus, mine = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("hardware.device is cuda, but PyTorch finds no GPU: set it to cpu, or to auto")
    if config.device == "cuda" and mine >= gpus:
        raise ConfigError(
            f"process {mine} of this machine finds {gpus} GPUs, and each takes one: launch {gpus}"
        )
    if config.attention == "flash_attention_2":
        if importlib.util.find_spec("flash_attn") is None:
            raise ConfigError(
                "hardware.attention is flash_attention_2, but there is no package flash_attn: set it to auto"
            )
        if config.device != "cuda" or config.precision != "bfloat16":
            raise ConfigError(
                "hardware.attention is flash_attention_2, which needs a GPU and hardware.precision=bfloat16"
            )
    if config.compile and config.device == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError(
            "hardware.compile is set, but there is no package triton: install it, or unset this"
        )
    if config.compile and config.device == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise ConfigError(
            "hardware.compile is set, but there is no C++ compiler g++: install one, name it by CXX, or unset this"
        )


def resolved(config: HardwareConfig) -> HardwareConfig:
    """Return the settings with what each `auto` stands for."""
    if config.device == "auto":
        config = replace(config, device="cuda" if torch.cuda.is_available() else "cpu")
    if config.generation == "auto":
        here = config.device == "cuda" and by_vllm.version()
        config = replace(config, generation="vllm" if here else "transformers")
    return config


def used() -> HardwareConfig:
    """Return the settings of this process."""
    return _USED.get()


def recorded() -> dict[str, Any]:
    """Return what an entry says of it, the number of processes and the version of vLLM included."""
    used = _USED.get()
    drawn = {"vllm": by_vllm.version()} if used.generation == "vllm" else {}
    found = asdict(used) | {"processes": processes.count()} | drawn
    del found["cache_gib"]  # who changes that, for want of memory, keeps what was trained
    return found


def device() -> torch.device:
    """Return the device of this process."""
    name = _USED.get().device
    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def precision() -> Precision:
    """Return what forward passes compute in."""
    return _USED.get().precision


def placed(network: PreTrainedModel) -> PreTrainedModel:
    """Return a network that was just made or read, on its device and with the attention that is asked for.

    Raises:
        ConfigError: it does not know that attention.
    """
    used = _USED.get()
    if used.attention != "auto":
        try:
            network.set_attn_implementation(used.attention)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"hardware.attention is {used.attention}, which {type(network).__name__} does not offer: set it to auto"
            ) from error
    network.to(device())  # type: ignore[arg-type]
    return network


def trained(network: _Module) -> _Module:
    """Return what is trained in place of a network: itself, or with FSDP a twin of which each process holds a share.

    At the end `processes.collect` puts what was learned into the network.
    """
    used = _USED.get()
    if _sharding():
        names = [name for name, module in network.named_modules() if module in set(blocks(network))]
        network = processes.spread(network, names, device(), getattr(torch, used.precision))  # type: ignore[assignment]
    if used.compile:
        for block in blocks(network):
            block.compile(dynamic=True)
    return network


@contextmanager
def aside(*networks: nn.Module) -> Iterator[None]:
    """Let whole networks wait in the host's memory while a sharded one is trained: a GPU may hold no whole one beside."""
    waiting = networks if _sharding() else ()
    for network in waiting:
        network.cpu()
    yield
    for network in waiting:
        network.to(device())


@contextmanager
def passing(network: nn.Module) -> Iterator[None]:
    """Surround one forward pass of a network, whose results may be of half precision."""
    used, learning = _USED.get(), torch.is_grad_enabled()
    with ExitStack() as stack:
        if used.precision != "float32":
            # A pass uses each weight once: to keep its copy for a second use would only fill the memory.
            dtype = getattr(torch, used.precision)
            stack.enter_context(torch.autocast(device().type, dtype, cache_enabled=False))
        if (
            used.compile and not learning
        ):  # a cache that grows with each token would be compiled again and again
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if used.gradient_checkpointing and learning:
            stack.enter_context(_checkpointed(network))
        yield


def full(x: Tensor) -> Tensor:
    """Return what a pass gave, in float32 where it was of half precision: losses are sums of many small numbers."""
    return x.float() if x.dtype == torch.bfloat16 else x


def _sharding() -> bool:
    """Tell whether what is trained is sharded."""
    return _USED.get().parallel == "fsdp" and processes.count() > 1


@contextmanager
def _checkpointed(network: nn.Module) -> Iterator[None]:
    """Let blocks keep their inputs only.

    transformers does so in training mode alone. That is set on the blocks themselves and not on what is in them, so
    that dropout stays what it is.
    """
    found = {block: block.training for block in blocks(network)}
    _known(network).activation_checkpointing_enable({"use_reentrant": False})
    for block in found:
        block.training = True
    try:
        yield
    finally:
        for block, before in found.items():
            block.training = before


def blocks(network: nn.Module) -> list[nn.Module]:
    """Return a network's transformer blocks."""
    known = _known(network)
    depth = known.config.num_hidden_layers
    return list(
        next(m for m in known.base_model.children() if isinstance(m, nn.ModuleList) and len(m) == depth)
    )


def _known(network: nn.Module) -> PreTrainedModel:
    """Return what of a network is transformers' own: itself, or the trunk below a head of ours."""
    return next(module for module in network.modules() if isinstance(module, PreTrainedModel))
