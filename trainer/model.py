"""Models and their tokenizer: a tiny Llama with a language head or a scalar head; made, saved, loaded."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers.models.llama import LlamaConfig, LlamaForCausalLM, LlamaModel

from trainer.config import ModelConfig
from trainer.errors import ConfigError, DivergenceError, RegistryError
from trainer.limits import writing

SPECIAL = ("<pad>", "<prompt>", "<answer>", "<end>")
PAD, PROMPT, ANSWER, END = range(4)
"""Token ids with a meaning: padding, before the prompt, before the answer, after the answer."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A causal language model with its tokenizer and its limits."""

    network: LlamaForCausalLM
    """Weights; `network.model` is the trunk below the language head."""
    tokenizer: Tokenizer
    """Byte-level, so that any text can be encoded."""
    limits: ModelConfig
    """Shape, and the most tokens of a prompt and an answer."""


class Scorer(nn.Module):
    """A scalar per position on a trunk of its own: the reward model (at the last token), or PPO's critic.

    The output is (head(h) - shift) / scale; both are 0 and 1 until `reward.normalise` sets them.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: LlamaModel) -> None:
        super().__init__()
        self.trunk = trunk
        width = trunk.config.hidden_size
        self.head = nn.Linear(width, 1)
        # Deviation 1/sqrt(d + 1) (Stiennon et al. 2020): the first scores are of order 1, whatever the width.
        nn.init.normal_(self.head.weight, std=1 / math.sqrt(width + 1))
        nn.init.zeros_(self.head.bias)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    @property
    def scorers(self) -> list[Scorer]:
        """Itself, as an ensemble of one."""
        return [self]

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return a scalar per position [B, T] for tokens [B, T] with attention mask [B, T]."""
        scalars: Tensor = (self.head(hidden(self.trunk, tokens, mask)).squeeze(-1) - self.shift) / self.scale
        return scalars


class Ensemble(nn.Module):
    """Reward models that learned the same comparisons from different heads and orders, as one careful judge.

    The score is mean - pessimism · deviation over the members (the lower bound of Coste et al. 2024): where they
    disagree, comparisons have not said much, and a policy that goes there shall not be paid for it.
    """

    def __init__(self, members: Sequence[Scorer], pessimism: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.pessimism = pessimism

    @property
    def scorers(self) -> list[Scorer]:
        """Its members."""
        return [member for member in self.members if isinstance(member, Scorer)]

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return a scalar per position [B, T] for tokens [B, T] with attention mask [B, T]."""
        scores = torch.stack([member(tokens, mask) for member in self.members])
        return scores.mean(dim=0) - self.pessimism * scores.std(dim=0, correction=0)


Judge = Scorer | Ensemble
"""Whatever gives an answer its reward."""


def positions(mask: Tensor) -> Tensor:
    """Return position ids [B, T] that count the tokens of the mask [B, T] from 0, wherever its padding lies."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def hidden(trunk: LlamaModel, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return a trunk's last hidden state [B, T, width] for tokens [B, T] with attention mask [B, T].

    Each row of the mask is zeros, ones, zeros. Where all begin with 1, no token sees what the mask hides, as none
    sees what follows it, and attention without a mask is faster.
    """
    if mask[:, 0].all():
        bare: Tensor = trunk(input_ids=tokens, use_cache=False).last_hidden_state
        return bare
    state: Tensor = trunk(
        input_ids=tokens, attention_mask=mask, position_ids=positions(mask), use_cache=False
    ).last_hidden_state
    return state


def train_tokenizer(texts: list[str], size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer with at most `size` tokens on texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def build(config: ModelConfig, tokenizer: Tokenizer) -> LanguageModel:
    """Return a new language model; its weights follow from PyTorch's seed.

    Raises:
        ConfigError: its width is not a multiple of twice its heads, which rotary positions need.
    """
    if config.width % (2 * config.heads):
        raise ConfigError(
            f"model.width is {config.width}: it must be a multiple of {2 * config.heads}, 2 a head"
        )
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=config.width,
            intermediate_size=config.width * 8 // 3,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=1024,
            pad_token_id=PAD,
            bos_token_id=PROMPT,
            eos_token_id=END,
            tie_word_embeddings=True,
        )
    )
    return LanguageModel(network, tokenizer, config)


def scorer(language: LanguageModel) -> Scorer:
    """Return a scorer on a copy of a language model's trunk; its head follows from PyTorch's seed."""
    return Scorer(copy.deepcopy(language.network.model))


def clone(language: LanguageModel) -> LanguageModel:
    """Return a copy whose weights can be trained without touching the original's."""
    network = copy.deepcopy(language.network).requires_grad_(requires_grad=True)
    return LanguageModel(network, language.tokenizer, language.limits)


def save(language: LanguageModel, folder: Path) -> None:
    """Write a language model so that `load`, or transformers' own `from_pretrained`, can read it.

    Raises:
        DivergenceError: a weight is no number.
        DiskError: a file cannot be written.
    """
    with writing(folder, _size(language.network)):
        folder.mkdir(parents=True)
        language.network.save_pretrained(folder)
        language.tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "limits.json").write_text(json.dumps(asdict(language.limits)) + "\n", encoding="utf-8")


def load(folder: Path) -> LanguageModel:
    """Read a language model that `save` wrote.

    Raises:
        RegistryError: a file is missing or damaged.
    """
    try:
        limits = ModelConfig(**json.loads((folder / "limits.json").read_text(encoding="utf-8")))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        network = LlamaForCausalLM(LlamaConfig.from_pretrained(folder))
        missing = network.load_state_dict(load_file(folder / "model.safetensors"), strict=False).missing_keys
    except Exception as error:  # the tokenizers package raises plain Exception
        raise RegistryError(f"{folder} holds no readable model: {error}") from error
    if set(missing) - {"lm_head.weight"}:
        raise RegistryError(f"{folder} lacks the weights {', '.join(missing)}")
    network.tie_weights()
    return LanguageModel(network.train(mode=False), tokenizer, limits)


def save_judge(judge: Judge, folder: Path) -> None:
    """Write a reward model's weights, each member's in a folder; the shape is the language model's it was made from."""
    pessimism = judge.pessimism if isinstance(judge, Ensemble) else 0.0
    about = {"members": len(judge.scorers), "pessimism": pessimism}
    with writing(folder, _size(judge)):
        for number, member in enumerate(judge.scorers):
            place = folder / str(number)
            place.mkdir(parents=True)
            weights = {name: tensor.contiguous() for name, tensor in member.state_dict().items()}
            save_file(weights, place / "model.safetensors")
        (folder / "judge.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


def _size(network: nn.Module) -> int:
    """Return the bytes of a network's weights, all of which must be numbers to be worth keeping."""
    for name, weights in network.named_parameters():
        if not weights.isfinite().all():
            raise DivergenceError(f"the weights {name} are no numbers: lower the learning rate of this stage")
    return sum(weights.nbytes for weights in network.parameters())


def load_judge(folder: Path, language: LanguageModel) -> Judge:
    """Read what `save_judge` wrote, given any language model of the same shape.

    Raises:
        RegistryError: a file is missing or damaged, or of another shape.
    """
    try:
        about = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
        members = []
        for number in range(int(about["members"])):
            member = scorer(language)
            member.load_state_dict(load_file(folder / str(number) / "model.safetensors"))
            members.append(member.train(mode=False))
    except Exception as error:  # safetensors raises an exception of its own
        raise RegistryError(f"{folder} holds no readable reward model: {error}") from error
    return members[0] if len(members) == 1 else Ensemble(members, float(about["pessimism"]))
