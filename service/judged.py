"""Feedback that people gave elsewhere, as others publish it: three kinds of JSON lines, read into one record.

rankings    {"prompt", "responses": [{"text", "system"?}], and who said what of them:
            "judgements": [{"annotator", "winner": "left|right|tie"}], "rankings": [{"annotator", "ranks"}],
            or "pairs": [{"a", "b", "label": "a|b|tie"}] of one "annotator"?}
dialogues   {"chosen", "rejected"}: two dialogues that are the same but for the assistant's last turn (HH-RLHF)
pairs       {"prompt", "chosen", "rejected"}

Any line may name the wallet of its prompt's "author". Other fields are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from chain.errors import HapticError
from chain.feedback import dense_ranks
from chain.messages import parse_address

Format: TypeAlias = Literal["rankings", "dialogues", "pairs"]
Signs: TypeAlias = Mapping[tuple[int, int], int]
TURN: Final = "\n\nAssistant:"
"""What begins a turn of the assistant in a dialogue of one text."""
_WINNERS: Final = {"left": 1, "right": -1, "tie": 0}
_LABELS: Final = {"a": 1, "b": -1, "tie": 0}


class FeedbackFileError(HapticError):
    """A line of a file that is no feedback."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A prompt, responses to it, and who put which before which."""

    prompt: str
    texts: tuple[str, ...]
    systems: tuple[str, ...]
    """Who made each; empty where it is not said."""
    signs: Mapping[str, Signs]
    """By person, then by pair i < j of `texts`: +1 where the first is the better one, -1 the second, 0 as good."""
    author: str = ""
    """Wallet whose prompt it is; empty where it is nobody's."""
    line: int = 0
    """Where it stands in its file."""

    @property
    def ranks(self) -> dict[str, tuple[int, ...]]:
        """Dense ranks by person, of those whose pairs are all there and contradict each other nowhere."""
        found = ((who, _order(signs, len(self.texts))) for who, signs in self.signs.items())
        return {who: ranks for who, ranks in found if ranks}


def signs_of(ranks: Sequence[int]) -> Signs:
    """Return what ranks say of each pair."""
    return {
        (i, j): (ranks[i] < ranks[j]) - (ranks[i] > ranks[j]) for i, j in combinations(range(len(ranks)), 2)
    }


def _order(signs: Signs, size: int) -> tuple[int, ...]:
    """Return the dense ranks that say just this of each pair, or nothing where no ranks do."""
    won = [0] * size
    for (i, j), sign in signs.items():
        won[i] += sign > 0
        won[j] += sign < 0
    ranks = dense_ranks(won)
    return ranks if signs_of(ranks) == signs else ()


def _raise(error: FeedbackFileError) -> None:
    raise error


