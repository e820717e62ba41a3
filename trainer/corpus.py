"""The devnet's own language: questions about a small harbour town, and answers good and bad, from a grammar.

It stands in for real users' prompts so that everything can be trained from scratch on a laptop in seconds. An
answer's quality lies in words that `gold` can weigh; nothing here says anything about real people's tastes.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass

from trainer.errors import ConfigError

THINGS = (
    "soup", "bread", "coffee", "tea", "breakfast", "dinner", "cake", "fish", "cheese", "cider",
    "room", "view", "garden", "music", "service", "tour", "market", "boat trip", "museum", "bath",
)  # fmt: skip
"""What is asked about."""

PLACES = (
    "the harbour inn", "the old mill", "the north cafe", "the lighthouse", "the river house", "the corner bakery",
    "the station hotel", "the village hall", "the green door", "the fish market", "the abbey", "the red barn",
)  # fmt: skip
"""Where it was."""

QUESTIONS = (
    "How was the {thing} at {place}?",
    "What did you think of the {thing} at {place}?",
    "Would you recommend the {thing} at {place}?",
    "Is the {thing} at {place} worth a visit?",
)
"""How it is asked."""

ADJECTIVES: dict[str, float] = {
    "superb": 3.0, "wonderful": 2.8, "excellent": 2.7, "delightful": 2.6, "lovely": 2.3, "great": 2.2,
    "charming": 2.0, "splendid": 2.5, "good": 1.8, "pleasant": 1.7, "fresh": 1.4, "friendly": 1.6,
    "nice": 1.5, "fine": 1.0, "decent": 0.8, "tidy": 0.9,
    "plain": -0.6, "slow": -0.9, "dull": -1.4, "tired": -1.2, "poor": -1.8, "cold": -1.1,
    "bad": -1.9, "sad": -1.6, "messy": -1.5, "stale": -2.0, "rude": -2.3, "nasty": -2.4,
    "awful": -2.6, "dreadful": -2.7, "terrible": -2.8, "horrible": -3.0,
}  # fmt: skip
"""Words of judgement and their valence, -3 to 3."""

CLOSINGS: dict[str, float] = {
    "I loved it.": 2.6, "I would gladly go again.": 2.2, "We enjoyed every minute.": 2.4, "I recommend it.": 1.9,
    "It made us smile.": 1.6, "I was happy with it.": 1.8, "It was worth the money.": 1.2,
    "I would avoid it.": -1.8, "It was a waste of money.": -2.2, "I regret the visit.": -2.0,
    "We complained twice.": -1.7, "I hated it.": -2.7, "It made us angry.": -2.1, "We left early.": -1.0,
}  # fmt: skip
"""Last sentences and the valence they were written for."""

NEUTRAL = (
    "We sat near the window.", "They open at nine.", "It was a busy evening.", "We came by train.",
    "There were two of us.", "It rained that day.", "We stayed an hour.", "The door is painted blue.",
    "They close on Monday.", "We paid in cash.",
)  # fmt: skip
"""Sentences without judgement."""

_OPENINGS = (
    "The {thing} was {a}.",
    "The {thing} was {a} and {b}.",
    "The {thing} at {place} was {a}.",
    "We found the {thing} {a} and {b}.",
    "It was a {a} {thing}.",
    "The {thing} was not {a}.",
    "The {thing} was very {a}.",
)
_MIDDLES = (
    "The staff were {a}.",
    "The place felt {a} and {b}.",
    "The price was {a}.",
    "Our table was {a}.",
    "It all seemed very {a}.",
)
_TOWN = (
    "The harbour is {a} in the morning.",
    "A {a} boat left the pier.",
    "The road to {place} was {a}.",
    "People say that {place} is {a}.",
    "The {thing} at {place} is known in the town.",
    "We walked from {place} to the sea.",
)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and an answer to imitate."""

    prompt: str
    """What is asked."""
    answer: str
    """What the supervised model learns to say: of any tone, good or bad."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A prompt and answers of which one fits it."""

    prompt: str
    """What is asked."""
    choices: tuple[str, ...]
    """The same sentence about four things."""
    right: int
    """Place of the one about the thing that was asked."""


