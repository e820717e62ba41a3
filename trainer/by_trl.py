"""Methods that trl runs on our policy, prompts and reward model; trl is an extra, `pip install -e '.[trl]'`.

trl's trainer samples, computes its loss and steps. What it is given is ours: prompts as our template lays them out, the
reward of an answer's tokens by our reward model, an unfinished one's as in PPO. Nothing is fetched or sent, which trl
would do of its own accord when it starts. Its files lie beside the run's checkpoints, and are gone at the end.

A killed stage goes on from trl's own checkpoint of its last rollout, in the same bits. On models whose positions are
absolute (GPT-2's) trl counts a prompt's padding in training but not in sampling: rotary ones do not care.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from transformers import GenerationConfig, PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from trainer import devices
from trainer.checkpoint import Keep
from trainer.config import Config, GroupConfig, Method
from trainer.errors import ConfigError, DivergenceError
from trainer.limits import writing
from trainer.method import Given, Outcome
from trainer.model import LanguageModel, clone
from trainer.ppo import draw
from trainer.progress import Progress, Report, launched, unfinished
from trainer.reward import score
from trainer.sequences import encode_prompt, pad

LOGGED = {
    "reward": "reward",
    "rewards/scored/std": "reward_deviation",
    "completions/mean_length": "length",
    "finished": "finished",
    "clip_ratio/region_mean": "clipped",
}
"""What is reported of a rollout, by trl's names for it."""


def check(config: Config) -> None:
    """Raise a ConfigError where the method is trl's and could not run to its end.

    trl is not installed or cannot do what is asked of it, several processes were launched, or rollouts cannot be cut into
    minibatches and groups.
    """
    method = config.method
    if method not in {"grpo", "rloo"}:
        return
    if find_spec("trl") is None:
        raise ConfigError(
            f"method {method} is run by trl, which is not installed: pip install -e '.[trl]' in the repository, "
            "or choose another method"
        )
    if launched() > 1:
        raise ConfigError(
            f"method {method} is run by trl, here in one process, and {launched()} were launched: launch one, or choose "
            "another method"
        )
    if config.hardware.compile:
        raise ConfigError(
            f"hardware.compile is set, but method {method} is run by trl, which compiles nothing here: unset it, or "
            "choose another method"
        )
    settings: GroupConfig = getattr(config, method)
    for name in ("minibatch", "group"):
        if settings.episodes % (size := getattr(settings, name)):
            raise ConfigError(
                f"{method}.episodes is {settings.episodes}: it must be a multiple of {method}.{name}, {size}"
            )


def train(
    method: Method,
    config: GroupConfig,
    settings: dict[str, Any],
    given: Given,
    seed: int,
    report: Report,
    keep: Keep,
) -> Outcome:
    """Improve a copy of the parent by one of trl's trainers.

    Args:
        method: GRPO or RLOO.
        config: what both share.
        settings: the method's own, by trl's names.
        given: parent, reward model and prompts.
        seed: of all randomness.
        report: where each rollout is told of.
        keep: where trl's checkpoints are kept, and in the end the policy.

    Raises:
        DivergenceError: a gradient is no longer a number.
    """
    torch.manual_seed(seed)
    policy = clone(given.parent, config)
    begun = keep.load({}, step=0, metrics={}, files={}, policy={})
    if begun["policy"]:
        policy.network.load_state_dict(begun["policy"])
        return Outcome(policy, begun["metrics"])
    learner = clone(policy)  # trl changes how the network it trains computes, and what it says of itself
    teller = _Teller(method, config, report, keep)
    with keep.scratch() as folder, _alone():
        if settings["beta"]:  # the anchor is read from disk: trl makes none of a network that it is given
            size = sum(weights.nbytes for weights in given.parent.network.parameters())
            with writing(folder / "model.safetensors", size):
                given.parent.network.save_pretrained(folder)
            learner.network.config.name_or_path = str(folder)
        learner.network.generation_config = GenerationConfig(eos_token_id=given.parent.template.end)  # type: ignore[no-untyped-call]
        trainer = _trainer(method, config, settings, given, learner, seed, folder, teller)
        trainer.remove_callback(PrinterCallback)  # standard output is the run's own
        kept = _checkpoint(folder, begun["step"] * teller.updates)
        trainer.train(resume_from_checkpoint=_written(begun["files"], kept))
    end = learner.network.state_dict()
    policy.network.load_state_dict(end)
    keep.save({}, config.steps, config.steps, metrics=teller.metrics, files={}, policy=end)
    return Outcome(policy, teller.metrics)