def read(
    path: Path, form: Format | None = None, bad: Callable[[FeedbackFileError], object] = _raise
) -> Iterator[Judged]:
    """Yield what each line of a file says; `bad` is given what is wrong with one that says nothing usable.

    Without `form` each line is read as what its fields say it is.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.strip():
                    continue
                try:
                    found = _line(raw, form, number)
                except FeedbackFileError as error:
                    bad(FeedbackFileError(f"{path}, line {number}: {error}"))
                else:
                    yield found
    except OSError as error:
        raise FeedbackFileError(f"{path} cannot be read: {error.strerror}") from error


def merged(found: Iterable[Judged]) -> list[Judged]:
    """Return one record per prompt and set of responses, with everybody who judged it.

    Of somebody who judged it twice, the first counts.
    """
    known: dict[tuple[str, frozenset[str]], Judged] = {}
    twice: list[Judged] = []
    for one in found:
        texts = frozenset(one.texts)
        if len(texts) < len(one.texts):
            twice.append(one)  # which of two equal texts somebody meant is not to be known
            continue
        first = known.setdefault((one.prompt, texts), one)
        if first is not one:
            place = [first.texts.index(text) for text in one.texts]
            moved = {who: _moved(signs, place) for who, signs in one.signs.items()}
            known[one.prompt, texts] = replace(
                first, signs={**moved, **first.signs}, author=first.author or one.author
            )
    return [*known.values(), *twice]


def _moved(signs: Signs, place: Sequence[int]) -> Signs:
    """Return what is said of the same pairs where response i stands at `place[i]`."""
    moved = ((place[i], place[j], sign) for (i, j), sign in signs.items())
    return dict(sorted(((i, j), sign) if i < j else ((j, i), -sign) for i, j, sign in moved))


def _line(raw: bytes, form: Format | None, number: int) -> Judged:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FeedbackFileError(f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise FeedbackFileError(f"expected an object, found {type(row).__name__}")
    form = form or _form_of(row)
    author = str(row.get("author") or "")
    if author:
        try:
            author = parse_address(author, "author")
        except HapticError as error:
            raise FeedbackFileError(str(error)) from error
    # A line that names nobody is somebody of its own.
    who = _text(row, "annotator") if "annotator" in row else f"line {number}"
    found = {"rankings": _rankings, "dialogues": _dialogues, "pairs": _pairs}[form](row, who)
    return replace(found, author=author, line=number)


def _form_of(row: Mapping[str, Any]) -> Format:
    if "responses" in row:
        return "rankings"
    if "chosen" in row and "rejected" in row:
        return "pairs" if "prompt" in row else "dialogues"
    raise FeedbackFileError(
        f"has the fields {', '.join(map(repr, row)) or 'none'}; expected prompt and responses with judgements, rankings "
        "or pairs, or chosen and rejected, with or without prompt"
    )


def _rankings(row: Mapping[str, Any], who: str) -> Judged:
    prompt = _text(row, "prompt")
    responses = [_object(r, f"responses[{i}]") for i, r in enumerate(_list(row, "responses"))]
    texts = tuple(_text(r, "text", f"responses[{i}].") for i, r in enumerate(responses))
    systems = tuple(
        _text(r, "system", f"responses[{i}].") if "system" in r else "" for i, r in enumerate(responses)
    )
    signs: dict[str, Signs] = {}
    for place, said in _objects(row, "judgements"):
        if len(texts) != 2:
            raise FeedbackFileError(f"judgements: left and right are of 2 responses, here are {len(texts)}")
        winner = _one_of(said, "winner", place, _WINNERS)
        signs.setdefault(_text(said, "annotator", place), {(0, 1): winner})
    for place, said in _objects(row, "rankings"):
        ranks = _list(said, "ranks", place)
        if len(ranks) != len(texts) or not all(type(r) is int for r in ranks):
            raise FeedbackFileError(
                f"{place}ranks: expected {len(texts)} whole numbers, 1 the best, one for each response, found {ranks!r}"
            )
        signs.setdefault(_text(said, "annotator", place), signs_of(ranks))
    if "pairs" in row:
        signs.setdefault(who, _signs(row, len(texts)))
    return Judged(prompt, texts, systems, signs)


def _signs(row: Mapping[str, Any], size: int) -> Signs:
    """Return what a line's `pairs` say, each pair once."""
    signs: dict[tuple[int, int], int] = {}
    for place, said in _objects(row, "pairs"):
        a, b = (said.get(n) for n in "ab")
        if type(a) is not int or type(b) is not int or a == b or not (0 <= a < size and 0 <= b < size):
            raise FeedbackFileError(
                f"{place}a and b: expected two different places in responses, 0 to {size - 1}, found {a!r} and {b!r}"
            )
        label = _one_of(said, "label", place, _LABELS)
        key, sign = ((a, b), label) if a < b else ((b, a), -label)
        if signs.setdefault(key, sign) != sign:
            raise FeedbackFileError(
                f"{place}label: contradicts what was said of responses {a} and {b} before"
            )
    return signs


def _dialogues(row: Mapping[str, Any], who: str) -> Judged:
    """Return what follows on the dialogue that both sides begin with, which is the prompt."""
    chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
    prompt, turn, _ = chosen.rpartition(TURN)
    if not turn:
        raise FeedbackFileError(f"chosen: expected a turn of the assistant ({TURN!r}), found {chosen[:60]!r}")
    if rejected.rpartition(TURN)[:2] != (prompt, turn):
        raise FeedbackFileError(
            "rejected: expected the dialogue of chosen up to the assistant's last turn, found another one"
        )
    texts = tuple(text[len(prompt + turn) :].strip() for text in (chosen, rejected))
    return _two(prompt + turn, texts, who)


def _pairs(row: Mapping[str, Any], who: str) -> Judged:
    texts = (_text(row, "chosen"), _text(row, "rejected"))
    return _two(_text(row, "prompt"), texts, who)


def _two(prompt: str, texts: tuple[str, ...], who: str) -> Judged:
    if texts[0] == texts[1]:
        raise FeedbackFileError(
            f"rejected: expected another response than chosen, found the same: {texts[0][:60]!r}"
        )
    return Judged(prompt, texts, ("", ""), {who: {(0, 1): 1}})


def _text(row: Mapping[str, Any], name: str, place: str = "") -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise FeedbackFileError(f"{place}{name}: expected a text, found {_short(value, name in row)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FeedbackFileError(f"{place}{name}: holds a lone surrogate, which has no UTF-8 form") from error
    return value


def _list(row: Mapping[str, Any], name: str, place: str = "") -> list[Any]:
    value = row.get(name)
    if not isinstance(value, list):
        raise FeedbackFileError(f"{place}{name}: expected a list, found {_short(value, name in row)}")
    return value


def _object(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise FeedbackFileError(f"{place}: expected an object, found {_short(value)}")
    return value


def _objects(row: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a list that may be missing, each with what its fields are called in an error."""
    for i, value in enumerate(_list(row, name) if name in row else ()):
        yield f"{name}[{i}].", _object(value, f"{name}[{i}]")


def _one_of(row: Mapping[str, Any], name: str, place: str, known: Mapping[str, int]) -> int:
    value = row.get(name)
    if not isinstance(value, str) or value not in known:
        raise FeedbackFileError(
            f"{place}{name}: expected {', '.join(known)}, found {_short(value, name in row)}"
        )
    return known[value]


def _short(value: object, given: bool = True) -> str:  # noqa: FBT001, FBT002  # reads well where it is called
    return repr(value)[:60] if given else "nothing"
