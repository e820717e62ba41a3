"""The operator's own tasks: a file of prompts with their responses, asked beside the arena's, each once."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from chain.errors import HapticError
from chain.feedback import Task
from chain.messages import parse_address
from chain.rules import Rules
from service.arena import Content, Plan, content_of, methods_for, numbered_rows
from service.errors import ConfigError
from service.redaction import clean, redact

NOBODY = "file"
"""Origin of responses of which the file does not say who made them."""


def file_tasks(path: Path, rules: Rules, wanted: int, used: Container[Content]) -> list[Plan]:
    """Return the next `wanted` tasks of a JSONL file that are not in `used`, in the order of the file.

    A line is {"prompt", "responses": [2, 3, 4 or 6 texts]}, with "origins", who made each response, and "author", the
    wallet whose prompt it is, where that is known. A line that cannot be asked is a ConfigError, wherever in the
    file: it is found before the first task of the file is handed out.
    """
    plans: dict[Content, Plan] = {}
    for where, row in numbered_rows(path, "HAPTIC_TASKS_FILE"):
        try:
            plan = _plan(row, rules)
        except (ValueError, HapticError) as error:
            raise ConfigError(f"{where}: {error}") from error
        content = content_of(plan.task)
        if len(plans) < wanted and content not in used:
            plans.setdefault(content, plan)
    return list(plans.values())


def _plan(row: Any, rules: Rules) -> Plan:
    if not isinstance(row, dict):
        raise ConfigError(f'expected {{"prompt", "responses"}}, found {type(row).__name__}')
    prompt, texts = row.get("prompt", ""), row.get("responses", [])
    # The trainer takes no empty text, and what is labelled here is trained on.
    if not _is_text(prompt):
        raise ConfigError(f"prompt: expected a text that is not empty, found {prompt!r}")
    if not isinstance(texts, list) or not all(map(_is_text, texts)):
        raise ConfigError(f"responses: expected texts that are not empty, found {str(texts)[:80]}")
    origins = row.get("origins", [NOBODY] * len(texts))
    if not isinstance(origins, list) or len(origins) != len(texts) or not all(map(_is_text, origins)):
        raise ConfigError(f"origins: expected {len(texts)} names, one for each response, found {origins!r}")
    author = parse_address(row["author"], "author") if row.get("author") else ""
    # As answers of models are: what looks different may tell where it is from.
    found = [redact(text, set(origins) - {NOBODY}, prompt) for text in texts]
    shown = [f.shown for f in found]
    if not clean(prompt).strip() or not all(map(_is_text, shown)):
        raise ConfigError("prompt or responses: expected texts of which something is left to show")
    task = Task.of(clean(prompt), shown, methods_for(len(shown), rules.methods), author)
    made_by = dict(zip(shown, origins, strict=True))
    return Plan(
        task, tuple(made_by[t] for t in task.responses), redacted=tuple(f for f in found if f.changed)
    )


def _is_text(value: object) -> bool:
    """Tell whether it is a text with something in it that has a UTF-8 form, as everything hashed must have."""
    return isinstance(value, str) and bool(value.strip()) and _has_utf8(value)


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
