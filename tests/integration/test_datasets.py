"""Exports as whoever trains on them meets them: one line of `datasets` loads each kind, with TRL's columns and types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from random import Random
from typing import Any

import pytest

from chain.epoch import FAST, close
from service import exports, rowfile
from service.exports import KINDS
from service.rowfile import FORMS
from tests.worlds import DOMAIN, evidence_of, facts_of, first_standing

LOAD = """
import json, sys
from datasets import load_dataset
for form, name in (line.split("\\t") for line in sys.stdin.read().splitlines()):
    found = load_dataset({"jsonl": "json"}.get(form, form), data_files=name, split="train")
    print(json.dumps({"types": {k: str(v) for k, v in found.features.items()}, "rows": found.to_list()}))
"""
TEXT, WHOLE, REAL = "Value('string')", "Value('int64')", "Value('float64')"
TYPES = {
    "preference": {
        "prompt": TEXT, "chosen": TEXT, "rejected": TEXT, "margin": REAL, "confidence": REAL, "n": WHOLE,
        "epoch": WHOLE, "task": TEXT,
    },
    "unpaired": {"prompt": TEXT, "completion": TEXT, "label": "Value('bool')", "epoch": WHOLE, "task": TEXT},
    "rankings": {
        "wallet": TEXT, "epoch": WHOLE, "task": TEXT, "method": TEXT, "summary": TEXT, "shown": f"List({TEXT})",
        "ranks": f"List({WHOLE})", "likert": f"List({WHOLE})", "flag": TEXT, "commentHash": TEXT, "revision": WHOLE,
        "signedAt": WHOLE, "signature": TEXT, "position": WHOLE, "receivedAt": WHOLE, "block": WHOLE, "digest": TEXT,
    },
}  # fmt: skip
"""prompt, chosen, rejected and prompt, completion, label: TRL's types "preference" and "unpaired preference"."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Return what `datasets` makes of each file, by kind and form; in a process of its own, which no network helps."""
    folder, luck, standing = tmp_path_factory.mktemp("exports"), Random(3), first_standing()
    found = evidence_of(luck, standing, tasks=8)
    digests = {r.position: r.ranking.digest(DOMAIN) for r in found.rankings}
    bundle, asked = folder / "epoch-0.jsonl", []
    with bundle.open("wb") as file:
        close(found, facts_of(0, {}), standing, FAST, digests, file.write)
    for kind in KINDS:
        for form in FORMS:
            path = folder / f"{kind}.{form}"
            with bundle.open("rb") as file:
                path.write_bytes(b"".join(rowfile.parts(form, kind, exports.rows(kind, file))))
            asked.append((kind, form, path))
    alone = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], input="\n".join(f"{form}\t{path}" for _, form, path in asked),
        env=os.environ | alone, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return {(kind, form): x for (kind, form, _), x in zip(asked, said, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_one_line_loads_each_kind_with_its_columns_and_types(loaded: Any, kind: str, form: str) -> None:
    assert loaded[kind, form]["types"] == TYPES[kind]
    assert list(loaded[kind, form]["types"]) == list(exports.COLUMNS[kind])  # type: ignore[index]
    assert loaded[kind, form]["rows"]


@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_hold_the_same_rows(loaded: Any, kind: str) -> None:
    assert loaded[kind, "jsonl"]["rows"] == loaded[kind, "parquet"]["rows"]
