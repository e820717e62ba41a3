"""The whole loop, small: the same code as `haptic demo`, with a model that is trained for seconds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from chain.devnet import DevnetError
from service.demo import play, replay
from service.demo.cast import ROLES
from service.judged import FeedbackFileError

SMALL_TRAINER = {
    "pretrain": {"documents": 600, "steps": 60},
    "sft": {"demonstrations": 400, "steps": 60},
    "ppo": {"steps": 3},
}


def test_the_whole_loop_ends_with_balances_that_add_up_and_a_stranger_who_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "trainer.json"
    config.write_text(json.dumps(SMALL_TRAINER))
    scenario = play.Scenario(
        epochs=2, tasks=32, effort=0.25, retrain_after=20, gate_comparisons=6, trainer_config=config
    )
    play.run(tmp_path / "demo", 1, scenario)
    said = " ".join(capsys.readouterr().out.split())
    assert "verify: OK" in said
    assert "✗" not in said
    assert "policy-1" in said
    assert re.search(r"policy-1 │ sft-0 │ \d+ │ \d+ │ 6 │ [\d.e-]+ │ (promoted|rolled back) │", said)
    assert re.search(r"✓ (sft-0|policy-1) is published", said)
    for role in ROLES:
        assert role.name in said
    kept = [json.loads(x)["receipt"] for x in (tmp_path / "demo" / "receipts.jsonl").read_text().splitlines()]
    for epoch in range(2):
        mine = sum(r["epoch"] == epoch for r in kept)
        assert mine > 50
        assert f"receipts {mine}, in the log as they promise {mine}" in said
    assert f"receipts kept, one for each ranking: {len(kept)}" in said
    for role in (r for r in ROLES if r.signs != "session"):
        assert round(role.work * scenario.effort) > 5
    who = re.search(r"session keys (\d+), .* Ethereum (\d+), .* \(ERC-1271\) (\d+)", said)
    assert who
    assert sum(map(int, who.groups())) == len(kept)
    assert all(int(n) > 5 for n in who.groups())
    sizes = re.search(r"number of responses: 2: (\d+), 3: (\d+), 4: (\d+), 6: (\d+)", said)
    assert sizes
    assert all(int(n) for n in sizes.groups())
    assert re.search(r"their wallets' budgets: [1-9]", said)
    # Two of the operator's own tasks; a small model may say an odd character besides.
    assert re.search(r"shown without that: ([2-9]|\d\d)", said)
    assert re.search(r"judgements wanted, .*: 3: \d+.*; had as many .*: 3: \d+", said)
    assert "under the ledger root of epoch 1 on the chain" in said
    assert re.search(r"export: [1-9][\d,]* rows", said)
    bundle = (tmp_path / "demo" / "bundles" / "epoch-1.jsonl").read_text()
    assert '"kind":"run"' in bundle


def _judged(task: int) -> dict[str, object]:
    """Return a pair of equal length that everybody sees alike but one person, who says the opposite."""
    responses = [{"system": "good", "text": f"fine {task}"}, {"system": "bad", "text": f"poor {task}"}]
    people = [{"annotator": f"person-{n}", "winner": "left"} for n in range(5)]
    return {
        "prompt": f"question {task}",
        "responses": responses,
        "judgements": [*people, {"annotator": "contrarian", "winner": "right"}],
    }


def test_people_in_a_file_are_replayed_as_wallets_and_the_contrarian_earns_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rankings.jsonl"
    file.write_text("".join(json.dumps(_judged(n)) + "\n" for n in range(60)))
    replay.run(tmp_path / "replay", file)
    said = capsys.readouterr().out
    assert "verify: OK" in said
    assert "5 of 6 annotators" in said
    row = next(line for line in said.splitlines() if "contrarian" in line)
    assert row.split("│")[-2].strip() == "0.000000"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no judged task"),
        ("{", "line 1"),
        (json.dumps(_judged(0) | {"judgements": [{"annotator": "a", "winner": "up"}]}), "line 1"),
        (json.dumps({"prompt": "p", "responses": [], "rankings": []}), "0 responses"),
    ],
)
def test_a_file_that_holds_no_rankings_is_refused_by_line(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "rankings.jsonl"
    file.write_text(text)
    with pytest.raises(FeedbackFileError, match=why):
        replay.read(file)


def test_a_folder_that_no_devnet_made_is_never_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DevnetError, match="no devnet made"):
        play.run(tmp_path, 1)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
