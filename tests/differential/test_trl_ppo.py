"""Haptic's PPO against trl 1.12's own PPOTrainer, on what `tests/oracles/trl_ppo.py` wrote: to 1e-6, in float64.

Where all answers end at the limit the two are one algorithm but for whitening, and a whole rollout and update of ours
is compared. Otherwise two conventions differ. Each is converted here, and kept as it is:

- Whitening: trl divides by the unbiased deviation. Ziegler et al.'s code takes `tf.nn.moments`, which is biased, as
  ours; it also stands for one token, where the unbiased one divides by zero. The factor is sqrt((n - 1) / n).
- The score: where there is room, trl pays it one step after <end>, in a state that no action leads out of, and learns
  a value there (`padding_mask_p1`). Ours pays the action that earned it, <end>, and what follows is worth 0, as
  Ziegler et al. (eq. 2), and as trl itself where an answer reaches the limit. trl's way an estimate stands between
  the score and the answer; with lambda below 1 it takes credit for the score from every token. A mask of one token
  more turns ours into trl's.

Beside these trl adds 1e-7 to the temperature, never scales gradients down, and takes a penalty off the score of an
answer without <end>, where ours replaces it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import oracle
from tests.oracle import close, equal_gradients, equal_weights, trunk
from trainer import losses, ppo
from trainer.config import PpoConfig
from trainer.method import Given
from trainer.model import END
from trainer.sampler import Samples
from trainer.sequences import Batch, answer_logprobs

TRL = oracle.read("trl_ppo.safetensors")
SETTINGS = TRL.settings
CONFIG = PpoConfig(
    epochs=int(SETTINGS["epochs"]),
    minibatch=int(SETTINGS["minibatch"]),
    adam_epsilon=SETTINGS["adam_epsilon"],
    gradient_norm=1e9,
    clip=SETTINGS["clip"],
    value_clip=SETTINGS["value_clip"],
    value_weight=SETTINGS["value_weight"],
    discount=SETTINGS["discount"],
    gae_lambda=SETTINGS["gae_lambda"],
    temperature=SETTINGS["temperature"] + 1e-7,
    kl_coefficient=SETTINGS["kl_coefficient"],
)
STEPS = range(4)


def learner() -> ppo.Learner:
    policy, critic = TRL.language("weights/policy/"), TRL.scalar("weights/critic/")
    both = [*policy.network.parameters(), *critic.parameters()]
    adam = torch.optim.Adam(both, lr=SETTINGS["learning_rate"], eps=SETTINGS["adam_epsilon"])
    return ppo.Learner(policy, policy, critic, adam)


def batch(case: str) -> Batch:
    queries, responses = TRL[f"{case}/queries"], TRL[f"{case}/responses"]
    tokens = torch.cat([queries, responses], dim=1)
    return Batch(tokens, (tokens != 0).long(), queries.shape[1])


def rollout(case: str, mine: ppo.Learner, monkeypatch: pytest.MonkeyPatch) -> ppo.Rollout:
    """Return our measures of trl's answers: what is drawn is given, and `ppo` checks trl's log-probabilities."""
    drawn = batch(case)
    samples = Samples(drawn, TRL[f"{case}/logprobs"], (drawn.answers == END).any(dim=1))
    monkeypatch.setattr(ppo, "sample", lambda *_, **__: samples)
    about = Given(
        parent=TRL.language("weights/reference/"),
        reference=TRL.language("weights/reference/"),
        reward=TRL.scalar("weights/reward/"),
    )
    return ppo._rollout(CONFIG, about, mine, [[]] * len(drawn.tokens), torch.Generator())


def bessel(mask: Tensor) -> Tensor:
    return ((mask.sum() - 1) / mask.sum()).sqrt()


@pytest.mark.parametrize("case", ["full", "ragged"])
def test_log_probabilities_kl_values_and_scores_are_those_of_trl(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, drawn = rollout(case, learner(), monkeypatch), batch(case)
    mask, finished = drawn.answer_mask, (drawn.answers == END).any(dim=1)
    assert close(found.logprobs * mask, TRL[f"{case}/logprobs"] * mask)
    assert close(found.kl, (TRL[f"{case}/logprobs"] - TRL[f"{case}/ref_logprobs"]) * mask)
    assert close(found.values, TRL[f"{case}/values"] * mask)
    assert close(found.scores[finished], TRL[f"{case}/scores"][finished])


def test_a_whole_update_on_answers_that_end_at_the_limit_moves_every_weight_as_trl_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = learner()
    found, whiten = rollout("full", mine, monkeypatch), losses.whiten
    monkeypatch.setattr(losses, "whiten", lambda x, mask: whiten(x, mask) * bessel(mask))
    source = torch.Generator().manual_seed(int(SETTINGS["seed"]))
    changes = ppo._update(CONFIG, mine, found, None, CONFIG.kl_coefficient, source)
    for name, theirs in (("policy_loss", "pg_loss"), ("value_loss", "vf_loss")):
        mean = torch.stack([TRL[f"full/{step}/{theirs}"] for step in STEPS]).mean().item()
        assert changes[name] == pytest.approx(mean, abs=1e-6)
    assert changes["clipped"] == pytest.approx(TRL["full/clipped"].mean().item(), abs=1e-6)
    assert changes["clipped"] > 0.3  # so that clipping is compared too
    assert equal_weights(mine.policy.network, TRL.part("full/after/policy/"))
    assert equal_weights(mine.critic, trunk(TRL.part("full/after/critic/")))


@pytest.mark.parametrize("case", ["full", "ragged"])
def test_rewards_advantages_and_returns_are_those_of_trl(case: str) -> None:
    trl: Any = {name: TRL[f"{case}/{name}"] for name in ("logprobs", "ref_logprobs", "values", "scores")}
    mask, wide = 1 - TRL[f"{case}/padding_mask"], 1 - TRL[f"{case}/padding_mask_p1"]
    kl = losses.kl_k1(trl["logprobs"], trl["ref_logprobs"]) * mask
    rewards = losses.token_rewards(trl["scores"], kl, wide, CONFIG.kl_coefficient)
    assert close(rewards, TRL[f"{case}/rewards"])
    advantages, returns = losses.gae(
        rewards, trl["values"], wide, discount=CONFIG.discount, lam=CONFIG.gae_lambda
    )
    assert close(advantages, TRL[f"{case}/advantages"])
    assert close(returns, TRL[f"{case}/returns"])
    assert close(losses.whiten(advantages, mask) * bessel(mask), TRL[f"{case}/whitened"])


def test_losses_and_gradients_of_each_step_on_ragged_answers_are_those_of_trl() -> None:
    mine, drawn = learner(), batch("ragged")
    mask, wide = 1 - TRL["ragged/padding_mask"], 1 - TRL["ragged/padding_mask_p1"]
    for step in STEPS:
        rows = TRL[f"ragged/{step}/rows"]
        some = drawn.rows(rows)
        new = answer_logprobs(mine.policy, some, CONFIG.temperature)
        old, advantages = TRL["ragged/logprobs"][rows], TRL["ragged/whitened"][rows]
        policy_loss, clipped = losses.policy_loss(new, old, advantages, mask[rows], CONFIG.clip)
        values = some.before_answers(mine.critic(some.tokens, some.mask))
        before, returns = TRL["ragged/values"][rows], TRL["ragged/returns"][rows]
        value_loss = losses.value_loss(values, before, returns, wide[rows], CONFIG.value_clip)
        assert close(policy_loss, TRL[f"ragged/{step}/pg_loss"])
        assert close(value_loss, TRL[f"ragged/{step}/vf_loss"])
        assert close(clipped, TRL["ragged/clipped"][step])
        mine.optimizer.zero_grad(set_to_none=True)
        (policy_loss + CONFIG.value_weight * value_loss).backward()
        assert equal_gradients(mine.policy.network, TRL.part(f"ragged/{step}/gradients/policy/"))
        assert equal_gradients(mine.critic, trunk(TRL.part(f"ragged/{step}/gradients/critic/")))
        mine.optimizer.step()
    assert equal_weights(mine.policy.network, TRL.part("ragged/after/policy/"))
