"""Answers drawn by vLLM, which fills a GPU where transformers waits for the longest answer of a batch.

vLLM runs in a process of its own (`vllm_worker.py`), of this interpreter or of the one that VLLM_PYTHON names: it wants
versions of PyTorch and transformers of its own. The weights go there through a file in memory whenever they are others
than before, as after each update of PPO. What comes back is held against our own pass over some of the answers, so that
stale weights, another template or another precision are an error and no quiet harm.
"""

from __future__ import annotations

import atexit
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from trainer import lora
from trainer.config import HardwareConfig
from trainer.diary import worked
from trainer.errors import ConfigError, GenerationError
from trainer.limits import writing

if TYPE_CHECKING:  # `devices`, which models are made with, asks this file whether vLLM is here
    from trainer.model import LanguageModel

VARIABLE = "VLLM_PYTHON"
MEMORY = Path("/dev/shm")  # noqa: S108 - the folder within is private, as `mkdtemp` makes it
"""Where weights are handed over, where there is room."""
STOP_S = 10.0
"""Seconds that an engine has to end in."""
ROUND = 256
"""An engine's longest sequence is a multiple of so many tokens, so that few prompts need another one."""
WORKER = Path(__file__).with_name("vllm_worker.py")
LAUNCHED = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    VARIABLE,
)
"""What a launcher tells its processes, and is not for an engine."""
_FIND = "from importlib.metadata import packages_distributions as p, version as v; print(v(p()['vllm'][0]))"


def interpreter() -> str:
    """Return the Python that has, or would have, vLLM."""
    return os.environ.get(VARIABLE) or sys.executable


def version() -> str | None:
    """Return the version of vLLM; None where there is none."""
    return _version(interpreter())


