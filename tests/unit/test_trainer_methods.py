"""The methods beside PPO, and PPO's variants: each raises what it is for and changes nothing that it is given."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.toys import PPO, PROMPTS, base, equal, given, judge, labelled, small, tuned, weights
from trainer import corpus, dpo, losses, model, ppo, pretrain, raft, reward, run
from trainer.best_of_n import best_of_n, kl_bound
from trainer.compare import COLUMNS, Row, compare, table
from trainer.config import Config, DpoConfig, RaftConfig, RewardConfig
from trainer.errors import ConfigError, RegistryError
from trainer.method import Given
from trainer.model import Ensemble, LanguageModel, clone
from trainer.overrides import VARIANTS, best_of, variant
from trainer.preferences import Comparison, write_snapshot
from trainer.progress import Progress, Report, silent
from trainer.sequences import answer_logits, encode_answer, encode_prompt, pad
from trainer.shares import share, wilson

DPO = DpoConfig(epochs=2, learning_rate=5e-3)
RAFT = RaftConfig(rounds=4, prompts=32, samples=8, steps=12, learning_rate=1e-2)


def margin(language: LanguageModel, rows: list[Comparison]) -> float:
    """Return the mean of log π(chosen) - log π(rejected)."""

    def logprob(answers: list[str]) -> torch.Tensor:
        batch = pad(
            [encode_prompt(language, row.prompt) for row in rows],
            [encode_answer(language, a) for a in answers],
        )
        found = losses.token_logprobs(answer_logits(language, batch), batch.answers)
        return (found * batch.answer_mask).sum(dim=1)

    with torch.no_grad():
        chosen, rejected = (logprob([getattr(row, side) for row in rows]) for side in ("chosen", "rejected"))
    return float((chosen - rejected).mean())


def learning(rows: list[Comparison]) -> Given:
    return replace(given(), comparisons=rows)


# --- DPO ----------------------------------------------------------------------------------------------------


def test_dpo_moves_towards_what_was_chosen_and_changes_nothing_it_is_given() -> None:
    rows = labelled(950_000)
    before = weights(tuned().network)
    policy = dpo.train(DPO, learning(rows), 0, silent).policy
    assert margin(policy, rows) > margin(tuned(), rows) + 1
    assert equal(before, weights(tuned().network))


def test_dpo_begins_at_log_2_whatever_the_parent_prefers() -> None:
    log: list[Progress] = []
    dpo.train(
        replace(DPO, epochs=1, batch=64, learning_rate=1e-9), learning(labelled(950_000)), 0, log.append
    )
    assert log[0].metrics["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert log[0].metrics["margin"] == pytest.approx(0, abs=1e-4)


def test_what_a_coin_said_teaches_dpo_nothing() -> None:
    sure, coin = labelled(900_000), labelled(500_000, turned=True) * 3
    doubted = dpo.train(DPO, learning(sure + coin), 0, silent).policy
    assert margin(doubted, sure) > margin(tuned(), sure)


def test_dpo_held_harder_to_its_parent_moves_less() -> None:
    rows = labelled(950_000)
    loose, tight = (
        margin(dpo.train(replace(DPO, beta=beta), learning(rows), 0, silent).policy, rows)
        for beta in (0.1, 2.0)
    )
    assert tight < loose


@pytest.mark.parametrize("method", ["dpo", "raft"])
def test_a_method_repeats_itself_to_the_last_bit(method: str) -> None:
    config = replace(Config(), method=method, dpo=replace(DPO, epochs=1), raft=replace(RAFT, rounds=1))  # type: ignore[arg-type]
    once, again = (
        weights(run.improve(config, learning(labelled(950_000)), 3, silent).policy.network) for _ in range(2)
    )
    assert equal(once, again)


# --- best of n, RAFT ------------------------------------------------------------------------------------------


def test_the_best_of_n_is_the_best_finished_one_of_each_prompt() -> None:
    generator = torch.Generator().manual_seed(1)
    encoded = [encode_prompt(tuned(), prompt) for prompt in PROMPTS[:6]]
    samples, best = best_of_n(tuned(), judge(), encoded, 4, temperature=1.0, generator=generator)
    scores = reward.score(judge(), samples.batch)
    for prompt in range(6):
        own = range(4 * prompt, 4 * prompt + 4)
        ended = [row for row in own if samples.finished[row]] or list(own)
        assert int(best[prompt]) == max(ended, key=lambda row: float(scores[row]))


def test_the_best_of_n_costs_what_stiennon_says() -> None:
    assert kl_bound(1) == 0
    assert kl_bound(16) == pytest.approx(math.log(16) - 15 / 16)


def test_raft_raises_the_reward_and_changes_nothing_it_is_given() -> None:
    log: list[Progress] = []
    before = weights(tuned().network) + weights(judge())
    raft.train(RAFT, given(), 0, log.append)
    assert log[-1].metrics["reward"] > log[0].metrics["reward"] + 0.3
    assert all(p.metrics["reward_kept"] > p.metrics["reward"] for p in log)
    assert equal(before, weights(tuned().network) + weights(judge()))


# --- ensembles -------------------------------------------------------------------------------------------------


def test_an_ensembles_score_is_its_mean_less_its_disagreement() -> None:
    members = [model.scorer(tuned()) for _ in range(3)]
    batch = pad([encode_prompt(tuned(), "a")], [encode_answer(tuned(), "b c")])
    each = torch.stack([reward.score(member, batch) for member in members])
    found = reward.score(Ensemble(members, 2.0), batch)
    assert found.tolist() == pytest.approx((each.mean(dim=0) - 2 * each.std(dim=0, correction=0)).tolist())


def test_members_differ_each_is_normalised_and_one_is_no_ensemble() -> None:
    config = RewardConfig(epochs=1, members=2, pessimism=0.5)
    found = reward.judge(config, tuned(), labelled(950_000), 0, silent)
    assert isinstance(found, Ensemble)
    assert not equal(weights(found.scorers[0]), weights(found.scorers[1]))
    reward.normalise(found, tuned(), PROMPTS, 32, 1)
    assert all(member.scale.item() != 1 for member in found.scorers)
    assert not isinstance(
        reward.judge(RewardConfig(epochs=1), tuned(), labelled(950_000), 0, silent), Ensemble
    )


@pytest.mark.parametrize("members", [1, 3])
def test_a_saved_judge_scores_as_it_did(tmp_path: Path, members: int) -> None:
    kept = reward.judge(
        RewardConfig(epochs=1, members=members, pessimism=0.7), tuned(), labelled(950_000), 0, silent
    )
    model.save_judge(kept, tmp_path / "reward")
    again = model.load_judge(tmp_path / "reward", tuned())
    texts = [f"It was {n}." for n in range(32)]
    assert reward.score_texts(again, tuned(), PROMPTS, texts).equal(
        reward.score_texts(kept, tuned(), PROMPTS, texts)
    )
    (tmp_path / "reward" / "0" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(RegistryError, match="holds no readable reward model"):
        model.load_judge(tmp_path / "reward", tuned())


# --- variants of PPO -------------------------------------------------------------------------------------------


def text_loss(language: LanguageModel) -> float:
    stream = pretrain.encode(language, corpus.documents(0, 100))
    with torch.no_grad():
        return pretrain.text_loss(
            language, pretrain.blocks(stream, 64, 32, torch.Generator().manual_seed(0))
        ).item()


def test_ppo_ptx_keeps_in_mind_what_pretraining_taught() -> None:
    config = replace(PPO, steps=6, episodes=32, minibatch=16, ptx_block=32)
    texts = replace(given(), texts=corpus.documents(0, 100))
    without, kept = (
        text_loss(ppo.train(replace(config, ptx_coefficient=c), texts, 0, silent).policy) for c in (0.0, 1.0)
    )
    assert kept < text_loss(tuned()) < without


def test_ppo_ptx_without_a_text_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match=r"ppo.ptx_coefficient is 0.5, but the text has 0 tokens"):
        ppo.train(replace(PPO, ptx_coefficient=0.5), given(), 0, silent)


def test_a_frozen_block_stays_and_the_rest_learns() -> None:
    policy = ppo.train(replace(PPO, frozen_layers=1), given(), 0, silent).policy
    before, after = tuned().network.model, policy.network.model
    assert equal(weights(before.layers[0]), weights(after.layers[0]))
    # The embedding is the output head here: were it frozen too, there would be no learning at all.
    assert not torch.equal(before.embed_tokens.weight, after.embed_tokens.weight)
    assert all(p.requires_grad for p in clone(policy).network.parameters())


def test_an_embedding_that_is_not_the_head_is_frozen_with_the_blocks() -> None:
    language = clone(base())
    language.network.lm_head.weight = torch.nn.Parameter(language.network.lm_head.weight.clone())
    model.freeze(language.network, 1)
    assert not language.network.model.embed_tokens.weight.requires_grad
    assert language.network.lm_head.weight.requires_grad


# --- the table of a comparison -----------------------------------------------------------------------------------


def test_the_table_gives_a_share_with_its_interval_and_orders_rows_by_method_and_seed() -> None:
    metrics = dict.fromkeys(COLUMNS, 0.25) | share(480, 640, "win_rate_sft")
    rows = [Row(name, seed, "", {}, "", metrics, 1.0, 0.0) for name, seed in (("b", 1), ("a", 0), ("b", 0))]
    head, _, *lines = table(rows).splitlines()
    assert head.startswith("| method | seed | won against SFT (95 %) | gold | gold of SFT |")
    low, high = wilson(480, 640)
    assert lines[0].startswith(f"| b | 0 | 0.750 ({low:.3f} to {high:.3f}) | 0.250 |")
    assert [line[:8] for line in lines] == ["| b | 0 ", "| b | 1 ", "| a | 0 "]


def compared(folder: Path, asked: run.Run, variant: str, report: Report = silent) -> list[Row]:
    sha256 = write_snapshot(folder / "s.jsonl", labelled(900_000))
    return compare(
        asked.registry, asked.config, [variant], parent="sft-0", snapshot=folder / "s.jsonl", sha256=sha256, seed=0,
        out=folder / "rows" / "r.jsonl", report=report,
    )  # fmt: skip


def test_a_row_says_which_device_auto_stood_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = small(tmp_path, hardware={"device": "auto"})
    run.bootstrap(asked)
    (row,) = compared(tmp_path, asked, "best-of-2")
    assert row.settings["hardware"]["device"] == "cpu"


def test_files_of_trl_lie_beside_the_rows_and_what_a_kill_left_of_them_the_next_comparison_removes(
    tmp_path: Path,
) -> None:
    asked, seen = small(tmp_path, grpo={"steps": 1, "episodes": 8, "minibatch": 8}), []
    run.bootstrap(asked)
    left = tmp_path / "rows" / ".scratch-r.jsonl" / "left"
    left.parent.mkdir(parents=True)
    left.touch()

    def look(progress: Progress) -> None:
        if progress.stage == "grpo":
            seen.append({file.name for file in left.parent.iterdir()})

    compared(tmp_path, asked, "grpo", look)
    assert seen
    assert all("model.safetensors" in names and left.name not in names for names in seen)
    assert not left.parent.exists()


def test_two_comparisons_at_once_do_not_write_the_same_rows(tmp_path: Path) -> None:
    asked, refused = small(tmp_path), []
    run.bootstrap(asked)

    def again(_progress: Progress) -> None:
        with pytest.raises(
            RegistryError, match=r"another process works on r\.jsonl in .*choose another --out"
        ):
            compared(tmp_path, asked, "best-of-2")
        refused.append(1)

    rows = compared(tmp_path, asked, "best-of-2", again)
    assert refused
    assert compared(tmp_path, asked, "best-of-2") == rows


# --- what a comparison of methods can name ----------------------------------------------------------------------


def test_every_variant_is_a_configuration_and_no_other_name_is() -> None:
    assert all(isinstance(variant(name, Config()), Config) for name in [*VARIANTS, "best-of-8"])
    assert (best_of("best-of-16"), best_of("best-of-0"), best_of("ppo")) == (16, 1, 1)
    with pytest.raises(ConfigError, match="there is no variant 'pp0'; known are ppo, "):
        variant("pp0", Config())


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_of_its_own_method_whatever_the_settings_say(name: str) -> None:
    assert variant(name, replace(Config(), method="raft")) == variant(name, Config())
    assert variant(name, Config()).method == name.partition("-")[0]