def _trainer(
    method: Method,
    config: GroupConfig,
    settings: dict[str, Any],
    given: Given,
    learner: LanguageModel,
    seed: int,
    folder: Path,
    teller: _Teller,
) -> Any:
    """Return trl's trainer, set up as ours would be."""
    from datasets import Dataset

    trl: Any = import_module("trl")
    hardware = devices.used()
    trainer, arguments = {
        "grpo": (trl.GRPOTrainer, trl.GRPOConfig),
        "rloo": (trl.RLOOTrainer, trl.RLOOConfig),
    }[method]
    # As PPO's, prompts come for ever in a new order each time round.
    source, groups = torch.Generator().manual_seed(seed), config.steps * config.episodes // config.group
    rows, _ = draw([], len(given.prompts), groups, source)
    made = trainer(
        model=learner.network,
        reward_funcs=_reward(config, given),
        processing_class=_Prompts.of(given.parent),
        train_dataset=Dataset.from_list([{"prompt": given.prompts[row]} for row in rows]),
        callbacks=[teller],
        args=arguments(
            output_dir=str(folder),
            seed=seed,
            max_steps=config.steps * teller.updates,
            per_device_train_batch_size=config.minibatch,
            generation_batch_size=config.episodes,
            num_generations=config.group,
            num_iterations=config.epochs,
            max_completion_length=given.parent.limits.answer_tokens,
            temperature=config.temperature,
            epsilon=config.clip,
            learning_rate=config.learning_rate,
            lr_scheduler_type="linear",
            adam_epsilon=config.adam_epsilon,
            max_grad_norm=config.gradient_norm,
            shuffle_dataset=False,
            disable_dropout=True,
            bf16=hardware.precision == "bfloat16",
            activation_checkpointing=hardware.gradient_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            use_cpu=given.parent.network.device.type == "cpu",
            dataloader_pin_memory=False,
            logging_steps=teller.updates,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **settings,
        ),
    )  # fmt: skip
    made.args._n_gpu = min(1, made.args.n_gpu)  # noqa: SLF001 - of several GPUs it would take all, and twice the rows
    if made.ref_model is not None:
        devices.placed(made.ref_model)
    return made


def _reward(config: GroupConfig, given: Given) -> Any:
    """Return the reward model as trl calls one: on the very tokens that were drawn."""
    end = given.parent.template.end

    def scored(
        prompts: Sequence[str], completion_ids: Sequence[list[int]], log_metric: Any, **_: Any
    ) -> list[float]:
        batch = pad([encode_prompt(given.parent, prompt) for prompt in prompts], completion_ids)
        batch = batch.to(given.parent.device)
        finished = torch.tensor([ids[-1] == end for ids in completion_ids])
        log_metric("finished", finished.float().mean().item())
        scores = score(given.reward, batch).cpu()
        found: list[float] = torch.where(finished, scores, config.unfinished_reward).tolist()
        return found

    return scored


class _Prompts(PreTrainedTokenizerFast):
    """A model's tokenizer as trl calls one: a text is a prompt, which gets our template's tokens around it."""

    language: LanguageModel

    @classmethod
    def of(cls, language: LanguageModel) -> _Prompts:
        end = language.tokenizer.id_to_token(language.template.end)
        # Padding is masked, so any token serves.
        found = cls(tokenizer_object=language.tokenizer, eos_token=end, pad_token=end, padding_side="left")
        found.language = language
        return found

    def __call__(self, text: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [encode_prompt(self.language, prompt) for prompt in text]}


class _Teller(TrainerCallback):
    """Tells of each rollout, and keeps trl's own checkpoint after one where it is time."""

    def __init__(self, method: Method, config: GroupConfig, report: Report, keep: Keep) -> None:
        self.metrics: dict[str, float] = {}
        """Of the last rollout."""
        self.updates = config.epochs * config.episodes // config.minibatch
        """Optimizer steps per rollout."""
        self._method, self._of, self._report, self._keep = method, config.steps, report, keep
        self._warned = False

    def on_log(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002 - transformers' names
        """Tell of what was logged, once a rollout."""
        logs = named["logs"]
        if "reward" not in logs:  # trl's summary at the end
            return
        if not math.isfinite(logs["grad_norm"]):
            raise DivergenceError(
                "the norm of the gradient became no number: lower the learning rate of this stage"
            )
        self.metrics = {ours: logs[theirs] for theirs, ours in LOGGED.items()}
        if "kl" in logs:  # trl's is the mean over tokens
            self.metrics["kl_anchor"] = logs["kl"] * logs["completions/mean_length"]
        step = state.global_step // self.updates
        self._report(Progress(self._method, step, self._of, self.metrics))
        if not self._warned and (note := unfinished(self.metrics["finished"])):
            self._warned = True
            self._report(Progress(self._method, step, self._of, note=note))

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        """Ask for a checkpoint between two rollouts: within one trl does not go on to the same bits."""
        rollout, begun = divmod(state.global_step, self.updates)
        control.should_save = not begun and rollout < self._of and self._keep.due()

    def on_save(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        """Keep the checkpoint's files, which then go away."""
        folder = _checkpoint(Path(args.output_dir), state.global_step)
        files = {
            file.name: torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
            for file in folder.iterdir()
        }
        shutil.rmtree(folder)
        step = state.global_step // self.updates
        self._keep.save({}, step, self._of, metrics=self.metrics, files=files, policy={})


def _checkpoint(folder: Path, step: int) -> Path:
    """Return where trl has its checkpoint of an optimizer step."""
    return folder / f"checkpoint-{step}"


def _written(files: Mapping[str, torch.Tensor], folder: Path) -> str | None:
    """Write a checkpoint's files as they were and return where; None where there are none."""
    if not files:
        return None
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data.numpy().tobytes())
    return str(folder)


@contextmanager
def _alone() -> Iterator[None]:
    """Let nothing reach for a hub, which trl tells of each training; what it shall do in future is trl's to know."""
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        constants.HF_HUB_OFFLINE = before
