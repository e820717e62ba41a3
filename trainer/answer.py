"""Answers of a model for the arena: several to each prompt, none empty, different where the model can."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trainer.errors import PromptFileError
from trainer.model import LanguageModel
from trainer.preferences import HALF
from trainer.sampler import sample
from trainer.sequences import answer_texts, encode_prompt

ROUNDS = 5
"""Times that an answer equal to an earlier one is drawn again, before it is kept."""


def answer(
    language: LanguageModel, prompts: Sequence[str], *, samples: int, temperature: float, seed: int
) -> list[list[str]]:
    """Return `samples` answers to each prompt, never empty, and distinct unless the model insists."""
    generator = torch.Generator().manual_seed(seed)
    first = _words_only(language)
    texts = [[""] * samples for _ in prompts]
    missing = [(row, slot) for row in range(len(prompts)) for slot in range(samples)]
    for _ in range(ROUNDS):
        encoded = [encode_prompt(language, prompts[row]) for row, _ in missing]
        drawn = sample(language, encoded, temperature=temperature, generator=generator, first=first)
        for (row, slot), text in zip(missing, answer_texts(language, drawn.batch), strict=True):
            texts[row][slot] = text
        missing = [(row, slot) for row, slot in missing if texts[row][slot] in texts[row][:slot]]
        if not missing:
            break
    return texts


def read_prompts(path: Path) -> list[str]:
    """Read JSON lines {"prompt": text}.

    Raises:
        PromptFileError: the file is missing or empty, or a line is malformed (named with its value).
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptFileError(f"cannot read the prompts {path}: {error}") from error
    if lines == [""]:
        raise PromptFileError(f"{path} holds no prompts")
    return [_prompt(line, f"{path} line {number}") for number, line in enumerate(lines, start=1)]


def write_answers(path: Path, name: str, prompts: Sequence[str], texts: Sequence[Sequence[str]]) -> int:
    """Write one line {"prompt", "model", "text", "sample"} per answer; the file appears complete or not at all."""
    records = [
        {"prompt": prompt, "model": name, "text": text, "sample": number}
        for prompt, answers in zip(prompts, texts, strict=True)
        for number, text in enumerate(answers)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    partial.replace(path)
    return len(records)


def _prompt(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise PromptFileError(f"{where} is not JSON: {line[:80]!r}") from error
    prompt = record.get("prompt") if isinstance(record, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise PromptFileError(f'{where} must be {{"prompt": text}}: {line[:80]!r}')
    if half := HALF.search(prompt):
        raise PromptFileError(f"{where} has half a character, {half[0]!r}, at {half.start()}: {line[:80]!r}")
    return prompt


def _words_only(language: LanguageModel) -> Tensor:
    """Return log-weights [V] that forbid a first token without visible text, so that no answer is empty."""
    # A network may have more outputs than its tokenizer has tokens; those say nothing.
    texts = [
        language.tokenizer.decode([token]).strip() for token in range(language.network.config.vocab_size)
    ]
    # A lone byte of a longer character (shown as U+FFFD) could still become a space with the byte that follows.
    visible = [text != "" and "\N{REPLACEMENT CHARACTER}" not in text for text in texts]
    return torch.where(torch.tensor(visible), 0.0, -torch.inf)
