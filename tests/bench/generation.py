"""What vLLM saves drawing answers: `python -m tests.bench.generation [--imported smollm2] [--rows 64 256]`.

The same model draws answers of up to 64 tokens to the devnet's prompts by transformers and by vLLM, on one thread of a
CPU or on a GPU, by the clock as vLLM is another process. Each draws once before it is timed. The ratio is of tokens a
second. It is left out where there is no vLLM, which `VLLM_PYTHON` names.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from trainer import by_vllm, corpus, devices, imported
from trainer.config import HardwareConfig, ImportConfig, Precision
from trainer.model import LanguageModel
from trainer.sampler import sample
from trainer.sequences import encode_prompt

TOKENS = 64
"""Of an answer at most."""


def rate(language: LanguageModel, hardware: HardwareConfig, rows: int) -> float:
    """Return tokens a second."""
    devices.use(hardware)
    encoded = [encode_prompt(language, prompt) for prompt in corpus.prompts(0, rows)]
    for timed in (False, True):
        began = time.perf_counter()
        drawn = sample(
            language,
            encoded if timed else encoded[:8],
            temperature=1.0,
            generator=torch.Generator().manual_seed(0),
        )
    return drawn.batch.answer_mask.sum().item() / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imported", metavar="SOURCE", default="smollm2", help="the model")
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64], help="answers at a time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    asked = parser.parse_args()
    here = Path(__file__).parents[2] / ".vllm" / "bin" / "python"
    if here.exists():
        os.environ.setdefault(by_vllm.VARIABLE, str(here))
    if by_vllm.version() is None:
        print(f"left out: {by_vllm.interpreter()} has no vllm; `make test-vllm` installs one for CPUs")
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    hardware = HardwareConfig(device=asked.device, precision=asked.precision)
    devices.use(hardware)
    read = imported.read(imported.find(asked.imported), ImportConfig())
    language = replace(read, limits=replace(read.limits, answer_tokens=TOKENS))
    for rows in asked.rows:
        ours = rate(language, hardware, rows)
        theirs = rate(language, replace(hardware, generation="vllm"), rows)
        print(
            f"{rows} answers at a time: transformers {ours:.0f} tokens/s, vLLM {by_vllm.version()} {theirs:.0f}, "
            f"{theirs / ours:.2f}x"
        )


if __name__ == "__main__":
    main()
