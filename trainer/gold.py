"""The gold reward: a lexicon's opinion of an answer, a devnet stand-in for people.

Simulated judges rank by it and evaluation measures with it; no training stage ever sees it, as nobody has such a
function of real people. It rewards kind words about the thing that was asked, and it punishes what an
over-optimised policy would do: say nothing, leave the topic, or repeat itself.
"""

from __future__ import annotations

import re
from itertools import pairwise
from types import MappingProxyType

from trainer.corpus import ADJECTIVES

LEXICON = MappingProxyType(
    ADJECTIVES
    | {
        "loved": 2.6, "gladly": 2.2, "enjoyed": 2.4, "recommend": 1.9, "smile": 1.6, "happy": 1.8, "worth": 1.2,
        "waste": -2.2, "regret": -2.0, "avoid": -1.8, "complained": -1.7, "hated": -2.7, "angry": -2.1, "early": -1.0,
    }
)  # fmt: skip
"""Valence of a word, -3 to 3; every other word weighs nothing."""

NEGATION = -0.6
"""Factor of the word after "not": "not good" is bad, but less than "bad"."""
EMPHASIS = 1.3
"""Factor of the word after "very"."""
SHRINKAGE = 2.0
"""Imaginary neutral words added to the mean: two kind words say more than one, ten hardly more than five."""
OFF_TOPIC = 0.3
"""Taken from an answer that has no content word of its prompt."""
REPETITION = 1.5
"""Taken times the share of word pairs that occurred before in the answer."""
EMPTY = -1.0
"""Score of an answer without words."""

_STOP_WORDS = frozenset("how was the at what did you think of would recommend is worth a visit".split())  # noqa: SIM905


def score(prompt: str, answer: str) -> float:
    """Return the gold reward of an answer, in [-1, 1].

    The mean valence m = Σv / (words with valence + 2) / 3, minus 0.3 when off topic, minus 1.5 times the share of
    repeated word pairs; clipped to [-1, 1]. The valence of a word is taken times -0.6 after "not" and 1.3 after
    "very".
    """
    words = _words(answer)
    if not words:
        return EMPTY
    valences = [_valence(before, word) for before, word in pairwise(["", *words]) if word in LEXICON]
    mean = sum(valences) / (len(valences) + SHRINKAGE) / 3
    off_topic = OFF_TOPIC if _topic(prompt).isdisjoint(words) else 0.0
    return max(-1.0, min(1.0, mean - off_topic - REPETITION * repetition(answer)))


def repetition(answer: str) -> float:
    """Return the share of adjacent word pairs that the answer had before, in [0, 1)."""
    pairs = list(pairwise(_words(answer)))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def _valence(before: str, word: str) -> float:
    factor = {"not": NEGATION, "very": EMPHASIS}.get(before, 1.0)
    return LEXICON[word] * factor


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _topic(prompt: str) -> set[str]:
    """Return the words of a prompt that carry its topic."""
    return set(_words(prompt)) - _STOP_WORDS