@cache
def _version(python: str) -> str | None:
    try:
        found = subprocess.run(
            [python, "-I", "-c", _FIND], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def check() -> None:
    """Raise a ConfigError where there is no vLLM."""
    if version() is None:
        raise ConfigError(
            f"hardware.generation is vllm, but {interpreter()} has no vllm: install it there, name another Python that "
            f"has it by {VARIABLE} (`make test-vllm` makes one for CPUs, .vllm/bin/python), or set "
            "hardware.generation to transformers"
        )


def draw(
    language: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    temperature: float,
    generator: torch.Generator,
    first: Tensor | None,
    hardware: HardwareConfig,
) -> tuple[list[list[int]], list[list[float]]]:
    """Return answers to B prompts, the end included where they ended, and log π of their tokens.

    Each answer has a seed of its own, so that it does not depend on which are drawn beside it but for a sum's last bits.

    Raises:
        GenerationError: vLLM cannot be started with this model, or has ended.
    """
    seeds = torch.randint(1 << 31, (len(prompts),), generator=generator, device=generator.device)
    order = {
        "prompts": [list(prompt) for prompt in prompts],
        "seeds": seeds.tolist(),
        "temperature": temperature,
        "tokens": language.limits.answer_tokens,
        "end": language.template.end,
        "first": None if first is None else first.tolist(),
    }
    template, limits = language.template, language.limits
    usual = len(template.before) + limits.prompt_tokens + len(template.between)
    longest = max(usual, *map(len, prompts)) + limits.answer_tokens
    try:
        said = _engine(language.network, longest, hardware).ask(order)
    except BaseException:
        stop()  # or the next would be given the answers to this one
        raise
    return said["answers"], said["logprobs"]


def _engine(network: PreTrainedModel, longest: int, hardware: HardwareConfig) -> Engine:
    """Return the engine of this process with a network's weights: the one that runs, where it has room for them."""
    running = _RUNNING[0] if _RUNNING else None
    if running and running.fits(network, longest, hardware):
        running.load(network)
        return running
    stop()
    rounded, most = -(-longest // ROUND) * ROUND, getattr(network.config, "max_position_embeddings", longest)
    _RUNNING.append(Engine(network, max(longest, min(rounded, most)), hardware))
    return _RUNNING[0]


@atexit.register
def stop() -> None:
    """End the engine of this process, if there is one."""
    while _RUNNING:
        _RUNNING.pop().stop()


class Engine:
    """A running vLLM with a network's weights."""

    def __init__(self, network: PreTrainedModel, longest: int, hardware: HardwareConfig) -> None:
        self._shape, self._longest, self._hardware = _shape(network), longest, hardware
        self._content: list[int] = []
        self._spent = 0.0
        options = {
            "dtype": hardware.precision,
            "max_model_len": longest,
            "kv_cache_memory_bytes": int(hardware.cache_gib * 2**30),
        }
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        size = sum(p.nbytes for p in network.parameters())
        roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * size
        # It is the worker that removes it if this process is killed, so it has it before anything is in it.
        self._folder = Path(tempfile.mkdtemp(prefix="haptic-vllm-", dir=MEMORY if roomy else None))
        self._process = subprocess.Popen(
            [interpreter(), "-I", str(WORKER), str(self._folder), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(os.environ, hardware),
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for this process, which then ends it
        )
        if hardware.device == "cuda":
            torch.cuda.empty_cache()  # what PyTorch holds of a GPU in vain is for vLLM
        try:
            self.load(network)
        except BaseException:
            self.stop()
            raise

    def fits(self, network: PreTrainedModel, longest: int, hardware: HardwareConfig) -> bool:
        """Tell whether a network and its sequences can be taken."""
        return (
            self._process.poll() is None
            and self._hardware == hardware
            and longest <= self._longest
            and _shape(network) == self._shape
        )

    def load(self, network: PreTrainedModel) -> None:
        """Take a network's weights, where they are others than before."""
        content = _content(network)
        if content != self._content:
            _write(network, self._hardware, self._folder)
            self.ask({"load": True})
            self._content = content

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Give an order and return what comes back."""
        assert self._process.stdin is not None  # noqa: S101 - for mypy
        with suppress(BrokenPipeError):  # its log says why
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End it. Twice is harmless."""
        with suppress(BrokenPipeError):  # an order that nobody took
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - for mypy
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            said = [x for x in self._log.read().decode(errors="replace").splitlines() if "Error" in x]
            raise GenerationError(
                f"vLLM ended with {code}: {said[-1].strip(' .') if said else 'it does not say why'}. "
                "Where it cannot run the model (on a CPU not with heads narrower than 32), set hardware.generation to "
                f"transformers; where it has no room, change hardware.cache_gib ({self._hardware.cache_gib})"
            )
        found: dict[str, Any] = json.loads(line)
        worked(found["cpu_s"] - self._spent)
        self._spent = found["cpu_s"]
        return found


_RUNNING: list[Engine] = []
"""The engine of this process: none or one."""


def _shape(network: PreTrainedModel) -> str:
    """Return what an engine is built by."""
    shape: str = network.config.to_json_string()
    return shape


@torch.no_grad()
def _content(network: PreTrainedModel) -> list[int]:
    """Return the sums of the weights' bits, which no update leaves as they are.

    (PyTorch's own count of changes stands still in a fused optimizer step.)
    """
    sums = [p.detach().view(torch.int32).sum(dtype=torch.int64) for p in network.parameters()]
    found: list[int] = torch.stack(sums).tolist()
    return found


def _write(network: PreTrainedModel, hardware: HardwareConfig, folder: Path) -> None:
    """Write a network as vLLM reads it, adapters merged."""
    plain = lora.merged(network)
    tensors = {
        name: x.detach()
        .to("cpu", getattr(torch, hardware.precision))
        .clone()  # safetensors wants no shared memory
        for name, x in plain.state_dict().items()
    }
    weights = folder / "model.safetensors"
    with writing(weights, sum(x.nbytes for x in tensors.values())):
        config = copy.deepcopy(plain.config)
        config.architectures = [type(plain).__name__]
        config.save_pretrained(folder)
        save_file(tensors, weights, metadata={"format": "pt"})


def _environment(environ: Mapping[str, str], hardware: HardwareConfig) -> dict[str, str]:
    """Return the environment of an engine: one process, on this one's GPU, that fetches and tells nothing."""
    place = int(environ.get("LOCAL_RANK", "0"))
    kept = {k: v for k, v in environ.items() if k not in LAUNCHED and not k.startswith("TORCHELASTIC_")}
    kept |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    if hardware.device == "cuda":
        visible = [name for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        return kept | {"CUDA_VISIBLE_DEVICES": visible[place] if visible else str(place)}
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return kept | threads | {"CUDA_VISIBLE_DEVICES": ""}
