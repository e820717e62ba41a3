"""Settings that cannot work stop the program before it starts, and the message names the variable."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest

from chain.deployment import Deployment, write_deployment
from chain.errors import KeyFileError
from chain.keys import address_of, create_keyfile, devnet_accounts
from chain.rules import Rules
from chain.types import Address
from service import context
from service.cluster import Cluster, from_settings
from service.errors import ConfigError
from service.settings import Settings, load

LONG = "x" * 32


def _deployed(folder: Path, chain_id: int) -> Path:
    a = [Address("0x" + f"{n:040x}") for n in range(1, 6)]
    path = folder / "deployment.json"
    write_deployment(
        path, Deployment(chain_id, *a, from_block=1, genesis=0, epoch_length=600, challenge_window=60)
    )
    return path


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HAPTIC_{name.upper()}", raising=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("TICK_S", "0"),
        ("TASKS_PER_EPOCH", "-1"),
        ("ARENA", "perhaps"),
        ("GATE_COMPARISONS", "5"),
        ("RAY_ADDRESS", "ray://head:10001"),
        ("RAY_ADDRESS", "http://token@head:8265"),
    ],
)
def test_a_value_that_cannot_be_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"HAPTIC_{name}", value)
    with pytest.raises(ConfigError, match=f"HAPTIC_{name}: "):
        load()


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPTIC_PORT", "x")
    monkeypatch.setenv("HAPTIC_RETRAIN_AFTER", "y")
    with pytest.raises(ConfigError, match=r"HAPTIC_PORT.*HAPTIC_RETRAIN_AFTER"):
        load()


def test_a_flag_goes_before_the_environment_and_a_flag_not_given_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HAPTIC_PORT", "1234")
    monkeypatch.setenv("HAPTIC_HOST", "0.0.0.0")  # noqa: S104
    found = load(port=99, host=None)
    assert (found.port, found.host) == (99, "0.0.0.0")  # noqa: S104


def test_passwords_and_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPTIC_PASSWORD", "hunter2")
    monkeypatch.setenv("HAPTIC_SECRET", "hunter3")
    monkeypatch.setenv("HAPTIC_RAY_TOKEN", "hunter4")
    assert "hunter" not in repr(load())


@pytest.mark.parametrize(
    ("name", "url", "shown"),
    [
        (
            "rpc_url",
            "https://user:hunter2@node.example:8545/v3/hunter3?key=hunter4",
            "https://node.example:8545",
        ),
        ("poster_signer", "https://user:hunter2@signer.example:9000", "https://signer.example:9000"),
        ("database_url", "postgresql+psycopg://haptic:hunter2@db.example/haptic", "postgresql+psycopg://…"),
        ("rpc_url", "https://a.example/hunter2, https://b.example/hunter3", "https://b.example"),
    ],
)
def test_urls_show_neither_passwords_nor_keys(name: str, url: str, shown: str) -> None:
    found = load(**{name: url})
    assert getattr(found, name) == url
    for text in (repr(found), str(found)):
        assert "hunter" not in text
        assert shown in text


def test_what_is_wrong_with_a_setting_never_shows_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PASSWORD", "SECRET", "POSTER_SIGNER"):
        monkeypatch.setenv(f"HAPTIC_{name}", "hunter2")
    monkeypatch.setenv("HAPTIC_PORT", "hunter3")
    with pytest.raises(ConfigError) as caught:
        load()
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


def test_the_services_password_comes_from_its_file_before_the_environment(tmp_path: Path) -> None:
    key, file = tmp_path / "key.json", tmp_path / "password"
    made = create_keyfile(key, "from the file", light=True)
    file.write_text("from the file\n")
    found = load(receipt_keyfile=key, password="guess", password_file=file)
    assert context._key(found, "receipt", 1).key == made.key
    with pytest.raises(KeyFileError, match="password does not open"):
        context._key(load(receipt_keyfile=key, password="guess"), "receipt", 1)
    with pytest.raises(KeyFileError, match="no password: name a password file or set HAPTIC_PASSWORD"):
        context._key(load(receipt_keyfile=key), "receipt", 1)


def test_a_keyfile_of_the_service_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    create_keyfile(key, "pw", light=True)
    key.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        context._key(load(receipt_keyfile=key, password="pw"), "receipt", 1)


def test_the_poster_is_bounded_by_the_limit_on_fees(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    made = create_keyfile(key, "pw", light=True)
    found = context._poster(load(poster_keyfile=key, password="pw", max_fee_gwei=12), 1)
    assert found is not None
    assert (found.address, found.max_fee) == (address_of(made), 12 * 10**9)
    assert made.key.hex() not in repr(found)


@pytest.mark.parametrize("chain_id", [1, 10, 31338])
def test_the_devnets_secret_is_refused_on_any_other_chain(tmp_path: Path, chain_id: int) -> None:
    for secret in ("", "devnet", "x" * 31):
        found = load(deployment=_deployed(tmp_path, chain_id), secret=secret)
        with pytest.raises(ConfigError, match=f"HAPTIC_SECRET .*chain {chain_id}"):
            found.load_deployment()
    assert load(deployment=_deployed(tmp_path, chain_id), secret=LONG).load_deployment().chain_id == chain_id


def test_the_devnets_gold_is_refused_on_any_other_chain(tmp_path: Path) -> None:
    found = load(deployment=_deployed(tmp_path, 1), secret=LONG, devnet_gold=True)
    with pytest.raises(ConfigError, match=r"HAPTIC_DEVNET_GOLD .*HAPTIC_GOLD_FILE"):
        found.load_deployment()


def test_a_clock_without_prompts_or_gold_does_not_start(tmp_path: Path) -> None:
    prompts, gold = tmp_path / "prompts.jsonl", tmp_path / "gold.jsonl"
    with pytest.raises(ConfigError, match=r"^HAPTIC_PROMPTS_FILE is missing.*HAPTIC_ARENA=false"):
        load().check_arena()
    with pytest.raises(ConfigError, match=r"^HAPTIC_PROMPTS_FILE names .*prompts\.jsonl, which is no file"):
        load(prompts_file=prompts, gold_file=gold).check_arena()
    prompts.touch()
    with pytest.raises(ConfigError, match=r"^HAPTIC_GOLD_FILE is missing"):
        load(prompts_file=prompts).check_arena()
    with pytest.raises(ConfigError, match=r"^HAPTIC_GOLD_FILE names .*gold\.jsonl"):
        load(devnet_gold=True, gold_file=gold).check_arena()
    gold.touch()
    load(prompts_file=prompts, gold_file=gold).check_arena()
    load(devnet_gold=True).check_arena()
    load(arena=False).check_arena()


def test_on_the_devnet_nothing_has_to_be_set(tmp_path: Path) -> None:
    found = load(deployment=_deployed(tmp_path, 31337), devnet_gold=True)
    assert found.load_deployment().chain_id == 31337
    assert found.master == b"devnet"


@pytest.mark.parametrize("name", ["poster", "receipt"])
def test_a_published_key_is_refused_on_any_other_chain(tmp_path: Path, name: str) -> None:
    from eth_account import Account

    path = tmp_path / "key.json"
    key = devnet_accounts(31337)[3].key
    path.write_text(json.dumps(Account.encrypt(key, "pw", kdf="scrypt", iterations=2)))
    path.chmod(0o600)
    found = load(**{f"{name}_keyfile": path}, password="pw")
    assert context._key(found, name, 31337).key == key
    with pytest.raises(KeyFileError, match="everybody has its key"):
        context._key(found, name, 1)


def test_the_rules_of_a_file_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(Rules(overlap=3).to_json()))
    assert load(rules_file=path).rules().overlap == 3
    assert load().rules() == Rules()


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"version": 2}'])
def test_rules_that_cannot_be_read_are_named_by_variable_and_file(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "rules.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"HAPTIC_RULES_FILE .*rules\.json"):
        load(rules_file=path).rules()


def test_the_database_lies_in_the_data_folder_unless_it_is_named(tmp_path: Path) -> None:
    assert load(data_dir=tmp_path).database == f"sqlite:///{tmp_path / 'haptic.db'}"
    assert load(database_url="postgresql://db/haptic").database == "postgresql://db/haptic"


@pytest.mark.parametrize("urls", ["http://a", "http://a, http://a", ""])
def test_more_nodes_cannot_agree_than_there_are(urls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPTIC_RPC_URL", urls)
    assert load().rpc_quorum == 1
    monkeypatch.setenv("HAPTIC_RPC_QUORUM", "2")
    with pytest.raises(ConfigError, match=r"^HAPTIC_RPC_QUORUM: 2 nodes cannot agree"):
        load()
    monkeypatch.setenv("HAPTIC_RPC_URL", "http://a http://b")
    assert load().rpc_quorum == 2


def test_a_cluster_is_there_where_its_address_is_set_and_asked_for_what_a_job_needs() -> None:
    assert from_settings(load(ray_token="hunter2", ray_gpus=2)) is None
    found = from_settings(
        load(ray_address="http://head:8265/", ray_token="hunter2", ray_cpus=8, ray_gpus=0.5)
    )
    assert found == Cluster("http://head:8265", "hunter2", cpus=8, gpus=0.5)


def test_settings_that_the_trainer_would_refuse_are_refused_before_a_job_begins(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    with pytest.raises(
        ConfigError, match=r"^HAPTIC_TRAINER_CONFIG: cannot read the configuration .*tiny\.yaml"
    ):
        load(trainer_config=path).check_trainer()
    path.write_text("sft: {stpes: 3}")
    with pytest.raises(
        ConfigError, match=r"^HAPTIC_TRAINER_CONFIG: there is no setting sft\.stpes; known are "
    ):
        load(trainer_config=path).check_trainer()
    path.write_text("sft: {steps: 3}")
    load(trainer_config=path).check_trainer()
    load().check_trainer()
