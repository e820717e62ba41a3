"""What a person types to judge a task: an order or marks, read exactly; and how both are asked for and shown again."""

from __future__ import annotations

from typing import Final

from chain.errors import HapticError
from chain.feedback import dense_ranks
from service.answers import Recorded, Task
from service.hostile import plain

ORDERS: Final = {2: "B > A", 3: "B > A > C", 4: "B > A = C > D", 6: "B > A = C = D = E > F"}
"""An order as it is typed, by the number of responses; each fits every method."""
HOW: Final = {
    "pairwise": "Which is better? Type an order: A > B, B > A, or A = B.",
    "ranking": "Put all of them in order, best first; = is a tie: {order}.",
    "best_worst": "Name the best and the worst, with the rest tied between them: {order}.",
    "likert": "Mark each from 1 (worst) to 7 (best), in the order shown: {marks}.",
}


def how(task: Task) -> str:
    """Return how this task is answered, with an example that fits it."""
    count = len(task.shown)
    return HOW[task.method].format(order=ORDERS[count], marks=" ".join("5274163"[:count]))


def said_of(one: Recorded) -> str:
    """Return what a person said, as it is typed, with the comment."""
    ranking, comment = one.ranking, plain(" ".join(one.comment.split()))
    marks = " ".join(map(str, ranking.likert))
    order = "bad" if ranking.flag == "all_bad" else ranking.flag or marks or ranking.summary
    return plain(order) + (f" # {comment}" if comment else "")


def parse_judgement(order: str, task: Task) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Return (flag, marks, dense ranks) of what was typed for a task; HapticError says what is wrong with it."""
    count = len(task.shown)
    if order.lower() == "bad":
        return "all_bad", (), (1,) * count
    if task.method == "likert":
        return "", *parse_marks(order, count)
    return "", (), parse_order(order, count)


def parse_order(text: str, count: int) -> tuple[int, ...]:
    """Return dense ranks of an order such as "B > A = C" for `count` responses; HapticError says what is missing."""
    places: dict[str, int] = {}
    for rank, group in enumerate(text.upper().split(">"), start=1):
        for letter in group.split("="):
            name = letter.strip()
            if len(name) != 1 or not "A" <= name < chr(ord("A") + count):
                raise HapticError(
                    f"{name!r} is not one of {', '.join('ABCDEF'[:count])}; write for example: {ORDERS[count]}"
                )
            if name in places:
                raise HapticError(f"{name} stands twice in {text!r}")
            places[name] = rank
    if missing := [x for x in "ABCDEF"[:count] if x not in places]:
        raise HapticError(f"{', '.join(missing)} is missing in {text!r}")
    return tuple(places[x] for x in "ABCDEF"[:count])


def parse_marks(text: str, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (marks, dense ranks) of Likert marks such as "5 2 7"."""
    parts = text.replace(",", " ").split()
    if len(parts) != count or not all(p.isdecimal() and 1 <= int(p) <= 7 for p in parts):
        raise HapticError(
            f"{text!r}: give {count} marks from 1 (worst) to 7 (best), such as: {' '.join(['4'] * count)}"
        )
    marks = tuple(int(p) for p in parts)
    return marks, dense_ranks(marks)
