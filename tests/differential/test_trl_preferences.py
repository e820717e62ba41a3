"""Haptic's reward-model and DPO losses against trl 1.16's own trainers, where every comparison has weight 1.

Losses and gradients to 1e-6 on what `tests/oracles/trl_preferences.py` wrote. The layouts differ, and nothing else: trl
pads on the right only, ours pads prompts on the left, and rotary positions are relative.
"""

from __future__ import annotations

from dataclasses import replace

from tests import oracle
from tests.oracle import close, equal_gradients, trunk
from trainer import dpo, reward
from trainer.config import DpoConfig
from trainer.preferences import ONE_PPM, Comparison

TRL = oracle.read("trl_preferences.safetensors")


def comparisons() -> list[Comparison]:
    """Return trl's batch as text: what the marks of prompt, answer and end stand between."""
    texts = [
        {
            name: " ".join(f"w{n}" for n in TRL[f"tokens/{row}/{name}"].tolist() if n > 3)
            for name in ("prompt", "chosen", "rejected")
        }
        for row in range(int(TRL.settings["pairs"]))
    ]
    return [Comparison(**text, confidence_ppm=ONE_PPM, judgements=1, epoch=0) for text in texts]


def test_the_comparisons_are_trls_token_by_token() -> None:
    language = TRL.language("dpo/weights/policy/")
    for row, comparison in enumerate(comparisons()):
        pair = reward._encode(language, comparison)
        for name in ("prompt", "chosen", "rejected"):
            assert getattr(pair, name) == TRL[f"tokens/{row}/{name}"].tolist()


def test_the_reward_models_loss_and_gradients_are_those_of_trl() -> None:
    model, language = TRL.scalar("reward/weights/"), TRL.language("dpo/weights/policy/")
    loss, right = reward._loss(model, [reward._encode(language, row) for row in comparisons()])
    loss.backward()
    assert close(loss, TRL["reward/loss"])
    chosen, rejected = TRL["reward/scores"].chunk(2)
    assert right == (chosen > rejected).sum()
    assert equal_gradients(model, trunk(TRL.part("reward/gradients/")))


def test_so_they_are_where_each_chosen_answer_has_to_lead_by_a_margin() -> None:
    model, language = TRL.scalar("reward/weights/"), TRL.language("dpo/weights/policy/")
    pairs = [
        replace(reward._encode(language, row), log_odds=margin / 2)
        for row, margin in zip(comparisons(), TRL["reward/margins"].tolist(), strict=True)
    ]
    loss, _ = reward._loss(model, pairs, margin=2.0)
    loss.backward()
    assert close(loss, TRL["reward/loss_by_margins"])
    assert equal_gradients(model, trunk(TRL.part("reward/gradients_by_margins/")))


def test_the_dpo_loss_and_gradients_are_those_of_trl() -> None:
    policy, anchor = TRL.language("dpo/weights/policy/"), TRL.language("dpo/weights/reference/")
    loss, _, _ = dpo._loss(DpoConfig(beta=TRL.settings["beta"]), policy, anchor, comparisons())
    loss.backward()
    assert close(loss, TRL["dpo/loss"])
    assert equal_gradients(policy.network, TRL.part("dpo/gradients/"))
