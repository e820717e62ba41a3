"""Stage 4: Haptic's PPO. Read it from top to bottom: the loop first, then its steps in the order it takes them.

Schulman et al. 2017 for the clipped objective, Ziegler et al. 2019 and Stiennon et al. 2020 for the per-token KL
penalty, and the details that "The N Implementation Details of RLHF with PPO" (Huang et al. 2023) found to matter;
each is named where it stands. Clipping bounds a step, not the drift: without the KL penalty and its budget the
policy learns to please the reward model instead of people.

Of those details these stand elsewhere: prompts padded on the left, positions counted from the first token
(`sequences`, `model.positions`), a reward at the last token of prompt and answer, its head's first weights (`model`),
its scores normalised on the reference's answers (`reward`). These are left out: answers of fixed length (they end by
themselves), a critic's head that starts at zero (it starts as a reward's), whitening by minibatch (advantages are
whitened over the rollout, rewards never: the KL coefficient would mean something else each time), and prompts that end
with a period. Losses and gradients are those of trl 1.12 on the same batch; `tests/differential/test_trl_ppo.py` names
the two conventions that differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer import devices, losses, pretrain, processes
from trainer.checkpoint import NOTHING, Keep, Parts
from trainer.config import PpoConfig
from trainer.errors import ConfigError
from trainer.method import Given, Outcome
from trainer.model import LanguageModel, Scorer, clone, scorer
from trainer.optimise import clip, finite, learnable
from trainer.progress import Progress, Report
from trainer.reward import score
from trainer.sampler import check_parity, sample
from trainer.sequences import Batch, answer_logprobs, beside, encode_prompt, join


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the policy did, and what everyone thinks of it; all of it fixed while the policy is updated."""

    batch: Batch
    """Prompts and answers of B episodes, R answer tokens at most."""
    logprobs: Tensor
    """log π of the answers' tokens [B, R]."""
    kl: Tensor
    """log π - log π_anchor of the answers' tokens [B, R]."""
    values: Tensor
    """The critic's values before each token [B, R]."""
    scores: Tensor
    """Normalised reward of each answer [B]."""
    metrics: dict[str, float]
    """Means over the episodes, for the log; `kl` is from the reference, `kl_anchor` from the anchor."""


@dataclass(frozen=True, slots=True)
class Learner:
    """What training changes."""

    policy: LanguageModel
    """What is trained, each process with a share of its weights where they are sharded."""
    copy: LanguageModel
    """The policy as one piece; the same network where nothing is sharded."""
    critic: Scorer
    """Its estimate of the reward to come, a network of its own."""
    optimizer: torch.optim.Optimizer
    """Of both."""

    def answering(self) -> LanguageModel:
        """Return the policy in one piece, as it is now: to answer a token at a time would gather each block each time."""
        processes.collect(self.policy.network, self.copy.network)
        return self.copy

    @property
    def parts(self) -> Parts:
        """Return all of it, as a checkpoint keeps it."""
        return {"policy": self.policy.network, "critic": self.critic, "optimizer": self.optimizer}


