"""Every setting of every stage, each with what it means; `overrides.py` changes any of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

KlControl = Literal["fixed", "adaptive"]
"""How the weight of the KL penalty is chosen."""
KlAnchor = Literal["parent", "reference"]
"""Which model the KL penalty pulls towards."""
Method = Literal["ppo", "dpo", "raft", "grpo", "rloo"]
"""How comparisons become a better policy."""
Layout = Literal["chat", "plain"]
"""How an imported model is shown prompt and answer."""
RewardScale = Literal["group", "batch", "none"]
"""Over which answers a reward's deviation is taken that the reward is divided by."""
Precision = Literal["float32", "bfloat16"]
"""What a forward pass computes in; weights, gradients and steps are float32 in any case."""
Device = Literal["cpu", "cuda", "auto"]
"""Where a model computes."""
Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]
"""Which of transformers' implementations of attention a model uses."""
Generation = Literal["transformers", "vllm", "auto"]
"""What draws answers."""
Parallel = Literal["ddp", "fsdp"]
"""How several processes hold what they train."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The tiny language model of the devnet: Llama's architecture, made here from scratch."""

    vocabulary: int = 768
    """Most tokens of the byte-level vocabulary; any text can be encoded whatever the size."""
    width: int = 64
    """Size of the hidden state."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 4
    """Attention heads per block."""
    prompt_tokens: int = 48
    """Longest prompt; a longer one keeps its end."""
    answer_tokens: int = 40
    """Longest answer, end mark included; a longer one keeps its beginning."""


@dataclass(frozen=True, slots=True)
class ImportConfig:
    """A model that was made elsewhere."""

    prompt_tokens: int = 128
    """Longest prompt; a longer one keeps its end."""
    answer_tokens: int = 64
    """Longest answer, end mark included; a longer one keeps its beginning."""
    layout: Layout = "chat"
    """By the tokenizer's chat template; or plain, for a model without one: the prompt, a line's end, the answer."""


@dataclass(frozen=True, slots=True)
class TrainedConfig:
    """Which weights a stage trains: all, those above the lowest blocks, or low-rank adapters."""

    frozen_layers: int = 0
    """Lowest blocks that stay as they are; an embedding that is the output head too is trained nevertheless."""
    lora_rank: int = 0
    """Rank of the adapters on every linear layer, which are all that learns and are added to the weights at the end;
    0 has none. Models in training then share the memory of one base."""
    lora_alpha: int = 16
    """Adapters count alpha/rank times."""


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """Next-token training on plain text."""

    documents: int = 4000
    """Documents of the corpus to make."""
    steps: int = 300
    """Optimizer steps."""
    batch: int = 16
    """Blocks per step."""
    block: int = 48
    """Tokens per block."""
    learning_rate: float = 1.2e-2
    """Peak of the one-cycle schedule."""


@dataclass(frozen=True, slots=True)
class SftConfig(TrainedConfig):
    """Supervised fine-tuning on demonstrations; the loss counts the answer's tokens only."""

    demonstrations: int = 2400
    """Demonstrations to make."""
    steps: int = 300
    """Optimizer steps."""
    batch: int = 16
    """Demonstrations per step."""
    packing: int = 0
    """Tokens of a row that demonstrations share, each seeing itself only; 0 gives each a row of its own. The loss is
    the same but for its last bits, and it takes less time; some twice the longest demonstration is a good length."""
    learning_rate: float = 4e-3
    """Peak of the one-cycle schedule."""


@dataclass(frozen=True, slots=True)
class RewardConfig(TrainedConfig):
    """The reward model: Bradley-Terry on comparisons weighted by label confidence."""

    held_out: float = 0.15
    """Share of prompts, in (0, 1), kept from training for the accuracy."""
    split_salt: str = "haptic"
    """Salt of the split: the same salt keeps a prompt on the same side in every later snapshot."""
    epochs: int = 4
    """Passes over the comparisons."""
    batch: int = 16
    """Comparisons per step."""
    learning_rate: float = 5e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 2.0
    """AdamW's decoupled decay; labels are noisy and few."""
    margin: float = 0.0
    """By how many times the log-odds of its label a chosen answer has to lead; 0 asks that it leads at all."""
    precision: Precision = "float32"
    """Of its training; bfloat16 takes a third of the time where the processor knows it."""
    normalising_samples: int = 256
    """Answers of the reference on which the reward gets mean 0 and deviation 1."""
    members: int = 1
    """Reward models to train, from different heads and orders; several are asked together."""
    pessimism: float = 0.0
    """Deviations between the members that are taken off their mean; 0 is the mean (Coste et al. 2024)."""


