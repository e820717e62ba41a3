"""Reward models on what real people preferred: `python -m tests.bench.reward [--all] [--out FILE]`.

ETHICS-utilitarianism (Hendrycks et al. 2021): of two scenarios, which is more pleasant. The last 4,000 pairs of the
file are held out, and what has a scenario in common with them is not learned from. SmolLM2-135M with adapters learns
2,000 pairs, all others learn all that are left. With --all also HH-harmless and QA-feedback, by five folds of their
prompts, of which it learns 400: an hour. Shares have 95 % intervals (Wilson, as if pairs of one prompt were
independent); CPU seconds are of one thread. Each row is written to FILE when it is done, and taken from there by the
next run of the same code. It ends with an error where a bar does not hold.

The data are no part of the project: they are read from the folder that HAPTIC_DATA names, or ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tests.bench.bars import show
from trainer import imported, reward
from trainer.config import ImportConfig, ModelConfig, RewardConfig
from trainer.model import LanguageModel, build, train_tokenizer
from trainer.preferences import ONE_PPM, Comparison
from trainer.progress import Progress
from trainer.sequences import encode_answer, encode_prompt, pad
from trainer.shares import wilson

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("HAPTIC_DATA") or ROOT.parent / "shared" / "data")
HELD_OUT, FOLDS = 4000, 5
FEW = {"ethics": 2000, "hh": 400, "qa": 400}
"""Pairs that SmolLM2 learns from: of the longer texts of some data a thread reads one pair a second."""
SHARE, GAIN, CPU_S = 0.73, 0.04, 600.0
"""The bars: held-out accuracy, how far it is above a model from scratch, and the seconds that learning may take."""
ADAPTED = RewardConfig(
    epochs=1, batch=16, learning_rate=1e-3, weight_decay=0.01, lora_rank=8, precision="bfloat16"
)
ROOM = {"ethics": (64, 64), "hh": (48, 80), "qa": (16, 96)}
"""Tokens of a prompt and of an answer that a network reads at most; the other judges read them whole."""
SCRATCH = RewardConfig(epochs=2, batch=32, learning_rate=2e-3, weight_decay=0.1)
SHAPE = ModelConfig(vocabulary=4000, width=128, layers=2, heads=4, prompt_tokens=64, answer_tokens=64)
CODE = b"".join(
    file.read_bytes()
    for file in (
        Path(__file__),
        *(ROOT / "trainer" / f"{n}.py" for n in ("reward", "model", "lora", "sequences")),
    )
)
"""What a row follows from beside its data, as it is when the bench starts."""
PUBLISHED = {
    "ethics": "published, on its own test: word averaging .679, BERT-base .734, RoBERTa-large .795 (Hendrycks 2021)",
    "hh": "no pair has a second judge; elsewhere people agree with people .70 (LLMFAO) to .73 (InstructGPT's labelers)",
    "qa": "no pair has a second judge; elsewhere people agree with people .70 (LLMFAO) to .73 (InstructGPT's labelers)",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one fold."""

    key: str
    """Hash of everything that it follows from."""
    data: str
    method: str
    fold: int
    learned: int
    """Pairs learned from."""
    right: list[bool]
    """Of each held-out pair, whether it was ordered as people did; a coin's toss where it said nothing."""
    learning_s: float
    scoring_s: float


Score = Callable[[Sequence[Comparison]], list[float]]
"""Margins of pairs: above 0 where the chosen one is liked better."""
Teach = Callable[[str, Sequence[Comparison]], Score]
"""Learns from pairs of a data set."""


def shorter(_: str, learned: Sequence[Comparison]) -> Score:
    """Return the judge that likes what is shorter, or longer, whichever people did more often."""
    sign = 1 if sum(len(c.rejected) - len(c.chosen) for c in learned) > 0 else -1
    return lambda pairs: [float(sign * (len(c.rejected) - len(c.chosen))) for c in pairs]


def tfidf(_: str, learned: Sequence[Comparison]) -> Score:
    """Return Bradley-Terry on weighted counts of words and pairs of words."""
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    words.fit([text for c in learned for text in (c.chosen, c.rejected)])

    def gaps(pairs: Sequence[Comparison]):  # noqa: ANN202 - scipy's sparse matrix
        return words.transform([c.chosen for c in pairs]) - words.transform([c.rejected for c in pairs])

    turned = torch.randint(0, 2, (len(learned),), generator=torch.Generator().manual_seed(0)).numpy() * 2 - 1
    model = LogisticRegression(C=10, fit_intercept=False, max_iter=300)
    model.fit(gaps(learned).multiply(turned[:, None]).tocsr(), turned)
    return lambda pairs: (gaps(pairs) @ model.coef_[0]).tolist()


