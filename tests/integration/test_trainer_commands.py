"""The trainer as its callers know it: commands that print JSON, survive being killed, and repeat themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import RegistryError
from trainer.overrides import read_config
from trainer.preferences import Comparison, write_snapshot
from trainer.progress import Progress
from trainer.registry import WEIGHTS, Registry, file_sha256

TINY = {
    "model": {"width": 16, "layers": 1, "heads": 2, "vocabulary": 320, "answer_tokens": 12},
    "pretrain": {"documents": 60, "steps": 4, "batch": 2, "block": 16},
    "sft": {"demonstrations": 40, "steps": 4, "batch": 2},
    "reward": {"epochs": 1, "batch": 8, "normalising_samples": 8},
    "ppo": {"steps": 2, "episodes": 8, "minibatch": 4},
    "evaluate": {"prompts": 8},
}
TORCH_FREE = (
    "errors", "preferences", "registry", "rating", "corpus", "gold", "config", "overrides", "limits", "progress",
    "showing", "gate",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


def trainer(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False, **options,
    )  # fmt: skip


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the last line of a command that worked and printed nothing but JSON."""
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(line) == {"stage", "step", "of", "metrics"} for line in lines[:-1])
    assert lines[-1].pop("stage") == "done"
    return lines[-1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a configuration, a snapshot, prompts, and a registry with a tiny sft model.

    The bootstrap is first started by a parent that dies, then by one that lives.
    """
    home = tmp_path_factory.mktemp("trainer")
    (home / "tiny.json").write_text(json.dumps(TINY))
    (home / "prompts.jsonl").write_text('{"prompt": "How was the tea?"}\n{"prompt": "?"}\n')
    write_snapshot(
        home / "snapshot.jsonl",
        [Comparison(f"How was day {n}?", "It was good.", "It was bad.", 900_000, 3, 0) for n in range(12)],
    )
    killed = subprocess.Popen(
        [sys.executable, "-m", "trainer", "bootstrap", "--registry", str(home / "models"), "--name", "sft-0",
         "--exit-with-parent"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert killed.stdin
    assert killed.stdout
    assert json.loads(killed.stdout.readline())["stage"] == "pretrain"
    assert killed.poll() is None
    killed.stdin.close()
    assert killed.wait(timeout=10) == 75
    killed.stdout.close()
    assert (home / "models" / ".staging-sft-0").is_dir()
    assert Registry(home / "models").entries() == []
    made = trainer("bootstrap", "--registry", home / "models", "--name", "sft-0", "--config", home / "tiny.json",
                   "--created-at", 1000)  # fmt: skip
    assert last(made)["entry"] == "sft-0"
    assert made.stderr == ""
    return home


def retraining(home: Path, name: str, seed: int = 3, registry: Path | None = None) -> list[object]:
    return ["retrain", "--registry", registry or home / "models", "--parent", "sft-0", "--name", name, "--snapshot",
            home / "snapshot.jsonl", "--sha256", file_sha256(home / "snapshot.jsonl"), "--seed", seed,
            "--config", home / "tiny.json", "--created-at", 2000]  # fmt: skip


def test_a_run_whose_parent_died_left_nothing_and_the_next_is_complete(home: Path) -> None:
    entry = Registry(home / "models").get("sft-0")
    folder = Registry(home / "models").path("sft-0")
    assert (entry.kind, entry.parent, entry.created_at) == ("sft", None, 1000)
    assert entry.weights_sha256 == file_sha256(folder / WEIGHTS)
    assert (folder / "base" / "model.safetensors").is_file()
    assert not (home / "models" / ".staging-sft-0").exists()


def test_bootstrap_retrain_and_answer_in_turn(home: Path) -> None:
    made = last(trainer(*retraining(home, "policy-1")))
    entry = Registry(home / "models").get("policy-1")
    assert made == {
        "entry": "policy-1",
        "weights_sha256": entry.weights_sha256,
        "metrics": dict(entry.metrics),
    }
    assert (entry.kind, entry.parent, entry.seed) == ("policy", "sft-0", 3)
    assert entry.data_sha256 == file_sha256(home / "snapshot.jsonl")
    assert entry.config["reference"] == "sft-0"
    assert entry.config["ppo"]["steps"] == 2
    assert {"reward_accuracy", "win_rate_sft", "win_rate_sft_low", "kl", "gold_policy", "ppo_steps"} <= set(
        entry.metrics
    )
    assert entry.weights_sha256 != Registry(home / "models").get("sft-0").weights_sha256
    out = home / "answers.jsonl"
    said = last(trainer("answer", "--registry", home / "models", "--model", "policy-1", "--prompts",
                        home / "prompts.jsonl", "--out", out, "--samples", 3, "--seed", 1))  # fmt: skip
    assert said["lines"] == 6
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [(row["prompt"], row["sample"]) for row in rows] == [
        (prompt, sample) for prompt in ("How was the tea?", "?") for sample in range(3)
    ]
    assert all(row["model"] == "policy-1" and row["text"].strip() for row in rows)
    assert len({row["text"] for row in rows}) == 6


def test_a_model_from_elsewhere_is_imported_and_answers_with_nothing_on_stderr(home: Path) -> None:
    source = Registry(home / "models").path("sft-0") / "model"
    command = ["import", "--registry", home / "models", "--source", source, "--created-at", 3000]
    refused = trainer(*command, "--name", "no-chat")
    assert refused.returncode == 1
    assert refused.stderr.startswith("SourceError: ")
    (home / "plain.json").write_text('{"imported": {"layout": "plain", "answer_tokens": 8}}')
    describe = json.loads((source / "tokenizer.json").read_text())["added_tokens"]
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "bos_token": "<prompt>"}
    assert {token["content"] for token in describe} >= {"<end>", "<prompt>"}
    elsewhere = home / "elsewhere"
    shutil.copytree(source, elsewhere)
    (elsewhere / "tokenizer_config.json").write_text(json.dumps(words))
    made = trainer(
        "import", "--registry", home / "models", "--source", elsewhere, "--name", "mine",
        "--config", home / "plain.json",
    )  # fmt: skip
    assert last(made)["source_sha256"] == file_sha256(source / "model.safetensors")
    assert made.stderr == ""
    out = home / "imported.jsonl"
    said = trainer("answer", "--registry", home / "models", "--model", "mine", "--prompts", home / "prompts.jsonl",
                   "--out", out)  # fmt: skip
    assert last(said)["lines"] == 2
    assert said.stderr == ""


def test_a_run_again_returns_the_same_entry_without_training(home: Path) -> None:
    from trainer import run

    steps: list[Progress] = []
    again = run.Run(
        Registry(home / "models"), "sft-0", 0, read_config(home / "tiny.json"), 9_999, steps.append
    )
    assert run.bootstrap(again) == Registry(home / "models").get("sft-0")
    assert steps == []
    with pytest.raises(RegistryError, match="seed 0, not 1"):
        run.bootstrap(replace(again, seed=1))


def test_a_retraining_that_crashes_leaves_nothing_and_then_ends_as_if_it_never_had(home: Path) -> None:
    from trainer import run

    registry = Registry(home / "models")

    def crash(progress: Progress) -> None:
        if progress.stage == "ppo":
            raise KeyboardInterrupt

    def retrain(name: str, report: Any) -> Any:
        given = run.Run(registry, name, 3, read_config(home / "tiny.json"), 2_000, report)
        return run.retrain(given, parent="sft-0", reference=None, snapshot=home / "snapshot.jsonl",
                           sha256=file_sha256(home / "snapshot.jsonl"))  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        retrain("crashed", crash)
    assert registry.find("crashed") is None
    resumed, straight = retrain("crashed", lambda _: None), retrain("straight", lambda _: None)
    assert resumed == replace(straight, name="crashed")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--sha256": "00"}, "SnapshotError"),
        ({"--parent": "policy-9"}, "no entry 'policy-9'; it has:"),
        ({"--name": "sft-0"}, "choose another name"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(
    home: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], said: str
) -> None:
    from trainer.__main__ import main

    arguments = [str(argument) for argument in retraining(home, "policy-x")]
    for option, value in change.items():
        arguments[arguments.index(option) + 1] = value
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert said in output.err
    assert output.out == ""
    assert Registry(home / "models").find("policy-x") is None


def test_help_teaches_without_loading_torch() -> None:
    done = trainer("--help", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    assert "snapshot.jsonl" in done.stdout
    assert "Exit status" in done.stdout
    assert "torch" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["dance"], ["answer"], ["bootstrap", "--registry", "x"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    from trainer.__main__ import main

    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2


def test_the_torch_free_files_load_no_torch() -> None:
    names = ", ".join(f"trainer.{name}" for name in TORCH_FREE)
    code = f"import sys, trainer, {names}; print(sorted({{'torch', 'transformers', 'tokenizers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
