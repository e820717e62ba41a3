"""A trainer in a second, for tests of what surrounds training: the same command line, models without weights."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from trainer.registry import WEIGHTS, Entry, Registry, file_sha256

WORDS = ("horrible", "tired", "decent", "charming")
"""From bad to good by the devnet's lexicon."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    for name in ("registry", "model", "prompts", "out", "parent", "name", "snapshot", "sha256", "config"):
        parser.add_argument(f"--{name}")
    for name in ("samples", "seed"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--exit-with-parent", action="store_true")
    options = parser.parse_args()
    {"answer": answer, "bootstrap": train, "retrain": train}[options.command](options)


def answer(options: argparse.Namespace) -> None:
    with Path(options.out).open("w", encoding="utf-8") as out:
        for line in Path(options.prompts).read_text(encoding="utf-8").splitlines():
            prompt = json.loads(line)["prompt"]
            for n in range(options.samples):
                # U+2028 is a letter in JSON, whatever Python's splitlines says.
                # Texts of two models differ, and name neither.
                tone = hashlib.sha256(options.model.encode()).hexdigest()[:6]
                text = f"{tone} found it {WORDS[n % 4]} \u2028 good {n % 4}"
                row = {"prompt": prompt, "model": options.model, "text": text, "sample": n}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")


def train(options: argparse.Namespace) -> None:
    if options.snapshot:
        found = hashlib.sha256(Path(options.snapshot).read_bytes()).hexdigest()
        if found != options.sha256:
            raise SystemExit(f"snapshot has sha256 {found}")
    registry = Registry(Path(options.registry))
    with registry.staging(options.name) as folder:
        (folder / WEIGHTS).parent.mkdir(parents=True)
        (folder / WEIGHTS).write_bytes(options.name.encode())
        made = len(registry.entries())
        registry.add(
            Entry(
                name=options.name, kind="policy" if options.parent else "sft", parent=options.parent,
                data_sha256=options.sha256 or "", config={}, seed=options.seed or 0, metrics={"accuracy": 0.75},
                code_version="", weights_sha256=file_sha256(folder / WEIGHTS), created_at=made,
            ),
            folder,
        )  # fmt: skip
    print(json.dumps({"stage": "train", "step": 1, "of": 1, "metrics": {"loss": 0.5}}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
