"""What trl got on fixed batches (`tests/vectors`, written by `tests/oracles`), as tensors and models of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers.models.llama import LlamaConfig, LlamaForCausalLM, LlamaModel

from trainer.config import ModelConfig
from trainer.model import ANSWER, END, PAD, PROMPT, LanguageModel, Scorer


@dataclass(frozen=True, slots=True)
class Oracle:
    """One file of an oracle."""

    tensors: dict[str, Tensor]
    settings: dict[str, float]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors below a prefix, those of a scalar model by our names."""
        return {
            name.removeprefix(prefix).replace("score.", "head."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }

    def language(self, prefix: str) -> LanguageModel:
        """Return a language model in float64, whose words are w4, w5, …"""
        network = LlamaForCausalLM(self._shape(prefix)).double()
        network.load_state_dict(self.part(prefix), strict=False)
        network.tie_weights()
        words = {"<pad>": PAD, "<prompt>": PROMPT, "<answer>": ANSWER, "<end>": END}
        words |= {f"w{n}": n for n in range(len(words), network.config.vocab_size)}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return LanguageModel(network, tokenizer, ModelConfig())

    def scalar(self, prefix: str) -> Scorer:
        """Return a reward or value model in float64."""
        model = Scorer(LlamaModel(self._shape(prefix))).double()
        model.load_state_dict(trunk(self.part(prefix)), strict=False)
        return model

    def _shape(self, prefix: str) -> LlamaConfig:
        words, width = self[f"{prefix}model.embed_tokens.weight"].shape
        return LlamaConfig(
            vocab_size=words,
            hidden_size=width,
            intermediate_size=self[f"{prefix}model.layers.0.mlp.up_proj.weight"].shape[0],
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=PAD,
            tie_word_embeddings=True,
        )


def read(name: str) -> Oracle:
    with safe_open(Path(__file__).parent / "vectors" / name, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
        return Oracle(tensors, json.loads(file.metadata()["about"])["settings"])


def trunk(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("model.", "trunk."): tensor for name, tensor in tensors.items()}


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool(((ours - theirs).abs() <= 1e-6).all())


def equal_weights(network: nn.Module, theirs: dict[str, Tensor]) -> bool:
    ours = dict(network.named_parameters())
    return set(ours) == set(theirs) and all(close(ours[name], t) for name, t in theirs.items())


def equal_gradients(network: nn.Module, theirs: dict[str, Tensor]) -> bool:
    ours = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return set(ours) == set(theirs) and all(close(ours[name], t) for name, t in theirs.items())
