"""lm_eval's own model class around the same network and tokenizer gives what ours gives."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.toys import tuned
from trainer.asked import HarnessLM
from trainer.harness import SHIPPED
from trainer.model import SPECIAL
from trainer.progress import silent
from trainer.scores import Layout

TEMPLATE = (
    "<prompt>{{ messages[0]['content'] }}<answer>"
    "{% if messages|length > 1 %}{{ messages[1]['content'] }}{% endif %}"
)
LONG = 40
"""Tokens that both may see in the tests of what is too long: less than some texts have."""
PAIRS = [
    ("How was the soup at the abbey?", " It was superb."), ("", "The tea was cold."), ("Wait  ", "what?"),
    ("The bread", " was awful. " * 5), ("It rained that day. " * 20, " We left early."), ("Is it é?", "naïve ☃"),
]  # fmt: skip


def theirs(length: int = 1023) -> HFLM:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tuned().tokenizer.to_str()), chat_template=TEMPLATE,
        pad_token=SPECIAL[0], bos_token=SPECIAL[1], eos_token=SPECIAL[3],
    )  # fmt: skip
    # With its cache it takes a window of a text that repeats itself for another that ends in the same tokens.
    return HFLM(
        pretrained=tuned().network, tokenizer=tokenizer, batch_size=4, device="cpu", max_length=length,
        logits_cache=False,
    )  # fmt: skip


def ours(layout: Layout, length: int = 1024) -> HarnessLM:
    lm = HarnessLM(tuned(), layout, 0, silent)
    lm.max_length = length
    return lm


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, one, n, ("t", n, 1)) for n, one in enumerate(arguments)]


@pytest.mark.parametrize("length", [1024, LONG])
def test_log_probabilities_of_continuations_are_theirs(length: int) -> None:
    requests = asked("loglikelihood", *PAIRS)
    found = ours("plain", length).loglikelihood(requests)
    # Theirs shows the network one token less than all: the last one is only predicted.
    expected = theirs(length - 1).loglikelihood(requests, disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [p for p, _ in found] == pytest.approx([p for p, _ in expected], abs=1e-4)


@pytest.mark.parametrize("length", [1024, LONG])
def test_log_probabilities_of_whole_texts_are_theirs_in_as_many_windows_as_it_takes(length: int) -> None:
    requests = asked("loglikelihood_rolling", *((text * 3,) for _, text in PAIRS))
    found = ours("plain", length).loglikelihood_rolling(requests)
    expected = theirs(length - 1).loglikelihood_rolling(requests, disable_tqdm=True)
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("until", [[], ["e"], ["a", "o"]])
def test_what_is_generated_is_what_theirs_says(until: list[str]) -> None:
    wish = {"until": until, "max_gen_toks": 12, "do_sample": False}
    requests = asked("generate_until", *((prompt, dict(wish)) for prompt, _ in PAIRS if prompt))
    found = ours("plain").generate_until(requests)
    assert found == theirs().generate_until(requests, disable_tqdm=True)
    assert any(stop in text for stop in until or ["e"] for text in found) == (not until)


@pytest.mark.parametrize("layout", ["chat", "plain"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whole_tasks_end_in_the_same_items(layout: Layout) -> None:
    """Closed ones, those of two prompts, and what is said: by our template's tokens, or by theirs as text."""

    def run(lm: HarnessLM | HFLM) -> dict[str, Any]:
        loaded = TaskManager(include_path=[SHIPPED], include_defaults=False).load(["town", "safety"])
        for task in loaded["tasks"].values():
            task.set_config("num_fewshot", 0)
        done = evaluator.evaluate(lm, loaded, limit=6, apply_chat_template=layout == "chat")
        found: dict[str, Any] = done["samples"]
        return found

    found, expected = run(ours(layout)), run(theirs())
    assert set(found) == {"town_choice", "safety_odds", "safety_refuses", "safety_helps"}
    for name, items in found.items():
        for mine, its in zip(items, expected[name], strict=True):
            assert _numbers(mine["resps"]) == pytest.approx(_numbers(its["resps"]), abs=1e-4)
            assert _texts(mine["resps"]) == _texts(its["resps"])
            assert {m: mine[m] for m in mine["metrics"]} == {m: its[m] for m in its["metrics"]}


def _flat(what: Any) -> list[Any]:
    return [leaf for one in what for leaf in _flat(one)] if isinstance(what, list | tuple) else [what]


def _numbers(responses: Any) -> list[float]:
    return [float(leaf) for leaf in _flat(responses) if not isinstance(leaf, str)]


def _texts(responses: Any) -> list[str]:
    return [leaf for leaf in _flat(responses) if isinstance(leaf, str)]
