"""What is taken out of a response before anybody sees it: names that a model gives itself, and control characters.

A judge who knows the model judges the model. A response is changed before its task is made, so that what is shown is
what is hashed and signed; the original is kept beside the task, and how many there are is public.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from chain.canonical import text_hash

MARK: Final = "[model]"
NAMES: Final = (
    r"Chat ?GPT", r"Instruct ?GPT", r"GPT[- ]?\d[\w.-]*", r"GPT", r"Claude", r"Gemini", r"Bard", r"LLaMA", r"Alpaca",
    r"Vicuna", r"Mistral", r"Mixtral", r"Qwen", r"DeepSeek", r"Grok", r"Copilot", r"Bing", r"Falcon", r"Koala", r"Dolly",
    r"PaLM", r"Phi", r"Gemma", r"Command ?R\+?", r"Open ?Assistant", r"Guanaco", r"WizardLM",
)  # fmt: skip
"""Names of models, most of them words of other meaning too: taken out only where a text speaks of itself."""
MAKERS: Final = (
    r"Open ?AI", r"Anthropic", r"Google(?: DeepMind)?", r"DeepMind", r"Meta(?: AI)?", r"Microsoft", r"Mistral AI",
    r"Alibaba", r"DeepSeek", r"xAI", r"Cohere", r"LAION", r"LMSYS",
)  # fmt: skip
_MADE: Final = re.compile(
    r"(\b(?:trained|made|created|developed|built|designed) by (?:the )?(?:people at |team at |company )?)"
    rf"({'|'.join(MAKERS)})\b",
    re.IGNORECASE,
)
_KEPT: Final = frozenset("\n\t")
_OVERRIDES: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the direction of what follows, also of what does not belong to the text."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """A response as it is shown, and what it was."""

    shown: str
    original: str
    names: int = 0
    """How often a name was taken out."""

    @property
    def changed(self) -> bool:
        """Tell whether it is not shown as it was."""
        return self.shown != self.original

    def note(self) -> dict[str, Any]:
        """Return what is kept of it beside the task."""
        return {"shown": text_hash(self.shown), "original": self.original, "names": self.names}


def clean(text: str) -> str:
    """Return a text with no control character but line feed and tab; others become U+FFFD, which shows that one was.

    A carriage return and line feed is one line feed. What turns the direction of writing, and half of a surrogate
    pair, which has no UTF-8 form, are replaced as well.
    """
    plain = text.replace("\r\n", "\n")
    return "".join("\ufffd" if _is_control(c) else c for c in plain)


def _is_control(character: str) -> bool:
    if character in _KEPT:
        return False
    return character in _OVERRIDES or unicodedata.category(character) in {"Cc", "Cs"}


@lru_cache(16)
def _patterns(models: frozenset[str]) -> tuple[re.Pattern[str], ...]:
    """Return what finds the names: those of the arena's own models that are no plain words, wherever they stand.

    The others, and well-known ones, only where a text speaks of itself.
    """
    longest = sorted(models, key=lambda n: (-len(n), n))
    coined = "|".join(re.escape(n) for n in longest if not n.isalpha())
    names = "|".join([*(re.escape(n) for n in longest if n.isalpha()), *NAMES])
    speaks = re.compile(
        r"(\b(?:I am|I'm|I\u2019m|as|my name is|call me|this is|named|called)"
        r"(?:[ ,]{1,3}(?:an?|the|your|AI|large|language|model|assistant|chatbot|helpful|named|called)){0,8}[ ,]{1,3})"
        rf"((?:{names})(?:[- ]?v?\d[\w.-]*)?)\b",
        re.IGNORECASE,
    )
    anywhere = [re.compile(rf"()(?<![\w-])({coined})(?![\w-])", re.IGNORECASE)] if coined else []
    return (*anywhere, speaks, _MADE)


def redact(text: str, models: Iterable[str], prompt: str) -> Redaction:
    """Return a response without the names that would tell whose it is, each replaced by MARK.

    A name that the prompt speaks of is a subject and no signature: it stays.
    """
    shown, count = clean(text), 0
    asked = prompt.casefold()

    def hide(found: re.Match[str]) -> str:
        nonlocal count
        before, name = found.groups()
        if name.casefold() in asked:
            return found[0]
        count += 1
        return before + MARK

    for pattern in _patterns(frozenset(models)):
        shown = pattern.sub(hide, shown)
    return Redaction(shown, text, count)