def train(config: PpoConfig, given: Given, seed: int, report: Report, keep: Keep = NOTHING) -> Outcome:
    """Improve a copy of the parent on the reward, held back by a KL penalty and within a KL budget.

    The policy returned is the last whose rollout was within the budget; the parent, where none was.

    Raises:
        ConfigError: PPO-ptx is asked for without a text.
        ParityError: sampling and training passes disagree.
        DivergenceError: a loss is no longer a number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    learner = _learner(config, given)
    text = _text(config, given)
    encoded = [encode_prompt(given.parent, prompt) for prompt in given.prompts]
    best, measured = clone(learner.answering()), {"steps": 0.0, "stopped_by_kl": 0.0}
    parts: Parts = {**learner.parts, "best": best.network, "generator": generator}
    begun = keep.load(parts, step=0, pending=[], coefficient=config.kl_coefficient, measured=measured)
    pending, coefficient = begun["pending"], begun["coefficient"]
    outcome = Outcome(best, begun["measured"])
    for step in range(begun["step"], config.steps + 1):
        # 1. Let the policy answer, and have the reward model, the anchor and the critic look at the answers.
        drawn, pending = draw(pending, len(encoded), config.episodes, generator)
        rollout = _rollout(config, given, learner, [encoded[row] for row in drawn], generator)
        # 2. Stop at the KL budget with the last policy that was within; the last round only measures.
        if rollout.metrics["kl"] > config.kl_budget:
            return Outcome(outcome.policy, outcome.metrics | {"stopped_by_kl": 1.0})
        outcome = Outcome(
            clone(learner.copy), {**rollout.metrics, "steps": float(step), "stopped_by_kl": 0.0}
        )
        if step == config.steps:
            break
        # 3. Turn scores and KL into token rewards, advantages and returns, and climb the clipped objective.
        _decay(config, learner, step)
        changes = _update(config, learner, rollout, text, coefficient, generator)
        metrics = {**rollout.metrics, **changes, "kl_coefficient": coefficient}
        # 4. Steer the KL coefficient.
        coefficient = _steer(config, coefficient, rollout.metrics["kl_anchor"])
        report(Progress("ppo", step + 1, config.steps, metrics))
        keep.save(
            {**parts, "best": outcome.policy.network}, step + 1, config.steps,
            pending=pending, coefficient=coefficient, measured=outcome.metrics,
        )  # fmt: skip
    return outcome


def _learner(config: PpoConfig, given: Given) -> Learner:
    """Start the policy at its parent, and the critic at the reference's trunk with a head of its own."""
    copy, critic = clone(given.parent, config), devices.trained(scorer(given.reference, config))
    policy = replace(copy, network=devices.trained(copy.network))
    optimizer = torch.optim.Adam(
        [
            {"params": learnable(policy.network), "lr": config.learning_rate},
            {"params": learnable(critic), "lr": config.critic_learning_rate},
        ],
        eps=config.adam_epsilon,  # detail: 1e-5 as in the original TensorFlow code, not PyTorch's 1e-8
        fused=True,  # one kernel for all weights, where most are small
    )
    return Learner(policy, copy, critic, optimizer)


def _text(config: PpoConfig, given: Given) -> Tensor | None:
    """Return the pretraining text's tokens in one row; None where the policy is not held to it."""
    if not config.ptx_coefficient:
        return None
    text = pretrain.encode(given.parent, given.texts) if given.texts else torch.empty(0)
    if len(text) <= config.ptx_block + 1:
        raise ConfigError(
            f"ppo.ptx_coefficient is {config.ptx_coefficient}, but the text has {len(text)} tokens, fewer than a block "
            f"of {config.ptx_block}: give more pretraining text, or set it to 0"
        )
    return text


