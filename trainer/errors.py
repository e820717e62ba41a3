"""The errors of the trainer.

TrainerError
├── ConfigError       a setting that does not exist, or a value that cannot be
├── SnapshotError     a snapshot file that is not what its hash or its format says
├── PromptFileError   a prompts file that cannot be read
├── RegistryError     an entry that is missing, damaged, or in the way
├── CheckpointError   a checkpoint that is not of this run
├── DiskError         a file for which there is no room
├── OutOfMemoryError  a stage that needs more memory than there is
├── SourceError       a model from elsewhere that cannot be had or used
├── TaskError         a task of the evaluation that cannot be had or put to a model
├── RatingError       results from which no finite rating follows
├── GenerationError   answers that another program was to draw, and did not
├── ParityError       the sampler and the training pass disagree about log-probabilities
└── DivergenceError   a loss that is no longer a finite number
"""

from __future__ import annotations


class TrainerError(Exception):
    """Root of all errors of the trainer that a user can do something about; the message says what."""


class ConfigError(TrainerError):
    """A setting that does not exist, or a value that cannot be."""


class SnapshotError(TrainerError):
    """A snapshot that does not match its hash or its format; the message names line and value."""


class PromptFileError(TrainerError):
    """A prompts file that cannot be read; the message names line and value."""


class RegistryError(TrainerError):
    """An entry of the registry that is missing, damaged, or stands in the way."""


class CheckpointError(TrainerError):
    """A checkpoint that is not of this run; the message names the file."""


class DiskError(TrainerError):
    """A file that cannot be written; the message names it, its size and the room there is."""


class OutOfMemoryError(TrainerError):
    """A stage that needs more memory than there is; the message names the settings to lower."""


class SourceError(TrainerError):
    """A model from elsewhere that cannot be had or used; the message names it and says what to do."""


class TaskError(TrainerError):
    """A task of the evaluation that cannot be had or put to a model; the message names it and says what to do."""


class RatingError(TrainerError):
    """Results from which no finite rating follows."""


class GenerationError(TrainerError):
    """vLLM could not be started, or has ended; the message has its last word and says what to do."""


class ParityError(TrainerError):
    """Sampling and training passes give different log-probabilities, so that PPO's ratio would be wrong."""


class DivergenceError(TrainerError):
    """A loss that is no longer a finite number."""