def scratch(_: str, learned: Sequence[Comparison]) -> Score:
    """Return a transformer of a million weights that has read nothing else."""
    torch.manual_seed(0)
    texts = [text for c in learned for text in (c.prompt, c.chosen, c.rejected)]
    return neural(build(SHAPE, train_tokenizer(texts, SHAPE.vocabulary)), SCRATCH, learned)


def adapted(name: str, learned: Sequence[Comparison]) -> Score:
    """Return SmolLM2 with adapters."""
    return neural(smollm2(name), ADAPTED, learned)


def neural(language: LanguageModel, config: RewardConfig, learned: Sequence[Comparison]) -> Score:
    """Return a reward model as the trainer makes it."""
    model = reward.train(config, language, learned, 0, told)
    return lambda pairs: margins(model, language, config, pairs)


METHODS: Mapping[str, Teach] = {
    "length": shorter,
    "tf-idf": tfidf,
    "tf-idf, as few": tfidf,
    "from scratch": scratch,
    "SmolLM2 + LoRA": adapted,
}
ON_FEW = ("tf-idf, as few", "SmolLM2 + LoRA")
"""Methods that learn from few pairs only, where more are left."""


@torch.no_grad()
def margins(
    model: reward.Scorer, language: LanguageModel, config: RewardConfig, pairs: Sequence[Comparison]
) -> list[float]:
    """Score both sides of each pair, those of a length together."""
    found = [0.0] * len(pairs)
    order = sorted(
        range(len(pairs)), key=lambda n: len(pairs[n].prompt) + len(pairs[n].chosen + pairs[n].rejected)
    )
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        prompts = [encode_prompt(language, pairs[n].prompt) for n in rows] * 2
        answers = [encode_answer(language, pairs[n].chosen) for n in rows]
        answers += [encode_answer(language, pairs[n].rejected) for n in rows]
        with torch.autocast("cpu", getattr(torch, config.precision), config.precision != "float32"):
            chosen, rejected = reward.score(model, pad(prompts, answers)).chunk(2)
        for n, gap in zip(rows, (chosen - rejected).tolist(), strict=True):
            found[n] = gap
    return found


@cache
def read() -> LanguageModel:
    return imported.read(imported.find("smollm2"), ImportConfig(layout="plain"))


def smollm2(name: str) -> LanguageModel:
    """Return SmolLM2 with a data set's limits."""
    prompt, answer = ROOM[name]
    return replace(read(), limits=replace(read().limits, prompt_tokens=prompt, answer_tokens=answer))


def told(progress: Progress) -> None:
    print(f"  {progress.step} of {progress.of} steps, {progress.metrics}", flush=True)


# --- the data -----------------------------------------------------------------------------------------------------


def lines(name: str) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def pair(prompt: str, chosen: str, rejected: str) -> Comparison:
    return Comparison(prompt, chosen, rejected, ONE_PPM, 1, 0)


def ethics() -> Iterator[tuple[list[Comparison], list[Comparison]]]:
    """Yield what is left to learn from, and what is held out."""
    pairs = [pair("", row["better"], row["worse"]) for row in lines("ethics_utilitarianism.jsonl")]
    held = pairs[-HELD_OUT:]
    seen = {text for c in held for text in (c.chosen, c.rejected)}
    left = [c for c in pairs[:-HELD_OUT] if c.chosen not in seen and c.rejected not in seen]
    random.Random(0).shuffle(left)
    yield left, held


def hh() -> list[Comparison]:
    found = []
    for row in lines("hh_harmless.jsonl"):
        shared = os.path.commonprefix([row["chosen"], row["rejected"]])  # noqa: RUF071 - of texts, not paths
        cut = shared.rfind("\n\nAssistant:") + len("\n\nAssistant:")
        found.append(pair(row["chosen"][:cut], row["chosen"][cut:].strip(), row["rejected"][cut:].strip()))
    return found


def qa() -> list[Comparison]:
    return [
        pair(row["prompt"], *(row["responses"][p[side]]["text"] for side in ("ab" if p["label"] == "a" else "ba")))
        for row in lines("qa_feedback.jsonl")
        for p in row["pairs"]
        if p["label"] != "tie"
    ]  # fmt: skip


def folds(pairs: Sequence[Comparison]) -> Iterator[tuple[list[Comparison], list[Comparison]]]:
    """Yield what is left and what is held out, five times; pairs of one prompt stay together."""
    side = [int(sha256(c.prompt.encode()).hexdigest(), 16) % FOLDS for c in pairs]
    for fold in range(FOLDS):
        left = [c for c, s in zip(pairs, side, strict=True) if s != fold]
        random.Random(0).shuffle(left)
        yield left, [c for c, s in zip(pairs, side, strict=True) if s == fold]


