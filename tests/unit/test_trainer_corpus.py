"""The devnet's language and its gold reward: varied, repeatable, and hard to please by tricks."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import corpus, gold
from trainer.errors import ConfigError

PROMPT = "How was the soup at the old mill?"


def test_prompts_are_different_and_follow_from_the_seed() -> None:
    drawn = corpus.prompts(3, 500)
    assert len(set(drawn)) == 500
    assert drawn == corpus.prompts(3, 500)
    assert drawn != corpus.prompts(4, 500)
    assert set(drawn) <= set(corpus.every_prompt())


def test_more_prompts_than_the_grammar_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="960 prompts, not 961"):
        corpus.prompts(0, 961)


def test_demonstrations_are_good_and_bad_short_and_long() -> None:
    shown = corpus.demonstrations(0, 1000)
    golds = [gold.score(item.prompt, item.answer) for item in shown]
    lengths = [len(item.answer.split()) for item in shown]
    assert len({item.answer for item in shown}) > 950
    assert statistics.pstdev(golds) > 0.2
    assert 0.35 < sum(value > 0 for value in golds) / len(golds) < 0.65
    assert min(lengths) < 6
    assert max(lengths) > 15


def test_texts_follow_from_the_seed_and_their_hash_from_their_boundaries() -> None:
    assert corpus.documents(1, 20) == corpus.documents(1, 20) != corpus.documents(2, 20)
    assert corpus.text_sha256(["ab", "c"]) != corpus.text_sha256(["a", "bc"])


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("The soup was superb.", "The soup was nice."),
        ("The soup was plain.", "The soup was awful."),
        ("The soup was good.", "The soup was not good."),
        ("The soup was not bad.", "The soup was bad."),
        ("The soup was very good.", "The soup was good."),
        ("The soup was good. I loved it.", "The soup was good."),
        ("The soup was superb.", "The bread was superb."),
        ("The soup was superb.", "The soup was superb. The soup was superb. The soup was superb."),
        ("The soup was awful.", ""),
        ("The soup was superb. We sat near the window.", "superb superb superb superb superb superb"),
    ],
)
def test_gold_prefers(better: str, worse: str) -> None:
    assert gold.score(PROMPT, better) > gold.score(PROMPT, worse)


def test_gold_by_hand() -> None:
    # "good" 1.8 alone: 1.8 / (1 + 2) / 3; with "superb" 3.0 after it: 4.8 / (2 + 2) / 3; off topic costs 0.3.
    assert gold.score(PROMPT, "The soup was good.") == pytest.approx(0.2)
    assert gold.score(PROMPT, "The soup was good and superb.") == pytest.approx(0.4)
    assert gold.score(PROMPT, "It was good and superb.") == pytest.approx(0.1)
    # "so so so": two word pairs, one of them a repetition, so 1.5 · ½ more is taken.
    assert gold.score(PROMPT, "soup so so so") == pytest.approx(-1.5 / 3)


@given(st.text(), st.lists(st.sampled_from([*gold.LEXICON, "not", "very", "the", "soup", "."]), max_size=40))
def test_gold_is_bounded(prompt: str, words: list[str]) -> None:
    assert -1 <= gold.score(prompt, " ".join(words)) <= 1


def test_every_word_of_judgement_weighs_in_gold() -> None:
    assert all(gold.LEXICON[word] == valence for word, valence in corpus.ADJECTIVES.items())
    for closing, valence in corpus.CLOSINGS.items():
        assert gold.score(PROMPT, f"The soup. {closing}") * valence > 0, closing