@dataclass(frozen=True, slots=True)
class PpoConfig(TrainedConfig):
    """Proximal policy optimisation with a per-token KL penalty (Schulman 2017, Ziegler 2019)."""

    steps: int = 20
    """Rollouts, each followed by an update."""
    episodes: int = 96
    """Answers per rollout."""
    epochs: int = 2
    """Passes over a rollout."""
    minibatch: int = 48
    """Episodes per optimizer step."""
    learning_rate: float = 1.5e-3
    """Of the policy, falling linearly to a tenth."""
    critic_learning_rate: float = 3e-3
    """Of the critic, falling with the policy's."""
    adam_epsilon: float = 1e-5
    """Adam's epsilon; PyTorch's 1e-8 makes early steps too bold."""
    gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    clip: float = 0.2
    """The epsilon of the clipped objective."""
    value_clip: float = 0.2
    """How far a value may move from the rollout's before its loss stops improving."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    discount: float = 1.0
    """Gamma of GAE; an answer is short, so nothing is discounted."""
    gae_lambda: float = 0.95
    """Lambda of GAE."""
    temperature: float = 1.0
    """Of the rollouts; log-probabilities are taken at the same temperature."""
    kl_control: KlControl = "fixed"
    """Whether the coefficient stays, or is steered to `kl_target`."""
    kl_anchor: KlAnchor = "parent"
    """What the penalty pulls towards. The parent: each retraining adds what its comparisons say to what the parent
    learned. The reference: each starts over with a reward model of its own, and was measured to forget."""
    kl_coefficient: float = 0.1
    """Reward taken per nat of divergence from the anchor (the first value, when adaptive)."""
    kl_target: float = 6.0
    """Nats per answer from the anchor that the adaptive controller steers to."""
    kl_horizon: int = 2000
    """Episodes over which the adaptive controller corrects an error of 100 %."""
    kl_budget: float = 15.0
    """Nats per answer from the reference, however many retrainings ago, at which training stops."""
    unfinished_reward: float = -1.0
    """Normalised reward of an answer that does not end within the limit."""
    ptx_coefficient: float = 0.0
    """Weight of the next-token loss on pretraining text in each step: PPO-ptx, gamma of Ouyang et al. 2022, eq. 2."""
    ptx_batch: int = 16
    """Blocks of text per step."""
    ptx_block: int = 48
    """Tokens per block."""


@dataclass(frozen=True, slots=True)
class DpoConfig(TrainedConfig):
    """Direct preference optimisation (Rafailov et al. 2023), each comparison weighted by its confidence."""

    beta: float = 0.2
    """How hard the policy is held to the parent: the reward it implies is beta times the log-ratio."""
    epochs: int = 4
    """Passes over the comparisons."""
    batch: int = 16
    """Comparisons per step."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule."""


@dataclass(frozen=True, slots=True)
class RaftConfig(TrainedConfig):
    """Reward-ranked fine-tuning (Dong et al. 2023)."""

    rounds: int = 3
    """Times that answers are drawn, ranked and learned from."""
    prompts: int = 96
    """Prompts per round."""
    samples: int = 8
    """Answers to each prompt, of which the best is kept."""
    steps: int = 24
    """Optimizer steps per round."""
    batch: int = 16
    """Answers per step."""
    learning_rate: float = 1e-3
    """Peak of each round's one-cycle schedule."""
    temperature: float = 1.0
    """Of the answers drawn."""


@dataclass(frozen=True, slots=True)
class GroupConfig(TrainedConfig):
    """What GRPO and RLOO share: several answers to each prompt stand in for a critic; both are run by trl."""

    steps: int = 20
    """Rollouts, each followed by an update; these and the next three are as PPO's."""
    episodes: int = 96
    """Answers per rollout."""
    epochs: int = 2
    """Passes over a rollout."""
    minibatch: int = 48
    """Answers per optimizer step, which `episodes` has to be a multiple of."""
    group: int = 8
    """Answers to each prompt, at least 2, which `episodes` has to be a multiple of."""
    learning_rate: float = 1.5e-3
    """Of the policy, falling linearly to 0."""
    adam_epsilon: float = 1e-5
    """Adam's epsilon, as PPO's."""
    gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    clip: float = 0.2
    """The epsilon of the clipped objective."""
    temperature: float = 1.0
    """Of the rollouts; log-probabilities are taken at the same temperature."""
    unfinished_reward: float = -1.0
    """Normalised reward of an answer that does not end within the limit."""