def every_prompt() -> list[str]:
    """Return all prompts of the grammar (960), in its order."""
    return [q.format(thing=thing, place=place) for thing in THINGS for place in PLACES for q in QUESTIONS]


def prompts(seed: int, n: int) -> list[str]:
    """Return n different prompts in an order that the seed decides.

    Raises:
        ConfigError: the grammar has fewer prompts.
    """
    everything = every_prompt()
    if n > len(everything):
        raise ConfigError(f"the devnet's grammar has {len(everything)} prompts, not {n}")
    return random.Random(f"prompts {seed}").sample(everything, n)  # noqa: S311 - text, not a secret


def demonstrations(seed: int, n: int) -> list[Demonstration]:
    """Return n demonstrations of mixed tone, with prompts drawn with replacement."""
    draw = random.Random(f"demonstrations {seed}")  # noqa: S311 - text, not a secret
    return [_demonstration(draw) for _ in range(n)]


def choices(seed: int, n: int) -> list[Choice]:
    """Return n closed questions: which of four sentences, alike but for the thing they are about, answers the prompt."""
    draw = random.Random(f"choices {seed}")  # noqa: S311 - text, not a secret
    return [_choice(draw) for _ in range(n)]


def documents(seed: int, n: int) -> list[str]:
    """Return n short texts to pretrain on: answers, questions, and talk of the town."""
    draw = random.Random(f"documents {seed}")  # noqa: S311 - text, not a secret
    return [_document(draw) for _ in range(n)]


def text_sha256(texts: list[str]) -> str:
    """Return the hex sha256 of texts, each ended by a zero byte."""
    return hashlib.sha256("".join(f"{text}\0" for text in texts).encode()).hexdigest()


def _demonstration(draw: random.Random) -> Demonstration:
    thing, place = draw.choice(THINGS), draw.choice(PLACES)
    prompt = draw.choice(QUESTIONS).format(thing=thing, place=place)
    return Demonstration(prompt, _answer(draw, thing, place))


def _choice(draw: random.Random) -> Choice:
    things, place, right = draw.sample(THINGS, 4), draw.choice(PLACES), draw.randrange(4)
    opening, (a, b) = draw.choice(_OPENINGS), draw.sample(list(ADJECTIVES), 2)
    sentences = tuple(opening.format(thing=thing, place=place, a=a, b=b) for thing in things)
    return Choice(draw.choice(QUESTIONS).format(thing=things[right], place=place), sentences, right)


def _answer(draw: random.Random, thing: str, place: str) -> str:
    """One opening, then up to two of the middle, a neutral sentence and a closing, around one tone."""
    tone = draw.uniform(-2.5, 2.5)
    parts = [_fill(draw, draw.choice(_OPENINGS), tone, thing, place)]
    if draw.random() < 0.5:
        parts.append(_fill(draw, draw.choice(_MIDDLES), tone, thing, place))
    if draw.random() < 0.4:
        parts.append(draw.choice(NEUTRAL))
    if draw.random() < 0.5:
        parts.append(_near(draw, CLOSINGS, tone))
    return " ".join(parts)


def _document(draw: random.Random) -> str:
    thing, place = draw.choice(THINGS), draw.choice(PLACES)
    prompt = draw.choice(QUESTIONS).format(thing=thing, place=place)
    town = _fill(draw, draw.choice(_TOWN), draw.uniform(-3, 3), thing, place)
    return " ".join([prompt, _answer(draw, thing, place), town])


def _fill(draw: random.Random, template: str, tone: float, thing: str, place: str) -> str:
    a, b = _near(draw, ADJECTIVES, tone), _near(draw, ADJECTIVES, tone)
    return template.format(thing=thing, place=place, a=a, b=b if b != a else draw.choice(list(ADJECTIVES)))


def _near(draw: random.Random, words: dict[str, float], tone: float) -> str:
    """Pick a word whose valence is near a tone: weights fall as a normal density with deviation 1."""
    weights = [math.exp(-((valence - tone) ** 2) / 2) for valence in words.values()]
    return draw.choices(list(words), weights)[0]
