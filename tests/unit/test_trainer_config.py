"""Settings: known ones can be changed, unknown and impossible ones are named."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.__main__ import main
from trainer.config import Config, Method
from trainer.errors import ConfigError
from trainer.flags import config_of
from trainer.overrides import described, docstrings, override, read_config


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
        ({"ppo": 3}, "ppo must be a mapping of settings, not 3"),
        ({"ppo": {"steps": 1.5}}, "ppo.steps must be of type int"),
        ({"ppo": {"steps": True}}, "ppo.steps must be of type int"),
        ({"ppo": {"steps": 0}}, "ppo.steps must be between 1 and inf"),
        ({"dpo": {"lora_rank": -1}}, "dpo.lora_rank must be between 0 and inf"),
        ({"reward": {"precision": "half"}}, "reward.precision must be one of float32, bfloat16"),
        ({"ppo": {"clip": -0.1}}, "ppo.clip must be between 0.0"),
        ({"ppo": {"kl_control": "none"}}, "ppo.kl_control must be one of fixed, adaptive"),
        ({"reward": {"held_out": 1.0}}, "reward.held_out must be between 0.01 and 0.9"),
        ([], "the configuration must be a mapping of settings"),
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


SECTIONS = [Config, *(type(v) for e in fields(Config) if is_dataclass(v := getattr(Config(), e.name)))]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_says_what_it_is(section: type) -> None:
    said = docstrings(section)
    assert {entry.name for entry in fields(section)} == set(said)
    assert all(text.strip().endswith(".") for text in said.values())


@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_yaml_says_the_same_as_json(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"config.{ending}"
    path.write_text("# tried on Monday\nppo:\n  steps: 3\n  learning_rate: 1e-3\nthreads: 2\n")
    (tmp_path / "config.json").write_text('{"ppo": {"steps": 3, "learning_rate": 1e-3}, "threads": 2}')
    assert read_config(path) == read_config(tmp_path / "config.json")
    assert read_config(path).ppo.learning_rate == 1e-3
    path.write_text("# nothing yet\n")
    assert read_config(path) == Config()


def test_what_is_set_by_flags_comes_after_the_file_and_the_last_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("ppo: {steps: 3, clip: 0.3}\n")
    found = read_config(path, ["ppo.steps=4", "reward.members=3", "ppo.steps=5", "method=dpo", "ppo.clip=.1"])
    assert found == replace(
        Config(), ppo=replace(Config().ppo, steps=5, clip=0.1), method="dpo",
        reward=replace(Config().reward, members=3),
    )  # fmt: skip
    assert read_config(None, ["ppo={steps: 7}"]).ppo.steps == 7
    assert read_config(None, ["reward.split_salt=a=b"]).reward.split_salt == "a=b"
    assert read_config(None, ["ppo.learning_rate=5E-4"]).ppo.learning_rate == 5e-4
    assert read_config(None, ["reward.split_salt=1e5x"]).reward.split_salt == "1e5x"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ppo.steps", "--set ppo.steps: say which value, such as ppo.steps=10"),
        ("ppo.steps=[", "--set ppo.steps=[: '[' is not YAML"),
        ("reward.split_salt=2020-13-01", "--set reward.split_salt=2020-13-01: '2020-13-01' is not YAML"),
        ("ppo.steps=", "ppo.steps must be of type int, not None"),
        ("ppo.steps=ten", "ppo.steps must be of type int, not 'ten'"),
        ("ppo.steps.more=1", "ppo.steps must be of type int, not {'more': 1}"),
        ("ppo.clip=.nan", "ppo.clip must be between 0.0 and inf, not nan"),
        ("ppo=3", "ppo must be a mapping of settings, not 3"),
        ("reward.member=3", "there is no setting reward.member"),
        ("=3", "there is no setting ; known are model"),
    ],
)
def test_what_cannot_be_set_is_named_with_its_value(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(None, [setting])
    assert said in str(caught.value)


def test_a_damaged_yaml_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("ppo: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        read_config(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        read_config(tmp_path / "bad.yaml")


@example(1, 0.0, "0e1", "ppo")
@given(st.integers(1, 10**9), st.floats(0, 1e300), st.text(), st.sampled_from(get_args(Method)))
def test_what_is_printed_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, steps: int, clip: float, salt: str, method: str
) -> None:
    path = tmp_path_factory.mktemp("config") / "printed.yaml"
    wanted = override(
        Config(), {"ppo": {"steps": steps, "clip": clip}, "reward": {"split_salt": salt}, "method": method}
    )
    path.write_text(described(wanted), encoding="utf-8")
    assert read_config(path) == wanted


def test_the_command_prints_every_setting_under_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--set", "ppo.steps=3", "--set", "threads=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("  steps: 3")
    assert lines[place - 1] == "  # Rollouts, each followed by an update."
    assert "threads: 2" in lines
    assert main(["config", "--set", "ppo.steps=0"]) == 1
    assert "ppo.steps must be between 1 and inf, not 0" in capsys.readouterr().err


RETRAIN = ["retrain", "--name", "p", "--parent", "x", "--snapshot", "s", "--sha256", "0", "--set"]
COMPARE = ["compare", "--parent", "x", "--snapshot", "s", "--sha256", "0", "--out", "rows", "--set"]


@pytest.mark.parametrize(
    ("command", "setting", "read"),
    [
        (["bootstrap", "--name", "s", "--set"], "imported.layout=plain", "model, pretrain, sft"),
        (["import", "--name", "s", "--source", "x", "--set"], "model.width=8", "imported"),
        (RETRAIN, "sft.packing=2", "reward, method, evaluate, checkpoint_s, ppo, hardware"),
        (RETRAIN, "sft={packing: 2}", "reward, method"),
        ([*RETRAIN, "method=dpo"], "ppo.steps=3", "reward, method, evaluate, checkpoint_s, dpo, hardware"),
        (["rounds", "--parent", "x", "--out", "r", "--set"], "pretrain.steps=3", "reward, method"),
        ([*COMPARE, "reward.members=3", "--variants", "raft", "dpo", "--set"], "ppo.steps=3",
         "reward, dpo, raft, evaluate, hardware, threads"),
        (COMPARE, "method=dpo", "reward, dpo, ppo, raft, evaluate, hardware, threads"),
        (["simulate", "--models", "x", "--out", "s", "--set"], "reward.members=3", "hardware, threads"),
    ],
)  # fmt: skip
def test_a_flag_that_would_change_nothing_is_named_with_what_the_command_reads(
    command: list[str], setting: str, read: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([*command, setting, "--registry", "models"]) == 1
    said = f"--set {setting} would change nothing: this command reads the settings of {read}"
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_file_may_hold_what_other_commands_read_and_flags_what_this_one_does(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(described(Config()))
    flags = ["reward.members=3", "method=dpo", "dpo.beta=.5", "hardware.device=cpu", "threads=2"]
    options = argparse.Namespace(config=tmp_path / "all.yaml", set=flags)
    assert config_of(options, "reward", "method") == read_config(None, flags)