@dataclass(frozen=True, slots=True)
class GrpoConfig(GroupConfig):
    """Group relative policy optimisation (Shao et al. 2024), trl's, with its default loss over tokens (DAPO's)."""

    beta: float = 0.1
    """Weight of the KL penalty towards the parent, which is a part of the loss."""
    reward_scale: RewardScale = "group"
    """A reward counts by its distance from its group's mean, divided by the deviation of its group, of the whole
    rollout, or by nothing."""


@dataclass(frozen=True, slots=True)
class RlooConfig(GroupConfig):
    """REINFORCE leave-one-out (Ahmadian et al. 2024), trl's: an answer counts by its lead over its group's others."""

    beta: float = 0.1
    """Reward taken per nat of an answer's divergence from the parent."""


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """What is measured of a new policy, and on how much."""

    prompts: int = 192
    """Prompts that neither the reward model nor the policy was trained on."""
    temperature: float = 1.0
    """Of the answers compared."""
    texts: int = 200
    """Documents on which the loss of next tokens is compared with the reference's."""
    curve_prompts: int = 64
    """Of these prompts, those that the over-optimisation curve is drawn from."""
    curve_samples: int = 32
    """Answers of the reference to each of them, the largest n of best of n, rounded down to a power of two; 0 for no
    curve."""


@dataclass(frozen=True, slots=True)
class HardwareConfig:
    """Where a training runs, and how. Each of these changes the last bits of a result, so an entry records them."""

    device: Device = "cpu"
    """The processor, a GPU, or a GPU where there is one. Each process that a launcher starts takes a GPU of its own."""
    precision: Precision = "float32"
    """Of every forward pass; bfloat16 where the device is made for it."""
    attention: Attention = "auto"
    """What transformers takes for the model, mostly sdpa; flash_attention_2 needs its package, a GPU and bfloat16."""
    gradient_checkpointing: bool = False
    """Whether a block's activations are computed again in the backward pass instead of kept: a third more computing, and
    memory for the blocks' inputs only."""
    generation: Generation = "transformers"
    """Who draws answers; auto is vLLM on a GPU where it is installed, in this Python or in the one that VLLM_PYTHON
    names, and transformers otherwise. Methods by trl draw by themselves."""
    cache_gib: float = 2.0
    """Of vLLM: its memory for keys and values beside its copy of the weights, GiB. With less of it fewer answers are
    drawn at a time, to the same result, so an entry does not record it."""
    compile: bool = False
    """Whether the blocks of what is trained are compiled, which takes a minute and a C++ compiler (on a GPU, Triton)."""
    parallel: Parallel = "ddp"
    """Of several processes: ddp, each holds all that it trains; fsdp, each holds a share of weights, gradients and
    optimizer states, and gathers a block when it is its turn. A process alone does not differ."""


@dataclass(frozen=True, slots=True)
class Config:
    """All stages together: what `--config` and `--set` override, and what a registry entry records."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape of the model; of a bootstrap only, later models keep their parent's."""
    imported: ImportConfig = field(default_factory=ImportConfig)
    """How a model from elsewhere is read; of an import only."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    """First stage of a bootstrap."""
    sft: SftConfig = field(default_factory=SftConfig)
    """Second stage of a bootstrap."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """First stage of a retraining."""
    method: Method = "ppo"
    """Second stage of a retraining; the settings of the others are not used."""
    ppo: PpoConfig = field(default_factory=PpoConfig)
    """Settings of the method of this name."""
    dpo: DpoConfig = field(default_factory=DpoConfig)
    """Settings of the method of this name."""
    raft: RaftConfig = field(default_factory=RaftConfig)
    """Settings of the method of this name."""
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    """Settings of the method of this name."""
    rloo: RlooConfig = field(default_factory=RlooConfig)
    """Settings of the method of this name."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Last stage of a retraining."""
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    """Of all stages."""
    threads: int = 1
    """Threads of PyTorch, part of the configuration since a sum's last bits depend on them. One is right for the tiny
    model: two threads on two cores that others use wait for each other, which was measured thirty times slower."""
    checkpoint_s: float = 30.0
    """Least seconds between two checkpoints; at 0 there is one after each step. The result is the same."""
