"""What tells whose a response is, or is no text, is taken out of it and counted; all else stays as it was."""

from __future__ import annotations

import unicodedata
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.canonical import text_hash
from service.redaction import MARK, clean, redact

ARENA = ("sft-0", "policy-12", "falcon")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("I am GPT-4.", "I am [model]."),
        ("I'm ChatGPT, a large language model", "I'm [model], a large language model"),
        ("As Claude, I cannot", "As [model], I cannot"),
        ("as an AI language model named Gemini 1.5 I", "as an AI language model named [model] I"),
        ("My name is LLaMA-2", "My name is [model]"),
        ("I was trained by OpenAI.", "I was trained by [model]."),
        ("made by the team at Anthropic!", "made by the team at [model]!"),
        ("sft-0 says: yes. POLICY-12 too", "[model] says: yes. [model] too"),
        ("I am Falcon", "I am [model]"),
    ],
)
def test_a_name_by_which_a_model_gives_itself_away_is_replaced(text: str, shown: str) -> None:
    found = redact(text, ARENA, "Who are you?")
    assert (found.shown, found.original, found.changed) == (shown, text, True)
    assert found.names == shown.count(MARK)
    assert found.note() == {"shown": text_hash(shown), "original": text, "names": found.names}


@pytest.mark.parametrize(
    "text",
    [
        "Claude Monet painted lilies.", "The Gemini are twins.", "a falcon flies", "Ask OpenAI.", "sft-01 or my-sft-0",
        "I am as happy as can be", "as Claudette said", "", "\n\ttab",
    ],
)  # fmt: skip
def test_a_word_of_another_meaning_stays(text: str) -> None:
    assert not redact(text, ARENA, "?").changed


def test_what_the_prompt_speaks_of_stays() -> None:
    assert not redact("It is known as GPT-4, made by OpenAI.", (), "What did OpenAI call GPT-4?").changed
    assert redact("It is known as GPT-4.", (), "What is GPT?").changed


@given(st.text())
def test_what_is_shown_has_no_control_character_but_line_feed_and_tab(text: str) -> None:
    shown = clean(text)
    assert not [c for c in shown if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cs"}]
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") & set(shown)
    assert clean(shown) == shown
    shown.encode()


def test_a_control_character_is_seen_to_have_been_there_and_line_ends_are_one() -> None:
    assert clean("a\x1b[31mb\r\nc\u202ed\ud800") == "a\ufffd[31mb\nc\ufffdd\ufffd"
    assert (
        clean("\u0645\u200c\u06cc \U0001f469\u200d\U0001f52c")
        == "\u0645\u200c\u06cc \U0001f469\u200d\U0001f52c"
    )


@given(st.text(alphabet="asI m,GPT-4modelcaled ", max_size=60))
def test_what_was_redacted_once_is_not_redacted_again(text: str) -> None:
    once = redact(text, ARENA, "")
    assert redact(once.shown, ARENA, "").shown == once.shown
    assert once.changed == bool(once.names)


@pytest.mark.parametrize(
    "part", ["as ", "as an AI ", "I am the model named called ", "as,, ,,", " ", "GPT-", "sft-0 "]
)
def test_hostile_text_takes_no_long_time(part: str) -> None:
    began = perf_counter()
    redact(part * (200_000 // len(part)), ARENA, "")
    assert perf_counter() - began < 5
