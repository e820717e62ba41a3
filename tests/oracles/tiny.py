"""What both oracles are asked about: tiny models in float64, a tokenizer, and a file of what they answer.

Run in `.trl` (`make oracle-trl`), never by the tests: those read the files in `tests/vectors`.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

torch.set_num_threads(1)

VECTORS = Path(__file__).parents[1] / "vectors"
WORDS, PAD, END = 24, 0, 3
SHAPE = {
    "vocab_size": WORDS, "hidden_size": 8, "intermediate_size": 21, "num_hidden_layers": 1, "num_attention_heads": 2,
    "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": END, "tie_word_embeddings": True,
    "initializer_range": 0.4,
}  # fmt: skip
"""As `trainer.model.build` makes it, with weights large enough that every token's odds differ."""


def policy(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).double()


def near(model: LlamaForCausalLM, seed: int) -> LlamaForCausalLM:
    """Return a model whose weights are a little off, as a reference's are from a policy's."""
    torch.manual_seed(seed)
    other = policy(seed)
    other.load_state_dict({k: v + 0.05 * torch.randn_like(v) for k, v in model.state_dict().items()})
    return other


def scalar(seed: int) -> LlamaForSequenceClassification:
    """Return a reward or value model; its head has a bias, as `trainer.model.Scorer`'s."""
    torch.manual_seed(seed)
    model = LlamaForSequenceClassification(LlamaConfig(**SHAPE, num_labels=1))
    model.score = nn.Linear(SHAPE["hidden_size"], 1)
    return model.double()


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": PAD, "<prompt>": 1, "<answer>": 2, "<end>": END}
    vocabulary |= {f"w{n}": n for n in range(len(vocabulary), WORDS)}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<prompt>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )


def weights(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Return the parameters, each once where two share it."""
    return {f"{prefix}/{name}": p.detach().clone() for name, p in model.named_parameters()}


def gradients(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def write(name: str, tensors: dict[str, Tensor], settings: dict[str, float]) -> None:
    """Write what was found, with the versions that found it."""
    about = {"settings": settings} | {p: version(p) for p in ("trl", "torch", "transformers")}
    path = VECTORS / name
    # One key of metadata: safetensors orders several as chance has it, and the file shall be the same each time.
    save_file(
        {key: _plain(tensor) for key, tensor in tensors.items()},
        path,
        metadata={"about": json.dumps(about)},
    )
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size // 1024} kB, trl {about['trl']}")


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor of its own, a mask as numbers."""
    tensor = tensor.detach().contiguous().clone()
    return tensor.float() if tensor.dtype == torch.bool else tensor