# --- rows ---------------------------------------------------------------------------------------------------------


def measure(
    name: str, splits: Iterator[tuple[list[Comparison], list[Comparison]]], out: Path, methods: Sequence[str]
) -> dict[str, list[Row]]:
    """Return the rows of each method; those that FILE has are not made again."""
    done = {row.key: row for row in (Row(**json.loads(line)) for line in out.read_text().splitlines())}
    found: dict[str, list[Row]] = {method: [] for method in methods}
    for fold, (left, held) in enumerate(splits):
        for method in methods:
            learned = left[: FEW[name]] if method in ON_FEW else left
            key = of(name, method, fold, learned, held)
            if key not in done:
                print(f"{name}, fold {fold}: {method} on {len(learned)} pairs", flush=True)
                began = time.process_time()
                score = METHODS[method](name, learned)
                taught = time.process_time()
                gaps = score(held)
                ended = time.process_time()
                coin = random.Random(0)
                right = [gap > 0 or (gap == 0 and coin.random() < 0.5) for gap in gaps]
                done[key] = Row(key, name, method, fold, len(learned), right, taught - began, ended - taught)
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(done[key])) + "\n")
            found[method].append(done[key])
    return found


def of(name: str, method: str, fold: int, learned: Sequence[Comparison], held: Sequence[Comparison]) -> str:
    """Return the hash of what a row follows from: the data, this file and what it uses of the trainer."""
    digest = sha256(f"{name} {method} {fold}".encode())
    for c in [*learned, *held]:
        digest.update(f"{c.prompt}\0{c.chosen}\0{c.rejected}\0".encode())
    digest.update(CODE)
    return digest.hexdigest()


def table(name: str, found: Mapping[str, list[Row]]) -> None:
    """Print a table of one data set."""
    print(
        f"\n{name}; {PUBLISHED[name]}\n\n| judge | learned from | right | 95 % | CPU s, learning | scoring |"
    )
    print("|---|---|---|---|---|---|")
    for method, rows in found.items():
        right = joined(rows)
        low, high = wilson(sum(right), len(right))
        learned, scored = sum(r.learning_s for r in rows), sum(r.scoring_s for r in rows)
        print(
            f"| {method} | {rows[0].learned} | {sum(right) / len(right):.3f} | {low:.3f}-{high:.3f} "
            f"| {learned:.0f} | {scored:.0f} |"
        )


def joined(rows: Sequence[Row]) -> list[bool]:
    return [one for row in rows for one in row.right]


def gain(ours: list[bool], theirs: list[bool]) -> tuple[float, float]:
    """Return how much more often we are right than they on the same pairs, and half its 95 % interval."""
    steps = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = sum(steps) / len(steps)
    return mean, 1.96 * math.sqrt(sum((s - mean) ** 2 for s in steps)) / len(steps)


def bars(found: Mapping[str, list[Row]]) -> int:
    """Print whether ETHICS' bars hold, and return how many do not."""
    ours = found["SmolLM2 + LoRA"][0]
    right = joined([ours])
    more, half = gain(right, joined(found["from scratch"]))
    held = {
        f"SmolLM2 + LoRA on {ours.learned} pairs is right at least {SHARE} of the time": sum(right)
        >= SHARE * len(right),
        f"it learns in at most {CPU_S:.0f} CPU seconds": ours.learning_s <= CPU_S,
        f"it is at least {GAIN} above from scratch ({more:.3f} ± {half:.3f})": more >= GAIN,
    }
    return show(held)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="HH-harmless and QA-feedback too, by five folds")
    parser.add_argument(
        "--out", type=Path, default=ROOT / ".cache" / "bench-reward.jsonl", help="rows that are done"
    )
    options = parser.parse_args()
    if not (DATA / "ethics_utilitarianism.jsonl").exists():
        print(
            f"left out: {DATA} has no ethics_utilitarianism.jsonl; HAPTIC_DATA says where people's judgements are"
        )
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.touch()
    read()  # before any clock runs
    found = measure("ethics", ethics(), options.out, list(METHODS))
    table("ethics", found)
    missed = bars(found)
    for name, pairs in (("hh", hh), ("qa", qa)) if options.all else ():
        table(name, measure(name, folds(pairs()), options.out, list(METHODS)))
    if missed:
        raise SystemExit(f"{missed} bars are missed")


if __name__ == "__main__":
    main()
