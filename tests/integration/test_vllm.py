"""Answers by a real vLLM, on a CPU: `make test-vllm`. Left out where none is installed, as it takes 4 GB of a disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import toys
from tests.toys import PPO, PROMPTS, equal, weights
from tests.unit.test_trainer_checkpoints import Ended, Ending, kept
from trainer import by_vllm, corpus, devices, ppo, run
from trainer.answer import answer
from trainer.config import HardwareConfig, PpoConfig
from trainer.errors import GenerationError
from trainer.imported import find, read
from trainer.method import Given
from trainer.model import LanguageModel, build, clone, train_tokenizer
from trainer.preferences import write_snapshot
from trainer.progress import silent
from trainer.sampler import Samples, check_parity, sample
from trainer.sequences import answer_logprobs, answer_texts, encode_prompt

ROOT = Path(__file__).parents[2]
os.environ.setdefault(by_vllm.VARIABLE, str(ROOT / ".vllm" / "bin" / "python"))
pytestmark = pytest.mark.skipif(
    by_vllm.version() is None, reason=f"{by_vllm.interpreter()} has no vllm: `make test-vllm` installs it"
)
HARDWARE = HardwareConfig(generation="vllm", cache_gib=0.25)


@pytest.fixture(autouse=True)
def _by_vllm() -> Iterator[None]:
    language()  # made on plain hardware
    devices.use(HARDWARE)
    yield
    devices.use(HardwareConfig())


@pytest.fixture(autouse=True, scope="module")
def _ended() -> Iterator[None]:
    yield
    by_vllm.stop()


@cache
def language() -> LanguageModel:
    """Return a model whose heads are as wide as vLLM wants them on a CPU, and which knows when to end."""
    torch.manual_seed(0)
    shape = replace(toys.SHAPE, width=64, heads=2, layers=2, answer_tokens=12)
    made = build(shape, train_tokenizer(corpus.documents(0, 100), shape.vocabulary))
    with torch.no_grad():  # sharper than a model that has learned nothing
        made.network.get_input_embeddings().weight.mul_(6)  # type: ignore[no-untyped-call]
    return made


def encoded(model: LanguageModel) -> list[list[int]]:
    return [encode_prompt(model, prompt) for prompt in PROMPTS]


def drawn(model: LanguageModel, seed: int = 0, temperature: float = 0.7) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    return sample(model, encoded(model), temperature=temperature, generator=generator)


def our(model: LanguageModel, samples: Samples, temperature: float = 0.7) -> Tensor:
    with torch.no_grad():
        return answer_logprobs(model, samples.batch, temperature)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 0.0])
def test_what_it_draws_from_is_what_our_own_pass_computes(temperature: float) -> None:
    samples = drawn(language(), temperature=temperature)
    check_parity(our(language(), samples, temperature or 1.0), samples.logprobs, samples.batch.answer_mask)
    assert (samples.logprobs[samples.batch.answer_mask == 0] == 0).all()


def test_the_same_seed_draws_the_same_bits_and_another_does_not() -> None:
    one, again, other = drawn(language()), drawn(language()), drawn(language(), seed=1)
    assert torch.equal(one.batch.tokens, again.batch.tokens)
    assert torch.equal(one.logprobs, again.logprobs)
    assert not torch.equal(one.batch.tokens, other.batch.tokens)


def test_an_answer_ends_with_the_end_or_at_the_limit() -> None:
    samples, end = drawn(language(), temperature=2.0), language().template.end
    lengths = samples.batch.answer_mask.sum(dim=1).int().tolist()
    assert 0 < samples.finished.sum() < len(lengths)
    for row, length, finished in zip(
        samples.batch.answers.tolist(), lengths, samples.finished.tolist(), strict=True
    ):
        assert (end in row[:length]) == finished
        assert row[length - 1] == end if finished else length == language().limits.answer_tokens
        assert end not in row[: length - 1]


def test_tokens_come_as_often_as_the_model_says() -> None:
    draws, prompt = 4000, encoded(language())[0]
    short = replace(language(), limits=replace(language().limits, answer_tokens=1))
    samples = sample(short, [prompt] * draws, temperature=1.0, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        chances = language().network(torch.tensor([prompt])).logits[0, -1].softmax(dim=-1)
    seen = torch.bincount(samples.batch.answers[:, 0], minlength=len(chances)) / draws
    # Of 400 tokens each is seen p +- sqrt(p (1 - p) / n) of the time: the sum of |differences| is that of their means.
    expected = (0.8 * (chances * (1 - chances) / draws).sqrt()).sum()
    assert (seen - chances).abs().sum() < 1.5 * expected


def test_weights_that_a_fused_step_changed_are_those_it_draws_from() -> None:
    model = clone(language())
    before = drawn(model)
    optimizer = torch.optim.Adam(model.network.parameters(), lr=1e-2, fused=True)
    answer_logprobs(model, before.batch, 0.7).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    after = drawn(model)
    assert (our(model, before) - before.logprobs).abs().max() > 0.1
    check_parity(our(model, after), after.logprobs, after.batch.answer_mask)
    check_parity(our(language(), again := drawn(language())), again.logprobs, again.batch.answer_mask)


def test_a_policy_of_adapters_draws_with_them() -> None:
    model = clone(language(), PpoConfig(lora_rank=2))
    with torch.no_grad():
        for p in model.network.parameters():
            if p.requires_grad:
                p.add_(0.05)
    samples = drawn(model)
    check_parity(our(model, samples), samples.logprobs, samples.batch.answer_mask)
    assert (our(language(), samples) - samples.logprobs).abs().max() > 0.01


def test_a_first_token_that_is_forbidden_does_not_come_and_others_may_later() -> None:
    first = torch.full((language().network.config.vocab_size,), -torch.inf)
    first[[7, 9]] = 0.0
    samples = sample(
        language(), encoded(language()), temperature=1.0, generator=torch.Generator(), first=first
    )
    assert set(samples.batch.answers[:, 0].tolist()) == {7, 9}
    assert len(set(samples.batch.answers[:, 1].tolist())) > 2
    texts = answer(language(), PROMPTS[:8], samples=3, temperature=1.0, seed=0)
    assert all(text.strip() for of_one in texts for text in of_one)


def test_ppo_learns_and_killed_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    of = Given(parent=language(), reference=language(), reward=judge_of(language()), prompts=PROMPTS)
    straight = ppo.train(PPO, of, 0, silent)
    with pytest.raises(Ended):
        ppo.train(PPO, of, 0, silent, Ending(kept(tmp_path).stage("ppo"), [1]))
    by_vllm.stop()  # as with a process that was killed
    found = ppo.train(PPO, of, 0, silent, kept(tmp_path).stage("ppo"))
    assert equal(weights(found.policy.network), weights(straight.policy.network))
    assert found.metrics == straight.metrics
    assert not equal(weights(found.policy.network), weights(language().network))


def judge_of(model: LanguageModel) -> toys.Scorer:
    torch.manual_seed(3)
    return toys.scorer(model)


def test_a_real_model_answers_a_question_as_by_transformers() -> None:
    devices.use(HardwareConfig())
    smollm2 = read(find("smollm2"), toys.Config().imported)
    short = replace(smollm2, limits=replace(smollm2.limits, answer_tokens=12))
    prompt = [encode_prompt(short, "What is the capital of France?")]
    said = []
    for hardware in (HardwareConfig(), HARDWARE):
        devices.use(hardware)
        found = sample(short, prompt, temperature=0, generator=torch.Generator())
        said += answer_texts(short, found.batch)
    assert said[0] == said[1]
    assert "Paris" in said[0]


def test_a_model_that_it_does_not_know_is_named_and_the_next_is_served() -> None:
    narrow = toys.tuned()  # heads of 8, which vLLM has no attention for on a CPU
    with pytest.raises(
        GenerationError, match=r"head_dim=8.* narrower than 32.*hardware.generation to transformers"
    ):
        drawn(narrow)
    drawn(language())


def test_what_cannot_run_removes_no_other_runs_checkpoints(tmp_path: Path) -> None:
    devices.use(HardwareConfig())
    first = toys.small(tmp_path)  # with heads of 8
    run.bootstrap(first)
    sha256 = write_snapshot(tmp_path / "s.jsonl", toys.labelled(900_000))
    kept = tmp_path / "models" / ".checkpoints-policy-1" / "of-another-run"
    kept.mkdir(parents=True)
    wanted = replace(first, name="policy-1", config=replace(first.config, hardware=HARDWARE))
    with pytest.raises(GenerationError, match="head_dim=8"):
        run.retrain(wanted, parent="sft-0", reference=None, snapshot=tmp_path / "s.jsonl", sha256=sha256)
    assert kept.exists()


def test_who_interrupts_a_draw_gets_no_answers_of_it_afterwards() -> None:
    before = drawn(language())
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        toiled()
    assert torch.equal(drawn(language()).batch.tokens, before.batch.tokens)


def test_one_that_is_killed_at_work_is_an_error_and_the_next_draw_starts_another() -> None:
    before = drawn(language())
    engine = by_vllm._RUNNING[0]._process
    threading.Timer(0.5, engine.kill).start()
    with pytest.raises(GenerationError, match=r"vLLM ended with -9"):
        toiled()
    assert torch.equal(drawn(language()).batch.tokens, before.batch.tokens)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("", "t.drawn(t.language())"),
        ("t.drawn(t.language())", "input()"),
        ("t.drawn(t.language())", "t.toiled()"),
    ],
    ids=["at its start", "at rest", "at work"],
)
def test_it_ends_with_a_trainer_that_is_killed_and_leaves_no_weights(first: str, then: str) -> None:
    program = f"""
from tests.integration import test_vllm as t
t.language(), t.devices.use(t.HARDWARE)
{first}
print("now", flush=True)
{then}
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "now\n"
        time.sleep(3.0)  # at its start or at work it is well into that, wherever that is
        (engine,) = Path(f"/proc/{trainer.pid}/task/{trainer.pid}/children").read_text().split()
        folder = Path(Path(f"/proc/{engine}/cmdline").read_text().split("\0")[3])
        assert folder.is_dir()
        trainer.send_signal(signal.SIGKILL)
    ended = time.monotonic() + 30
    while (Path("/proc") / engine).exists() and time.monotonic() < ended:
        time.sleep(0.1)
    assert not (Path("/proc") / engine).exists()
    assert not folder.exists()


def toiled() -> None:
    """Have so much drawn that it takes a minute."""
    long = replace(language(), limits=replace(language().limits, answer_tokens=200))
    sample(long, encoded(long) * 400, temperature=1.0, generator=torch.Generator())
