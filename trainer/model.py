"""Language models with their tokenizer and template, and scalar heads on their trunks; made, saved, loaded."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from trainer import devices, lora
from trainer.config import ModelConfig, TrainedConfig
from trainer.errors import ConfigError, DivergenceError, RegistryError
from trainer.limits import writing

SPECIAL = ("<pad>", "<prompt>", "<answer>", "<end>")
PAD, PROMPT, ANSWER, END = range(4)
"""Token ids of the tiny model with a meaning: padding, before the prompt, before the answer, after the answer."""


WHOLE = TrainedConfig()
"""All weights are trained."""


@dataclass(frozen=True, slots=True)
class Template:
    """The tokens around a prompt and its answer: before, prompt, between, answer, end."""

    before: tuple[int, ...] = (PROMPT,)
    """What a conversation opens with; at least one token, as a model predicts nothing from nothing."""
    between: tuple[int, ...] = (ANSWER,)
    """What ends the prompt and opens the answer."""
    end: int = END
    """What ends the answer."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A causal language model with its tokenizer, its limits and its template."""

    network: PreTrainedModel
    """Weights, in float32; any causal language model of transformers."""
    tokenizer: Tokenizer
    """Encodes any text; what spells a special token in a text is text and no special token."""
    limits: ModelConfig
    """Shape, and the most tokens of a prompt and an answer."""
    template: Template = Template()
    """How prompt and answer are laid out; the tiny model's where nothing is said."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.network.device

    @property
    def trunk(self) -> PreTrainedModel:
        """The network below the language head."""
        return cast("PreTrainedModel", self.network.base_model)


class Scorer(nn.Module):
    """A scalar per position on a trunk of its own: the reward model (at the last token), or PPO's critic.

    The output is (head(h) - shift) / scale; both are 0 and 1 until `reward.normalise` sets them.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: PreTrainedModel) -> None:
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
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.scale.device

    @property
    def scorers(self) -> list[Scorer]:
        """Itself, as an ensemble of one."""
        return [self]

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return a scalar per position [B, T] for tokens [B, T] with attention mask [B, T]."""
        state = hidden(self.trunk, tokens, mask)
        # Where the trunk computes in half precision, small margins must not be.
        with torch.autocast(state.device.type, enabled=False):
            raw: Tensor = self.head(state.to(self.head.weight.dtype)).squeeze(-1)
            scalars: Tensor = (raw - self.shift) / self.scale
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
    def device(self) -> torch.device:
        """Where its members' weights are."""
        return self.scorers[0].device

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


def hidden(trunk: PreTrainedModel, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return a trunk's last hidden state [B, T, width] for tokens [B, T] with attention mask [B, T].

    Each row of the mask is zeros, ones, zeros. Where all begin with 1, no token sees what the mask hides, as none
    sees what follows it, and attention without a mask is faster.
    """
    with devices.passing(trunk):
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
    tokenizer.encode_special_tokens = True
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
    return LanguageModel(devices.placed(network), tokenizer, config)


def scorer(language: LanguageModel, config: TrainedConfig = WHOLE) -> Scorer:
    """Return a scorer on a copy of a language model's trunk; its head follows from PyTorch's seed."""
    return Scorer(trainable(language.trunk, config)).to(language.device)


def clone(language: LanguageModel, config: TrainedConfig = WHOLE) -> LanguageModel:
    """Return a copy of which `config` says what can be trained; nothing of it touches the original's weights."""
    return replace(language, network=trainable(language.network, config))


def trainable(network: PreTrainedModel, config: TrainedConfig) -> PreTrainedModel:
    """Return a copy of a network to train: all of it, all but its lowest blocks, or adapters on the same weights."""
    if lora.adapted(network):
        return lora.copy_adapters(network)
    if config.lora_rank:
        network = lora.adapt(network, config.lora_rank, config.lora_alpha)
    else:
        network = copy.deepcopy(network).requires_grad_(requires_grad=True)
    freeze(network, config.frozen_layers)
    return network


def freeze(network: PreTrainedModel, layers: int) -> None:
    """Keep the lowest `layers` blocks of a network as they are.

    The embedding stays trainable where it is also the output head: freezing it would stop all learning there.
    """
    if not layers:
        return
    kept = devices.blocks(network)[:layers]
    head = network.get_output_embeddings()  # type: ignore[no-untyped-call]
    embedding = network.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        kept.append(embedding)
    for module in kept:
        module.requires_grad_(requires_grad=False)


def merged(language: LanguageModel) -> LanguageModel:
    """Return the model with its adapters added to weights of its own; itself, where it has none."""
    return replace(language, network=lora.merged(language.network))


def check_alike(one: LanguageModel, other: LanguageModel, names: str) -> None:
    """Raise a RegistryError unless two models make the same tokens of a text: each reads what the other wrote."""
    same = one.tokenizer.to_str() == other.tokenizer.to_str()
    if not same or (one.template, one.limits) != (other.template, other.limits):
        raise RegistryError(
            f"{names} have other tokenizers, templates or limits: choose as --reference the sft entry that the parent "
            "descends from"
        )


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
        (folder / "template.json").write_text(json.dumps(asdict(language.template)) + "\n", encoding="utf-8")
        (folder / "limits.json").write_text(json.dumps(asdict(language.limits)) + "\n", encoding="utf-8")


def load(folder: Path) -> LanguageModel:
    """Read a language model that `save` wrote; a folder without a template is a tiny model's.

    Raises:
        RegistryError: a file is missing or damaged.
    """
    try:
        limits = ModelConfig(**json.loads((folder / "limits.json").read_text(encoding="utf-8")))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        network, missing = read_network(folder)
        template = _read_template(folder / "template.json")
    except Exception as error:  # the tokenizers package raises plain Exception
        raise RegistryError(f"{folder} holds no readable model: {error}") from error
    if missing:
        raise RegistryError(f"{folder} lacks the weights {', '.join(missing)}")
    tokenizer.encode_special_tokens = True
    return LanguageModel(devices.placed(network), tokenizer, limits, template)


def read_network(folder: Path, **options: Any) -> tuple[PreTrainedModel, list[str]]:
    """Read any causal language model of transformers from a local folder, and the names of weights it lacks.

    Weights are made float32, whatever they are on disk, and never read from pickles, which can run code.
    """
    both: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
    )  # fmt: skip
    network, found = both
    return network.train(mode=False), sorted(found["missing_keys"])


def _read_template(path: Path) -> Template:
    if not path.exists():
        return Template()
    found = json.loads(path.read_text(encoding="utf-8"))
    return Template(tuple(found["before"]), tuple(found["between"]), found["end"])


def save_judge(judge: Judge, folder: Path) -> None:
    """Write a reward model's weights, each member's in a folder; the shape is the language model's it was made from."""
    pessimism = judge.pessimism if isinstance(judge, Ensemble) else 0.0
    about = {"members": len(judge.scorers), "pessimism": pessimism}
    with writing(folder, _size(judge)):
        for number, member in enumerate(judge.scorers):
            place = folder / str(number)
            place.mkdir(parents=True)
            weights = {name: tensor.contiguous() for name, tensor in lora.merged(member).state_dict().items()}
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
