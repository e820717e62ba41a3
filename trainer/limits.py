"""The machine's limits, told so that something can be done: a full disk by its file, a full memory by what to lower."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from trainer.errors import DiskError, OutOfMemoryError

LOWER = MappingProxyType(
    {
        "pretrain": ("pretrain.batch", "pretrain.block", "model.width"),
        "sft": ("sft.batch", "model.answer_tokens"),
        "reward": ("reward.batch", "reward.members", "reward.normalising_samples"),
        "ppo": ("ppo.episodes", "ppo.minibatch", "ppo.ptx_batch"),
        "dpo": ("dpo.batch",),
        "raft": ("raft.prompts", "raft.samples", "raft.batch"),
        "grpo": ("grpo.episodes", "grpo.minibatch"),
        "rloo": ("rloo.episodes", "rloo.minibatch"),
        "evaluate": ("evaluate.prompts", "evaluate.texts", "evaluate.curve_prompts"),
    }
)
"""Settings that a stage's need of memory grows with, the first the most."""
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)
"""What PyTorch's errors say; on a CPU they are plain RuntimeErrors."""


@contextmanager
def within_memory(stage: str) -> Iterator[None]:
    """Say which settings of a stage to lower where memory runs out in it.

    Raises:
        OutOfMemoryError: in place of Python's or PyTorch's own.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _NO_MEMORY.search(str(error)):
            raise
        cause = str(error).splitlines()[0] if str(error) else "Python could not get it"
        raise OutOfMemoryError(
            f"stage {stage} needs more memory than there is ({cause}): lower {', '.join(LOWER[stage])}"
        ) from error


@contextmanager
def writing(path: Path, size: int) -> Iterator[None]:
    """Say which file could not be written, of what size in bytes, and how many bytes are free.

    Raises:
        DiskError: in place of what any library raises; nothing that was complete before is changed by it.
    """
    try:
        yield
    except Exception as error:  # safetensors and tokenizers raise exceptions of their own
        there = next(folder for folder in path.parents if folder.exists())
        raise DiskError(
            f"{path} of {size} bytes cannot be written, {shutil.disk_usage(there).free} are free there: {error}"
        ) from error
