"""What packing saves supervised fine-tuning: `python -m tests.bench.packing [--imported smollm2]`.

Tokens of prompts and answers that are learned from in a CPU second of one thread, the devnet's demonstrations sixteen
a step, each in a row of its own and in rows that they share. The loss of both is the same.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Final

import torch

from trainer import corpus, imported, pretrain, sft
from trainer.config import ImportConfig, ModelConfig, PretrainConfig
from trainer.model import LanguageModel
from trainer.packing import pack
from trainer.progress import silent
from trainer.sequences import encode_answer, encode_prompt, pad

WIDTHS: Final = (0, 64, 96, 128, 192)
"""Tokens of a shared row; 0 is a row each."""
BATCH: Final = 16
Step = Sequence[tuple[list[int], list[int]]]
"""Prompts and answers of a step."""


def rate(language: LanguageModel, steps: Sequence[Step], width: int) -> tuple[float, float, float]:
    """Return tokens per CPU second, the share of places that is no padding, and the last step's loss."""
    real = sum(len(prompt) + len(answer) for step in steps for prompt, answer in step)
    places = sum(
        pack(step, width).tokens.numel() if width else pad(*zip(*step, strict=True)).tokens.numel()
        for step in steps
    )
    loss = torch.zeros(())
    began = time.process_time()
    for step in steps:
        language.network.zero_grad()
        loss = sft.answer_loss(language, step, width)
        loss.backward()  # type: ignore[no-untyped-call]
    return real / (time.process_time() - began), real / places, loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--imported", metavar="SOURCE", help="a model from elsewhere, in place of the devnet's"
    )
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    language = (
        imported.read(imported.find(asked.imported), ImportConfig())
        if asked.imported
        else pretrain.train(PretrainConfig(steps=1), ModelConfig(), corpus.documents(0, 2000), 0, silent)
    )
    drawn = [
        (encode_prompt(language, d.prompt), encode_answer(language, d.answer))
        for d in corpus.demonstrations(0, BATCH * asked.steps)
    ]
    steps = [drawn[begin : begin + BATCH] for begin in range(0, len(drawn), BATCH)]
    rate(language, steps[: len(steps) // 4], 0)
    found = {width: rate(language, steps, width) for width in WIDTHS}
    for width, (speed, filled, loss) in found.items():
        name = f"rows of {width}" if width else "a row each"
        print(
            f"{name:<11} {speed:7.0f} tokens/s, {speed / found[0][0]:.2f}x, {filled:.0%} no padding, loss {loss:.6f}"
        )
    if max(loss for *_, loss in found.values()) - min(loss for *_, loss in found.values()) > 1e-4:
        raise SystemExit("packing changes the loss")


if __name__ == "__main__":
    main()
