"""The stages on a toy: each learns what it is for, changes nothing it is given, and repeats itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests.toys import PPO, PROMPTS, SHAPE, base, equal, given, judge, labelled, tuned, weights
from trainer import corpus, ppo, pretrain, reward, sft, simulate
from trainer.config import EvaluateConfig, PretrainConfig, RewardConfig, SftConfig
from trainer.errors import DivergenceError, ParityError
from trainer.evaluate import Models, evaluate, mean_kl, unseen_prompts
from trainer.method import Given
from trainer.model import LanguageModel, clone
from trainer.optimise import finite
from trainer.preferences import Comparison
from trainer.progress import Progress, silent
from trainer.sampler import check_parity, sample
from trainer.sequences import encode_answer, encode_prompt, pad


def losses_of(stage: Callable[[Callable[[Progress], None]], object]) -> list[float]:
    log: list[float] = []
    stage(lambda progress: log.append(progress.metrics["loss"]))
    return log


def test_pretraining_and_fine_tuning_lower_their_losses_and_leave_the_base_alone() -> None:
    config = PretrainConfig(steps=40, batch=8, block=32)
    log = losses_of(lambda report: pretrain.train(config, SHAPE, corpus.documents(0, 100), 0, report))
    assert log[-1] < log[0] < math.log(SHAPE.vocabulary)
    before, shown = weights(base().network), corpus.demonstrations(0, 100)
    log = losses_of(lambda report: sft.train(SftConfig(steps=40, batch=8), base(), shown, 1, report))
    assert log[-1] < log[0]
    assert equal(before, weights(base().network))


def test_a_stage_repeats_itself_to_the_last_bit_and_another_seed_differs() -> None:
    config, shown = SftConfig(steps=3, batch=4), corpus.demonstrations(0, 20)
    once, again, other = (weights(sft.train(config, base(), shown, s, silent).network) for s in (1, 1, 2))
    assert equal(once, again)
    assert not equal(once, other)


def test_the_reward_model_learns_the_labels_from_a_trunk_of_its_own() -> None:
    before = weights(tuned().network)
    model = reward.train(RewardConfig(epochs=4), tuned(), labelled(950_000), 0, silent)
    good, bad = (
        reward.score_texts(model, tuned(), PROMPTS, [f"It was {word}."] * 32) for word in ("superb", "awful")
    )
    assert (good > bad).all()
    assert equal(before, weights(tuned().network))


def test_the_word_of_a_coin_moves_nothing_against_the_word_of_someone_sure() -> None:
    config = RewardConfig(epochs=4)
    doubted = reward.train(config, tuned(), labelled(900_000) + labelled(500_000, turned=True) * 3, 0, silent)
    good, bad = (
        reward.score_texts(doubted, tuned(), PROMPTS, [f"It was {word}."] * 32)
        for word in ("superb", "awful")
    )
    assert (good > bad).all()


def test_normalised_rewards_have_mean_0_and_deviation_1_on_the_references_answers() -> None:
    encoded = [encode_prompt(tuned(), PROMPTS[number % 32]) for number in range(64)]
    generator = torch.Generator().manual_seed(5)
    rewards = reward.score(judge(), sample(tuned(), encoded, temperature=1.0, generator=generator).batch)
    assert rewards.mean().item() == pytest.approx(0, abs=1e-4)
    assert rewards.std().item() == pytest.approx(1, abs=1e-4)


def test_normalising_twice_is_normalising_once() -> None:
    once, twice = judge(), judge()
    reward.normalise(twice, tuned(), PROMPTS, 64, 5)
    assert twice.shift.item() == pytest.approx(once.shift.item(), abs=1e-4)
    assert twice.scale.item() == pytest.approx(once.scale.item(), rel=1e-4)


def test_ppo_raises_the_reward_and_changes_nothing_it_is_given() -> None:
    models, log = given(), []
    before = weights(models.parent.network) + weights(models.reward)
    config = replace(PPO, steps=12, episodes=48, minibatch=24, learning_rate=1e-2, kl_coefficient=0.0)
    ppo.train(config, models, 0, lambda progress: log.append(progress.metrics["reward"]))
    assert sum(log[-3:]) / 3 > sum(log[:3]) / 3 + 0.5
    assert equal(before, weights(models.parent.network) + weights(models.reward))


def test_a_kl_penalty_keeps_the_policy_nearer() -> None:
    config = replace(PPO, steps=10, episodes=32, minibatch=16, learning_rate=1e-2)
    near, far = (
        ppo.train(replace(config, kl_coefficient=c), given(), 0, silent).metrics["kl"] for c in (2.0, 0.0)
    )
    assert near < 0.7 * far


def test_ppo_repeats_itself_to_the_last_bit() -> None:
    once, again = (weights(ppo.train(PPO, given(), 4, silent).policy.network) for _ in range(2))
    assert equal(once, again)


def test_a_kl_budget_returns_the_last_policy_within_it() -> None:
    # The first rollout is the parent's own and has KL 0; the second, after an update, is over any tiny budget.
    outcome = ppo.train(replace(PPO, kl_budget=1e-6), given(), 0, silent)
    assert outcome.metrics["stopped_by_kl"] == 1.0
    assert outcome.metrics["steps"] == 0.0
    assert equal(weights(outcome.policy.network), weights(tuned().network))


def test_a_parent_over_the_budget_comes_back_as_it_is() -> None:
    parent = clone(base())
    outcome = ppo.train(replace(PPO, kl_budget=1e-3), replace(given(), parent=parent), 0, silent)
    assert outcome.metrics == {"steps": 0.0, "stopped_by_kl": 1.0}
    assert equal(weights(outcome.policy.network), weights(parent.network))


@pytest.mark.parametrize("anchor", ["parent", "reference"])
def test_the_penalty_pulls_to_the_anchor_and_the_budget_counts_from_the_reference(anchor: str) -> None:
    log: list[Progress] = []
    models = replace(given(), parent=clone(base()))
    ppo.train(replace(PPO, steps=1, kl_anchor=anchor, kl_budget=1e9), models, 0, log.append)  # type: ignore[arg-type]
    assert (log[0].metrics["kl_anchor"] == 0.0) is (anchor == "parent")
    assert log[0].metrics["kl"] > 1


def test_the_adaptive_coefficient_rises_above_its_target_and_falls_below_it() -> None:
    drift: dict[float, list[float]] = {}
    for target in (1e-9, 1e9):
        log: list[Progress] = []
        config = replace(PPO, steps=3, kl_control="adaptive", kl_target=target, kl_horizon=160)
        ppo.train(config, given(), 0, log.append)
        drift[target] = [progress.metrics["kl_coefficient"] for progress in log]
    # The error is bounded by 20 %, and 16 episodes of a horizon of 160 correct a tenth of it. KL starts at 0.
    assert drift[1e-9] == pytest.approx([0.1, 0.1 * 0.98, 0.1 * 0.98 * 1.02])
    assert drift[1e9] == pytest.approx([0.1, 0.1 * 0.98, 0.1 * 0.98**2])


def test_sampling_that_disagrees_with_training_stops_it() -> None:
    logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[1.0, 0.0]])
    check_parity(logprobs, logprobs + torch.tensor([[5e-4, 9.0]]), mask)
    with pytest.raises(ParityError, match=r"differ by 2.00e-03"):
        check_parity(logprobs, logprobs + torch.tensor([[2e-3, 0.0]]), mask)
    with pytest.raises(ParityError):
        check_parity(logprobs, logprobs * math.nan, mask)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_refused(loss: float) -> None:
    with pytest.raises(DivergenceError, match="lower the learning rate"):
        finite(torch.tensor(loss))


def test_an_answer_cut_off_earns_the_fixed_low_reward() -> None:
    log: list[Progress] = []
    short = LanguageModel(tuned().network, tuned().tokenizer, replace(SHAPE, answer_tokens=1))
    models = Given(short, short, judge(), PROMPTS)
    ppo.train(replace(PPO, steps=1, unfinished_reward=-7.0), models, 0, log.append)
    finished = log[0].metrics["finished"]
    assert finished < 0.5
    assert log[0].metrics["reward"] < -7 * (1 - finished) + 3 * finished + 0.01


def test_nothing_trained_on_is_measured_on() -> None:
    rows = [Comparison("held?", "a", "b", 900_000, 1, 0)]
    found = unseen_prompts(PROMPTS, rows, 100, 0)
    assert found[0] == "held?"
    assert len(set(found)) == 100
    assert not set(found) & set(PROMPTS)


def test_kl_is_zero_from_oneself_and_positive_from_another() -> None:
    answers = ["The tea was good."] * 32
    assert mean_kl(tuned(), tuned(), PROMPTS, answers) == pytest.approx(0, abs=1e-5)
    assert mean_kl(tuned(), base(), PROMPTS, answers) > 0.1


def test_an_evaluation_against_oneself_is_a_draw() -> None:
    models = Models(policy=tuned(), parent=tuned(), reference=tuned(), reward=judge())
    config, rows = EvaluateConfig(prompts=24), labelled(900_000)[:8]
    metrics = evaluate(config, models, rows, PROMPTS[8:], 0, silent).metrics
    assert metrics["win_rate_sft"] == metrics["win_rate_parent"] == 0.5
    assert metrics["gold_policy"] == metrics["gold_sft"]
    assert metrics["reward_accuracy_n"] == 8.0
    assert metrics["kl"] == pytest.approx(0, abs=1e-4)
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_scorer_reads_the_last_token_and_ignores_what_lies_beside() -> None:
    pairs = [
        (encode_prompt(tuned(), p), encode_answer(tuned(), a)) for p, a in (("a b c d", "x"), ("e", "y z w"))
    ]
    together = reward.score(judge(), pad([p for p, _ in pairs], [a for _, a in pairs]))
    alone = [reward.score(judge(), pad([p], [a])).item() for p, a in pairs]
    assert together.tolist() == pytest.approx(alone, abs=1e-4)


def test_simulated_judges_agree_with_gold_as_often_as_they_are_sure() -> None:
    from trainer import gold

    rows = simulate.comparisons([tuned()], 400, per_prompt=4, epoch=0, seed=0)
    told = [r for r in rows if gold.score(r.prompt, r.chosen) != gold.score(r.prompt, r.rejected)]
    right = sum(gold.score(r.prompt, r.chosen) > gold.score(r.prompt, r.rejected) for r in told) / len(told)
    sure = sum(r.confidence_ppm for r in told) / len(told) / 1e6
    assert abs(right - sure) < 0.08
    assert rows == simulate.comparisons([tuned()], 400, per_prompt=4, epoch=0, seed=0)
