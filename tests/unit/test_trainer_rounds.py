"""Rounds of retraining: what is not liked better is never published, and nobody is asked what was learned from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.toys import PROMPTS, small, tuned
from trainer import corpus, gold, rounds, run, simulate
from trainer.errors import ConfigError, RegistryError
from trainer.model import LanguageModel
from trainer.preferences import read_snapshot
from trainer.progress import Progress
from trainer.registry import Registry, file_sha256


def plan(folder: Path, *, number: int = 3) -> rounds.Plan:
    return rounds.Plan("sft-0", number, learned=40, judged=30, folder=folder / "rounds")


@pytest.mark.parametrize(
    "outcome",
    [[(25, 5), (25, 5)], [(25, 5), (16, 14)], [(5, 25), (25, 5)], [(16, 14), (5, 25)], [(29, 0), (25, 5)]],
)
def test_a_candidate_is_published_when_it_is_proven_better_and_the_next_starts_from_what_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Sequence[tuple[int, int]]
) -> None:
    run.bootstrap(small(tmp_path))
    counts = iter(outcome)
    monkeypatch.setattr(simulate, "meet", lambda *_a, **_k: next(counts))
    first, second = rounds.rounds(small(tmp_path, name="policy"), plan(tmp_path, number=2))
    now = "policy-1" if outcome[0] == (25, 5) else "sft-0"
    assert first.published == second.incumbent == now
    assert second.published == ("policy-2" if outcome[1] == (25, 5) else now)
    entries = Registry(tmp_path / "models")
    assert (entries.get("policy-1").parent, entries.get("policy-2").parent) == ("sft-0", now)
    assert [v.decision for v in (first, second)] == [
        {(25, 5): "promoted", (29, 0): "waiting"}.get(o, "rolled back") for o in outcome
    ]


def test_each_round_learns_from_fresh_comparisons_and_is_judged_on_prompts_that_it_did_not_learn_from(
    tmp_path: Path,
) -> None:
    run.bootstrap(small(tmp_path))
    rounds.rounds(small(tmp_path, name="policy"), plan(tmp_path))
    seen = []
    for number in (1, 2, 3):
        path = tmp_path / "rounds" / f"policy-{number}.snapshot.jsonl"
        rows = read_snapshot(path, file_sha256(path))
        learning, meeting = rounds.prompts_of_round(0, number, 40)
        assert {row.prompt for row in rows} <= set(learning)
        assert set(learning).isdisjoint(meeting)
        assert sorted(learning + meeting) == sorted(corpus.prompts(0, rounds.ASKED))
        seen.append({(row.prompt, row.chosen, row.rejected) for row in rows})
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]


def test_rounds_again_return_what_was_decided_and_a_decision_about_something_else_is_made_anew(
    tmp_path: Path,
) -> None:
    run.bootstrap(small(tmp_path))
    done = rounds.rounds(small(tmp_path, name="policy"), plan(tmp_path))
    file = tmp_path / "rounds" / "policy-2.verdict.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps(known | {"won": 30, "lost": 0}))  # what is kept is believed
    again = rounds.rounds(small(tmp_path, name="policy"), plan(tmp_path))
    assert (again[1].won, again[1].lost) == (30, 0)
    file.write_text(json.dumps(known | {"won": 30, "lost": 0, "causes": "of another run"}))
    assert rounds.rounds(small(tmp_path, name="policy"), plan(tmp_path)) == done


def test_two_at_once_do_not_write_the_same_rounds_and_the_first_goes_on(tmp_path: Path) -> None:
    run.bootstrap(small(tmp_path))
    asked, refused = small(tmp_path, name="policy"), []

    def again(_progress: Progress) -> None:
        with pytest.raises(
            RegistryError, match=r"another process works on policy in .*another --name or --out"
        ):
            rounds.rounds(asked, plan(tmp_path, number=1))
        refused.append(1)

    (done,) = rounds.rounds(replace(asked, report=again), plan(tmp_path, number=1))
    assert refused
    assert rounds.rounds(asked, plan(tmp_path, number=1)) == [done]


def test_so_many_comparisons_that_no_prompt_is_left_to_be_judged_on_are_refused() -> None:
    most = (rounds.ASKED - 1) * rounds.PER_PROMPT
    assert len(rounds.prompts_of_round(0, 1, most)[1]) == 1
    with pytest.raises(ConfigError, match=f"use at most {most}"):
        rounds.prompts_of_round(0, 1, most + 1)


def test_judges_find_the_better_answer_as_often_as_they_are_right_and_toss_a_coin_between_equal_ones() -> (
    None
):
    n = 4_000
    good, bad, other = ("It was superb.", "It was awful.", "It was very superb.")
    prompts = (PROMPTS * n)[:n]
    won, lost = simulate.judged(prompts, [good] * n, [bad] * n, seed=1)
    assert won + lost == n
    assert won / n == pytest.approx(0.82, abs=0.03)
    same = ["It was superb. We sat down.", "It was superb. We stood up."]
    assert gold.score(prompts[0], same[0]) == gold.score(prompts[0], same[1])
    won, lost = simulate.judged(prompts, [same[0]] * n, [same[1]] * n, seed=2)
    assert won / n == pytest.approx(0.5, abs=0.03)
    assert simulate.judged(prompts, [other] * n, [other] * n, seed=3) == (0, 0)


def test_a_model_that_meets_itself_wins_half_and_no_more_comparisons_are_made_than_were_asked_for() -> None:
    language: LanguageModel = tuned()
    won, lost = simulate.meet(language, language, PROMPTS, 600, seed=1)
    assert won + lost == 600
    assert won / 600 == pytest.approx(0.5, abs=0.08)
