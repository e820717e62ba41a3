"""What can be said of answers by vLLM without vLLM; with it, `tests/integration/test_vllm.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.toys import tuned
from trainer import by_vllm, devices, sampler
from trainer.config import Config, HardwareConfig, PpoConfig
from trainer.errors import ConfigError, GenerationError, ParityError
from trainer.model import clone
from trainer.overrides import override

BARE = HardwareConfig(generation="vllm")


@pytest.fixture(autouse=True)
def _no_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    tuned()  # made on plain hardware, whatever a test asks for
    monkeypatch.setenv(by_vllm.VARIABLE, str(tmp_path / "python"))
    yield
    devices.use(HardwareConfig())


def test_auto_is_transformers_and_vllm_is_refused_where_there_is_none(tmp_path: Path) -> None:
    devices.use(HardwareConfig(generation="auto"))
    assert devices.used().generation == "transformers"
    assert "vllm" not in devices.recorded()
    with pytest.raises(ConfigError, match=rf"{tmp_path}/python has no vllm: .* VLLM_PYTHON"):
        devices.use(BARE)


def test_an_engine_that_cannot_start_says_why_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A Python that has not even what vLLM needs; one that has vLLM cannot start with every model either.
    monkeypatch.setenv(by_vllm.VARIABLE, sys.executable)
    if by_vllm.version():
        pytest.skip("this Python has vLLM")
    monkeypatch.setattr(by_vllm, "MEMORY", tmp_path)
    with pytest.raises(
        GenerationError, match=r"No module named 'vllm'.* set hardware.generation to transformers"
    ):
        by_vllm.draw(
            tuned(), [[1, 2]], temperature=1.0, generator=torch.Generator(), first=None, hardware=BARE
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fused", [False, True])
def test_any_step_of_an_optimizer_changes_what_an_engine_has_to_be_told(*, fused: bool) -> None:
    network = clone(tuned()).network
    before = by_vllm._content(network)
    assert by_vllm._content(clone(tuned()).network) == before
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=fused)
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(a != b for a, b in zip(before, by_vllm._content(network), strict=True))


def test_what_an_engine_reads_is_the_network_with_its_adapters(tmp_path: Path) -> None:
    language = clone(tuned(), PpoConfig(lora_rank=2))
    with torch.no_grad():
        for p in language.network.parameters():
            if p.requires_grad:
                p.add_(0.1)
    tokens = torch.arange(5, 25).view(2, 10)
    by_vllm._write(language.network, BARE, tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True, dtype=torch.float32)
    with torch.no_grad():
        ours, plain = language.network(tokens).logits, tuned().network(tokens).logits
        torch.testing.assert_close(read(tokens).logits, ours)
    assert not torch.allclose(ours, plain, atol=1e-3)


def test_an_engine_is_no_process_of_a_launcher_and_takes_the_gpu_of_its_trainer() -> None:
    launched = {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "MASTER_PORT": "1",
        "TORCHELASTIC_RUN_ID": "x",
    }
    told = by_vllm._environment(launched | {"PATH": "/bin"}, HardwareConfig(device="cuda"))
    assert told["PATH"] == "/bin"
    assert not launched.keys() & told.keys()
    assert told["CUDA_VISIBLE_DEVICES"] == "1"
    seen = launched | {"CUDA_VISIBLE_DEVICES": "4,6"}
    assert by_vllm._environment(seen, HardwareConfig(device="cuda"))["CUDA_VISIBLE_DEVICES"] == "6"
    assert by_vllm._environment(seen, HardwareConfig())["CUDA_VISIBLE_DEVICES"] == ""
    assert (told["HF_HUB_OFFLINE"], told["VLLM_NO_USAGE_STATS"]) == ("1", "1")


def test_half_precision_is_held_to_the_mean_as_its_worst_token_says_nothing() -> None:
    mask = torch.ones(4, 25)
    near, far = torch.zeros(4, 25), torch.full((4, 25), 0.25)
    near[0, 0] = 0.08
    with pytest.raises(ParityError):
        sampler.check_parity(near, torch.zeros(4, 25), mask)
    devices.use(HardwareConfig(precision="bfloat16"))
    near[0, 0] = 0.8
    sampler.check_parity(near, torch.zeros(4, 25), mask)
    with pytest.raises(ParityError, match=r"2\.50e-01 nats, over 1\.8e-01"):
        sampler.check_parity(far, torch.zeros(4, 25), mask)
    # What fills a row counts neither as agreeing nor as not, and of few tokens the mean says less.
    half = torch.cat([mask, 0 * mask])
    with pytest.raises(ParityError, match=r"2\.50e-01 nats, over 1\.8e-01"):
        sampler.check_parity(far.repeat(2, 1), torch.zeros(8, 25), half)
    sampler.check_parity(far[:, :1], torch.zeros(4, 1), torch.ones(4, 1))
    sampler.check_parity(far[:, :1], torch.zeros(4, 1), torch.zeros(4, 1))


def test_a_temperature_that_vllm_would_change_is_refused() -> None:
    devices._USED.set(BARE)  # as if it were here: nothing is asked of it
    with pytest.raises(ConfigError, match=r"temperature 0\.005: vLLM draws at 0\.01 at least"):
        sampler.sample(tuned(), [[1, 2]], temperature=0.005, generator=torch.Generator())


def test_what_it_holds_in_memory_is_no_part_of_what_a_result_follows_from() -> None:
    devices.use(HardwareConfig(cache_gib=7.0))
    changed = devices.recorded()
    devices.use(HardwareConfig())
    assert devices.recorded() == changed


@pytest.mark.parametrize(("name", "value"), [("generation", "vLLM"), ("cache_gib", 0.0)])
def test_a_setting_that_cannot_be_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"hardware.{name} must be"):
        override(Config(), {"hardware": {name: value}})
