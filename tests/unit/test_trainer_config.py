"""Settings: known ones can be changed, unknown and impossible ones are named."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from trainer import config
from trainer.config import Config, override, read_config
from trainer.errors import ConfigError


def test_without_a_file_the_defaults_hold() -> None:
    assert read_config(None) == Config()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({"ppo": {"steps": 3, "kl_coefficient": 1, "kl_control": "adaptive"}, "threads": 2})
    )
    expected = replace(Config().ppo, steps=3, kl_coefficient=1.0, kl_control="adaptive")
    assert read_config(path) == replace(Config(), ppo=expected, threads=2)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"ppo": {"step": 3}}, "no setting ppo.step"),
        ({"pppo": {}}, "no setting pppo"),
        ({"ppo": 3}, "ppo must be a JSON object"),
        ({"ppo": {"steps": 1.5}}, "ppo.steps must be of type int"),
        ({"ppo": {"steps": True}}, "ppo.steps must be of type int"),
        ({"ppo": {"steps": 0}}, "ppo.steps must be between 1 and inf"),
        ({"dpo": {"lora_rank": -1}}, "dpo.lora_rank must be between 0 and inf"),
        ({"reward": {"precision": "half"}}, "reward.precision must be one of float32, bfloat16"),
        ({"ppo": {"clip": -0.1}}, "ppo.clip must be between 0.0"),
        ({"ppo": {"kl_control": "none"}}, "ppo.kl_control must be one of fixed, adaptive"),
        ({"reward": {"held_out": 1.0}}, "reward.held_out must be between 0.01 and 0.9"),
        ([], "must be a JSON object"),
    ],
)
def test_what_cannot_be_is_named(overrides: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        override(Config(), overrides)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json"):
        read_config(tmp_path / "bad.json")


def test_every_setting_says_what_it_is() -> None:
    source = Path(config.__file__).read_text(encoding="utf-8")
    for section in [Config, *(type(getattr(Config(), entry.name)) for entry in fields(Config))]:
        if is_dataclass(section):
            body = re.split(rf"class {section.__name__}[(:]", source)[1].split("\n\n\n")[0]
            assert body.count('    """') == len(vars(section)["__annotations__"]) + 1, section.__name__
