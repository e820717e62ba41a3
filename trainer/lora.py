"""Low-rank adapters (Hu et al. 2021): a few new weights learn, beside those of the base, which stay as they are.

An adapted network has tensors of its own for its adapters only; the base's are the very memory of the network it was
made from. So policy, anchor, reference, critic and reward model of one base together hold it once.
"""

from __future__ import annotations

import copy
import warnings
from typing import TypeVar

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

_Module = TypeVar("_Module", bound=nn.Module)


def adapt(network: PreTrainedModel, rank: int, alpha: int) -> PreTrainedModel:
    """Return a network with the same output that learns by adapters on every linear layer but the output head.

    Args:
        network: a plain one; neither its weights nor what of them is trained changes.
        rank: of the update W + alpha/rank · B A.
        alpha: see rank. A follows from PyTorch's seed, B is 0.
    """
    twin = _twin(network, list(network.parameters()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # peft sees by itself how GPT-2 stores its layers
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"), twin)
    return twin


def adapted(network: nn.Module) -> bool:
    """Return whether there are adapters in a network."""
    return any(isinstance(module, BaseTunerLayer) for module in network.modules())


def copy_adapters(network: PreTrainedModel) -> PreTrainedModel:
    """Return an adapted network with adapters of its own, of the same values, on the same base."""
    return _twin(network, [p for p in network.parameters() if not p.requires_grad])


def merged(network: _Module) -> _Module:
    """Return a plain network with the adapters added to weights of its own; itself, where it has none."""
    if not adapted(network):
        return network
    plain = copy.deepcopy(network).requires_grad_(requires_grad=True)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            plain.set_submodule(name, layer.get_base_layer())
    return plain


def _twin(network: PreTrainedModel, shared: list[nn.Parameter]) -> PreTrainedModel:
    """Return a copy in which the shared parameters are frozen views of the same memory."""
    memo = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in shared}
    return copy.deepcopy(network, memo)
