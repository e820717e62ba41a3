"""Layout and sampling: padding changes nothing, answers end, none is empty, and they differ where they can."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from trainer import corpus, losses
from trainer.answer import answer, read_prompts, write_answers
from trainer.config import ModelConfig
from trainer.errors import PromptFileError, RegistryError
from trainer.model import (
    ANSWER,
    END,
    PAD,
    PROMPT,
    LanguageModel,
    build,
    load,
    positions,
    save,
    train_tokenizer,
)
from trainer.sampler import sample
from trainer.sequences import (
    answer_logits,
    answer_texts,
    decode,
    encode_answer,
    encode_prompt,
    pad,
    truncated,
)

torch.set_num_threads(1)  # what else runs on this machine would make two wait for each other

SHAPE = ModelConfig(vocabulary=300, width=16, layers=1, heads=2, prompt_tokens=12, answer_tokens=10)
TOKENIZER = train_tokenizer(corpus.documents(0, 50), SHAPE.vocabulary)
SIZE = TOKENIZER.get_vocab_size()


class Insists(nn.Module):
    """A language head that wants some tokens, whatever came before."""

    def __init__(self, **logits: float) -> None:
        super().__init__()
        self.logits = torch.zeros(SIZE)
        for token, logit in logits.items():
            self.logits[int(token[1:])] = logit

    def forward(self, hidden: Tensor) -> Tensor:
        return self.logits.expand(*hidden.shape[:-1], SIZE)


def language(**logits: float) -> LanguageModel:
    torch.manual_seed(0)
    model = build(SHAPE, TOKENIZER)
    with torch.no_grad():  # large weights: differences between positions must show
        for parameter in model.network.parameters():
            parameter.mul_(8)
    if logits:
        model.network.lm_head = Insists(**logits)  # type: ignore[assignment]
    return model


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_prompts_end_and_answers_begin_at_one_column() -> None:
    batch = pad([[PROMPT, 7, ANSWER], [PROMPT, ANSWER]], [[8, END], [9, 10, END]])
    assert batch.tokens.tolist() == [
        [PROMPT, 7, ANSWER, 8, END, PAD],
        [PAD, PROMPT, ANSWER, 9, 10, END],
    ]
    assert batch.mask.tolist() == [[1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]]
    assert batch.answers.tolist() == [[8, END, PAD], [9, 10, END]]
    assert batch.last(batch.tokens).tolist() == [END, END]
    assert batch.before_answers(batch.tokens).tolist() == [[ANSWER, 8, END], [ANSWER, 9, 10]]
    assert positions(batch.mask).tolist() == [[0, 1, 2, 3, 4, 4], [0, 0, 1, 2, 3, 4]]


def test_a_long_prompt_keeps_its_end_and_a_long_answer_its_beginning() -> None:
    model, text = language(), "one two three four five six seven eight nine ten eleven"
    ids = TOKENIZER.encode(text).ids
    assert encode_prompt(model, text) == [PROMPT, *ids[-12:], ANSWER]
    assert encode_answer(model, text) == [*ids[:9], END]
    assert truncated(model, [text, "a"]) == 0.5


def test_text_survives_encoding_whatever_its_script() -> None:
    wide = LanguageModel(language().network, TOKENIZER, ModelConfig(answer_tokens=100))
    for text in ("The soup was good.", "naïve café", "日本 🙂", "a\u2028b"):
        assert decode(wide, encode_answer(wide, text)) == text


def test_padding_changes_no_log_probability() -> None:
    model = language()
    prompts, answers = [[PROMPT, 7, 8, 9, ANSWER], [PROMPT, ANSWER]], [[20, END], [30, 31, 32, END]]
    together = pad(prompts, answers)
    joined = losses.token_logprobs(answer_logits(model, together), together.answers)
    for row in range(2):
        alone = pad(prompts[row : row + 1], answers[row : row + 1])
        expected = losses.token_logprobs(answer_logits(model, alone), alone.answers)[0]
        assert joined[row, : len(expected)].tolist() == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_sampler_reports_the_log_probabilities_that_a_training_pass_gives(temperature: float) -> None:
    model = language()
    prompts = [[PROMPT, *range(7, 7 + n), ANSWER] for n in range(8)] * 8
    # END is drawn often, so that the batch is compacted several times.
    with torch.no_grad():
        model.network.model.embed_tokens.weight[END] *= 3
    drawn = sample(model, prompts, temperature=temperature, generator=generator())
    lengths = drawn.batch.answer_mask.sum(dim=1)
    assert len(set(lengths.tolist())) > 3
    again = losses.token_logprobs(
        answer_logits(model, drawn.batch), drawn.batch.answers, temperature=temperature
    )
    assert ((again - drawn.logprobs) * drawn.batch.answer_mask).abs().max() < 1e-3


def test_an_answer_has_one_end_as_its_last_token_or_none_and_the_full_length() -> None:
    drawn = sample(language(t3=4.0), [[PROMPT, ANSWER]] * 64, temperature=1.0, generator=generator())
    mask = drawn.batch.answer_mask
    ends = (drawn.batch.answers == END).sum(dim=1)
    assert ends[drawn.finished].tolist() == [1] * int(drawn.finished.sum())
    assert (drawn.batch.last(drawn.batch.tokens) == END).tolist() == drawn.finished.tolist()
    cut = ~drawn.finished
    assert cut.any()
    assert drawn.finished.any()
    assert mask[cut].sum(dim=1).tolist() == [10.0] * int(cut.sum())


def test_a_padding_token_that_was_drawn_counts_as_part_of_the_answer() -> None:
    drawn = sample(language(t0=50.0), [[PROMPT, ANSWER]] * 2, temperature=1.0, generator=generator())
    assert drawn.batch.answers.tolist() == [[PAD] * 10] * 2
    assert drawn.batch.answer_mask.sum(dim=1).tolist() == [10.0, 10.0]


def test_what_fills_a_row_says_nothing_even_where_that_token_is_a_word() -> None:
    """In many a tokenizer from elsewhere token 0 is an ordinary one, such as an exclamation mark."""
    told = json.loads(TOKENIZER.to_str())
    told["added_tokens"] = [token for token in told["added_tokens"] if token["id"] != PAD]
    ordinary = replace(language(), tokenizer=Tokenizer.from_str(json.dumps(told)))
    short, long = encode_answer(ordinary, "tea"), encode_answer(ordinary, "a tea")
    assert decode(ordinary, [*short, PAD]) != decode(ordinary, short)
    assert answer_texts(ordinary, pad([[PROMPT]] * 2, [short, long])) == ["tea", "a tea"]


def test_a_model_that_wants_to_say_nothing_still_answers_with_visible_text() -> None:
    texts = answer(language(t3=50.0), ["a", "b"], samples=3, temperature=1.0, seed=1)
    assert all(text.strip() for row in texts for text in row)
    assert all(len(set(row)) == 3 for row in texts)


def test_a_model_that_insists_on_one_answer_gives_it_every_time_and_stops() -> None:
    token = next(t for t in range(SIZE) if TOKENIZER.decode([t]).strip() == "a")
    texts = answer(language(**{f"t{token}": 80.0}), ["x"], samples=3, temperature=1.0, seed=1)
    assert len(set(texts[0])) == 1
    assert texts[0][0].startswith("a")


def test_answers_follow_from_the_seed() -> None:
    once, again, other = (
        answer(language(), ["x", "y"], samples=2, temperature=1.0, seed=s) for s in (1, 1, 2)
    )
    assert once == again != other


def test_a_saved_model_is_loaded_to_the_last_bit(tmp_path: Path) -> None:
    model = language()
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    batch = pad([encode_prompt(model, "tea?")], [encode_answer(model, "good")])
    assert torch.equal(answer_logits(model, batch), answer_logits(loaded, batch))
    assert loaded.limits == model.limits
    assert decode(loaded, encode_answer(loaded, "good")) == "good"


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    save(language(), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(RegistryError, match="no readable model"):
        load(tmp_path / "model")
    with pytest.raises(RegistryError, match="no readable model"):
        load(tmp_path / "none")


def test_prompts_are_read_and_answers_written_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "tea?"}\n{"prompt": "a\u2028b", "more": 1}\n', encoding="utf-8")
    prompts = read_prompts(path)
    assert prompts == ["tea?", "a\u2028b"]
    assert write_answers(tmp_path / "out" / "a.jsonl", "sft-0", prompts, [["x", "y"], ["é", "z"]]) == 4
    lines = (tmp_path / "out" / "a.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[2]) == {"prompt": "a\u2028b", "model": "sft-0", "text": "é", "sample": 0}
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"prompt": 1}', '{"prompt": " "}', '{"prompt": "a \\ud800"}', ""]
)
def test_a_line_that_is_no_prompt_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "tea?"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(PromptFileError, match="line 2"):
        read_prompts(path)


def test_a_missing_and_an_empty_prompts_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match="cannot read"):
        read_prompts(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(PromptFileError, match="no prompts"):
        read_prompts(tmp_path / "empty")