def draw(pending: list[int], of: int, count: int, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """Return the next `count` of `of` rows, which come for ever in a new order each time round, and what is pending."""
    while len(pending) < count:
        pending = pending + torch.randperm(of, generator=generator).tolist()
    return pending[:count], pending[count:]


@torch.no_grad()
def _rollout(
    config: PpoConfig, given: Given, learner: Learner, prompts: list[list[int]], generator: torch.Generator
) -> Rollout:
    """Sample one answer to each prompt and measure it, each process those of its share, which all have afterwards."""
    policy, (share, counts) = learner.answering(), processes.share(len(prompts))
    samples = sample(
        policy,
        [prompts[row] for row in share.tolist()],
        temperature=config.temperature,
        generator=processes.own(generator),
    )
    batch, mask = samples.batch, samples.batch.answer_mask
    # Detail: the ratio's denominator comes from the same kind of pass as its numerator, and must equal what
    # the sampler drew from; a difference here is a bug in padding, positions or temperature.
    logprobs = answer_logprobs(policy, batch, config.temperature)
    check_parity(logprobs, samples.logprobs, mask)
    drift = losses.kl_k1(logprobs, answer_logprobs(given.reference, batch, config.temperature)) * mask
    kl = drift
    if config.kl_anchor == "parent" and given.parent is not given.reference:
        kl = losses.kl_k1(logprobs, answer_logprobs(given.parent, batch, config.temperature)) * mask
    # Detail (the "EOS trick"): an answer that was cut off gets a fixed low score, so that answers learn to end.
    scores = score(given.reward, batch)
    scores = torch.where(samples.finished, scores, torch.full_like(scores, config.unfinished_reward))
    values = batch.before_answers(learner.critic(batch.tokens, batch.mask)) * mask
    mine = counts.bool().to(mask.device)
    rows = [x[mine] for x in (batch.tokens, batch.mask, logprobs, drift, kl, values)]
    found = processes.gathered((batch.width, rows, scores[mine], samples.finished[mine]))
    batch = join([Batch(tokens, shown, width) for width, (tokens, shown, *_), _, _ in found])
    logprobs, drift, kl, values = (beside([rows[n] for _, rows, _, _ in found]) for n in range(2, 6))
    scores, finished = (
        torch.cat([scores for *_, scores, _ in found]),
        torch.cat([ended for *_, ended in found]),
    )
    metrics = {
        "reward": scores.mean().item(),
        "kl": drift.sum(dim=1).mean().item(),
        "kl_anchor": kl.sum(dim=1).mean().item(),
        "length": batch.answer_mask.sum(dim=1).mean().item(),
        "finished": finished.float().mean().item(),
    }
    return Rollout(batch, logprobs, kl, values, scores, metrics)


def _update(
    config: PpoConfig,
    learner: Learner,
    rollout: Rollout,
    text: Tensor | None,
    coefficient: float,
    generator: torch.Generator,
) -> dict[str, float]:
    """Make several passes over a rollout in minibatches and return the means of what changed."""
    mask = rollout.batch.answer_mask
    rewards = losses.token_rewards(rollout.scores, rollout.kl, mask, coefficient)
    advantages, returns = losses.gae(
        rewards, rollout.values, mask, discount=config.discount, lam=config.gae_lambda
    )
    advantages = losses.whiten(advantages, mask)  # detail: whitened over the whole rollout, padding left out
    log = [
        _minibatch(
            config,
            learner,
            rollout,
            rows,
            advantages[rows],
            returns[rows],
            None if text is None else pretrain.blocks(text, config.ptx_batch, config.ptx_block, generator),
        )
        for _ in range(config.epochs)
        for rows in torch.split(torch.randperm(len(mask), generator=generator), config.minibatch)
    ]
    means = torch.stack(log).mean(dim=0).tolist()
    return dict(zip(("policy_loss", "value_loss", "clipped", "step_kl", "text_loss"), means, strict=True))


def _minibatch(
    config: PpoConfig,
    learner: Learner,
    rollout: Rollout,
    rows: Tensor,
    advantages: Tensor,
    returns: Tensor,
    text: Tensor | None,
) -> Tensor:
    """Take one optimizer step on some episodes, and on some text; return its losses, the share clipped, the KL moved."""
    share, counts = processes.share(len(rows))
    whole, rows, advantages, returns = (
        rollout.batch.answer_mask[rows],
        rows[share],
        advantages[share],
        returns[share],
    )
    batch, old = rollout.batch.rows(rows), rollout.logprobs[rows]
    mask = batch.answer_mask * counts.to(whole.device).unsqueeze(1)
    part = processes.part(mask, whole)
    logprobs = answer_logprobs(learner.policy, batch, config.temperature)
    policy_loss, clipped = losses.policy_loss(logprobs, old, advantages, mask, config.clip)
    values = batch.before_answers(learner.critic(batch.tokens, batch.mask))
    value_loss = losses.value_loss(values, rollout.values[rows], returns, mask, config.value_clip)
    # PPO-ptx: people's reward must not cost what pretraining taught.
    text_loss = (
        policy_loss.new_zeros(()) if text is None else pretrain.part_of_text_loss(learner.policy, text)
    )
    loss = (policy_loss + config.value_weight * value_loss) * part + config.ptx_coefficient * text_loss
    finite(processes.total(loss.detach()))
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for group in learner.optimizer.param_groups:  # policy and critic share no weights: a norm for each
        clip(group["params"], config.gradient_norm)
    learner.optimizer.step()
    step_kl = losses.masked_mean(losses.kl_k3(old, logprobs.detach()), mask)
    means = torch.stack([policy_loss.detach(), value_loss.detach(), clipped, step_kl]) * part
    return processes.total(torch.cat([means, text_loss.detach().view(1)]))


def _decay(config: PpoConfig, learner: Learner, step: int) -> None:
    """Detail: learning rates fall linearly, here to a tenth."""
    share = 1 - 0.9 * step / max(1, config.steps)
    for group, peak in zip(
        learner.optimizer.param_groups, (config.learning_rate, config.critic_learning_rate), strict=True
    ):
        group["lr"] = peak * share


def _steer(config: PpoConfig, coefficient: float, kl: float) -> float:
    """Return the next KL coefficient: the same, or Ziegler's proportional controller (2019, section 2.2)."""
    if config.kl_control == "fixed":
        return coefficient
    error = max(-0.2, min(0.2, kl / config.kl_target - 1))
    return coefficient * (1 + error * config.episodes / config.kl_horizon)
