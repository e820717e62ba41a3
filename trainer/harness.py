"""Tasks of lm-evaluation-harness put to our models: the devnet's own, safety, honesty, a folder's, or published ones.

lm_eval is an extra (`pip install -e '.[eval]'`); only this file and `asked` import it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from trainer.asked import HarnessLM
from trainer.errors import TaskError
from trainer.model import LanguageModel
from trainer.progress import Report
from trainer.rating import Z_95
from trainer.scores import Layout, Score
from trainer.shares import wilson

VERSION = importlib.metadata.version("lm_eval")
SHIPPED = Path(__file__).parent / "tasks"
"""Our own tasks."""


class Grid(ConfigurableTask):  # type: ignore[misc]  # lm_eval has no types
    """A task of several prompts by several answers: `doc_to_choice` names the prompts, `doc_to_target` the answers.

    What counts is how the prompts' log-probabilities differ, so that a liking for one of the answers gains nothing;
    `process_results` gets them prompt by prompt.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={name: value for name, value in config.items() if name != "class"})

    def construct_requests(self, doc: Mapping[str, Any], ctx: Sequence[str], **kwargs: Any) -> list[Instance]:
        """Return a request for each prompt and answer."""
        kwargs.pop("chat_template")
        delimiter = "" if kwargs.pop("apply_chat_template") else self.config.target_delimiter
        pairs = [(prompt, f"{delimiter}{answer}") for prompt in ctx for answer in self.doc_to_target(doc)]
        return [
            Instance(request_type="loglikelihood", doc=doc, arguments=pair, idx=number, **kwargs)
            for number, pair in enumerate(pairs)
        ]


def jsonl(*, config_source: str, file: str, **_: Any) -> dict[str, Dataset]:
    """Return the items of a task, JSON lines in a file beside its YAML, as the split `test`."""
    lines = (Path(config_source).parent / file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def measure(
    language: LanguageModel,
    tasks: Sequence[str],
    *,
    layout: Layout,
    limit: int | None,
    seed: int,
    report: Report,
) -> tuple[list[Score], list[dict[str, Any]]]:
    """Put tasks to a model.

    Args:
        language: the model.
        tasks: folders of YAML, `town`, `safety` or `honesty` of our own, or names that lm_eval knows.
        layout: how a task's text is put to the model.
        limit: the most items of a task; all where None.
        seed: of what a task draws.
        report: where progress goes.

    Returns:
        The scores, and of each item what was asked, what came back, and what it counted.

    Raises:
        TaskError: a task is not known, cannot be had, or asks for what we have not.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    loaded = _load(tasks)
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(seed=seed)
    lm = HarnessLM(language, layout, seed, report)
    found = evaluator.evaluate(
        lm, loaded, limit=limit, bootstrap_iters=1000, apply_chat_template=layout == "chat"
    )
    items = [
        {"task": name}
        | {key: item[key] for key in ("arguments", "resps", "target", "filter", *item["metrics"])}
        for name, samples in found["samples"].items()
        for item in samples
    ]
    return _scores(found), items


def _scores(found: Mapping[str, Any]) -> list[Score]:
    scores = []
    for task, samples in found["samples"].items():
        for key, value in found["results"][task].items():
            metric, comma, of = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            items = [item for item in samples if item["filter"] == of and metric in item]
            stderr = found["results"][task].get(f"{metric}_stderr,{of}")
            stderr = stderr if isinstance(stderr, int | float) else None
            put = json.dumps([[item["arguments"], item["target"]] for item in items])
            scores.append(
                Score(
                    task, metric if of == "none" else f"{metric}, {of}", float(value), stderr,
                    *_interval([item[metric] for item in items], value, stderr),
                    len(items), hashlib.sha256(put.encode()).hexdigest(),
                )
            )  # fmt: skip
    return scores


def _interval(
    counted: Sequence[Any], value: float, stderr: float | None
) -> tuple[float | None, float | None]:
    if all(isinstance(one, bool | int | float) and one in {0, 1} for one in counted):
        return wilson(sum(counted), len(counted))
    return (None, None) if stderr is None else (value - Z_95 * stderr, value + Z_95 * stderr)


def _load(tasks: Sequence[str]) -> dict[str, Any]:
    folders = [Path(name) for name in tasks if Path(name).is_dir()]
    names = [name for name in tasks if not Path(name).is_dir()]
    wanted = [task for folder in folders for task in _within(folder)]
    ours = TaskManager(include_path=[SHIPPED, *folders], include_defaults=False)
    # lm_eval's own index takes seconds to read, and is only read for a name that is not ours.
    known = set(names) <= set(ours.all_tasks)
    manager = ours if known else TaskManager(include_path=[SHIPPED, *folders])
    if unknown := [name for name in names if name not in manager.all_tasks]:
        raise TaskError(
            f"there is no folder and no task {', '.join(map(repr, unknown))}; our own are "
            f"{', '.join(ours.all_tags)}, and `lm-eval ls tasks` lists what lm_eval has"
        )
    try:
        loaded: dict[str, Any] = manager.load([*wanted, *names])
    except Exception as error:  # a task's own code and data raise whatever they do
        raise TaskError(
            f"the tasks {', '.join(tasks)} cannot be loaded ({type(error).__name__}: {error}): where it is the "
            "data of a published task, which the hub has, try again with a network"
        ) from error
    return loaded


def _within(folder: Path) -> list[str]:
    """Return the tasks of a folder; a file whose name begins with an underscore is there to be included."""
    index = TaskManager(include_path=[folder], include_defaults=False).task_index
    read = {entry.yaml_path for entry in index.values()}
    for file in sorted(folder.rglob("*.yaml")):
        if file not in read and not file.name.startswith("_"):
            raise TaskError(
                f"{file} is no task that can be read: it needs a `task` of its own, and valid YAML"
            )
    names = [name for name, entry in index.items() if entry.yaml_path]
    if not names:
        raise TaskError(f"{folder} has no tasks: a task is a file *.yaml")
    return names
