"""Overrides of settings, each checked: a YAML or JSON file, `--set` on the command line, a variant's name."""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import yaml

from trainer.config import (
    Attention,
    Config,
    Device,
    Generation,
    KlAnchor,
    KlControl,
    Layout,
    Method,
    Parallel,
    Precision,
    RewardScale,
)
from trainer.errors import ConfigError


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which 1e-3 is a number, as in YAML 1.2 and everywhere else; to PyYAML it is a text."""


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """The same YAML as it is written: a text such as "0e1" stands in quotes."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z"),
        list("-+0123456789"),
    )


def read_config(path: Path | None, settings: Sequence[str] = ()) -> Config:
    """Return the defaults with the overrides of a file, and then those of the command line.

    Args:
        path: YAML (.yaml, .yml) or JSON such as {"ppo": {"steps": 10}}.
        settings: each such as `ppo.steps=10`, the value in YAML; a later one wins.

    Raises:
        ConfigError: the file cannot be read, or something names a setting or a value that cannot be.
    """
    config = Config()
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
            found = _yaml(text) if path.suffix in {".yaml", ".yml"} else json.loads(text)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the configuration {path}: {error}") from error
        config = override(config, {} if found is None else found)  # None: a file of comments only
    for setting in settings:
        config = override(config, _parsed(setting))
    return config


def _parsed(setting: str) -> object:
    """Return the overrides that `section.name=value` stands for."""
    name, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: say which value, such as ppo.steps=10")
    try:
        value = _yaml(text)
    except (ValueError, yaml.YAMLError) as error:  # ValueError: of what looks like a date and is none
        raise ConfigError(f"--set {setting}: {text!r} is not YAML") from error
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _yaml(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def described(config: Config) -> str:
    """Return a configuration as YAML that `read_config` reads, what each setting is for in comments above it."""
    return "".join(f"{line}\n" for line in _lines(config))


def _lines(section: object) -> Iterator[str]:
    says = docstrings(type(section))
    for entry in fields(section):  # type: ignore[arg-type]
        value = getattr(section, entry.name)
        yield from (f"# {line.strip()}" for line in says[entry.name].splitlines())
        if is_dataclass(value):
            yield f"{entry.name}:"
            yield from (f"  {line}" for line in _lines(value))
        else:
            yield yaml.dump({entry.name: value}, Dumper=_Dumper).rstrip()


def docstrings(section: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, read from its source; Python itself forgets them."""
    found = {}
    for part in reversed(section.__mro__[:-1]):  # what it inherits first
        (body,) = (
            node.body for node in ast.parse(inspect.getsource(part)).body if isinstance(node, ast.ClassDef)
        )
        for entry, below in pairwise(body):
            if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[entry.target.id] = text
    return found


_Section = TypeVar("_Section")


def override(base: _Section, overrides: object, where: str = "") -> _Section:
    """Return a dataclass with some fields replaced, section by section; `where` names the section in errors."""
    if not isinstance(overrides, Mapping):
        raise ConfigError(f"{where or 'the configuration'} must be a mapping of settings, not {overrides!r}")
    known = {entry.name: getattr(base, entry.name) for entry in fields(base)}  # type: ignore[arg-type]
    changed = {}
    for name, value in overrides.items():
        path = f"{where}.{name}" if where else name
        if name not in known:
            raise ConfigError(f"there is no setting {path}; known are {', '.join(known)}")
        changed[name] = (
            override(known[name], value, path)
            if is_dataclass(known[name])
            else _value(known[name], value, path)
        )
    return replace(base, **changed)  # type: ignore[type-var]


def _value(default: object, value: object, path: str) -> object:
    """Check a value against the type of its default and the range of its setting."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{path} must be of type {type(default).__name__}, not {value!r}")
    low, high = _RANGES.get(path, (1, math.inf) if isinstance(value, int) else (0.0, math.inf))
    if isinstance(value, int | float) and not isinstance(value, bool) and not low <= value <= high:
        raise ConfigError(f"{path} must be between {low} and {high}, not {value}")
    if isinstance(value, str) and path in _CHOICES and value not in _CHOICES[path]:
        raise ConfigError(f"{path} must be one of {', '.join(_CHOICES[path])}, not {value!r}")
    return value


_RANGES: dict[str, tuple[float, float]] = {
    "model.vocabulary": (300, math.inf),
    "sft.packing": (0, math.inf),
    "reward.held_out": (0.01, 0.9),
    "checkpoint_s": (0.0, math.inf),
    "hardware.cache_gib": (0.01, math.inf),
    **{f"{method}.unfinished_reward": (-math.inf, math.inf) for method in ("ppo", "grpo", "rloo")},
    **{f"{method}.temperature": (0.01, 10.0) for method in ("ppo", "raft", "grpo", "rloo")},
    "grpo.group": (2, math.inf),
    "rloo.group": (2, math.inf),
    **{
        f"{stage}.{name}": (0, math.inf)
        for stage in ("sft", "reward", "ppo", "dpo", "raft", "grpo", "rloo")
        for name in ("frozen_layers", "lora_rank")
    },
    "evaluate.temperature": (0.01, 10.0),
    "evaluate.curve_samples": (0, math.inf),
}
"""Ranges of settings that are not simply positive."""
_CHOICES = {
    "method": get_args(Method),
    "imported.layout": get_args(Layout),
    "reward.precision": get_args(Precision),
    "ppo.kl_control": get_args(KlControl),
    "ppo.kl_anchor": get_args(KlAnchor),
    "grpo.reward_scale": get_args(RewardScale),
    "hardware.device": get_args(Device),
    "hardware.precision": get_args(Precision),
    "hardware.attention": get_args(Attention),
    "hardware.generation": get_args(Generation),
    "hardware.parallel": get_args(Parallel),
}
"""Settings that are one of a few words."""


VARIANTS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "ppo": {},
        "ppo-adaptive": {"ppo": {"kl_control": "adaptive"}},
        "ppo-ptx": {"ppo": {"ptx_coefficient": 0.1}},
        "ppo-pessimistic": {"reward": {"members": 3, "pessimism": 1.0}},
        "ppo-no-kl-guarded": {"ppo": {"kl_coefficient": 0.0, "kl_budget": 10.0}},
        "ppo-no-kl": {
            "ppo": {"kl_coefficient": 0.0, "kl_budget": 1e9, "steps": 90, "epochs": 4, "learning_rate": 3e-3}
        },
        "dpo": {"method": "dpo"},
        "raft": {"method": "raft"},
        "grpo": {"method": "grpo"},
        "rloo": {"method": "rloo"},
    }
)
"""What a comparison of methods can name: overrides by the variant's name, of PPO unless they say another method.

`best-of-N` is one too, for any N.
"""


def best_of(name: str) -> int:
    """Return N of the variant `best-of-N`; 1 for every other."""
    found = re.fullmatch(r"best-of-([1-9][0-9]{0,3})", name)
    return int(found[1]) if found else 1


def variant(name: str, base: Config) -> Config:
    """Return the configuration of a variant, whatever the base's method; ConfigError where there is none of that name."""
    if best_of(name) > 1:
        return base
    if name not in VARIANTS:
        raise ConfigError(f"there is no variant {name!r}; known are {', '.join(VARIANTS)} and best-of-N")
    return override(replace(base, method="ppo"), VARIANTS[name])
