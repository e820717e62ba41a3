"""Keys are kept in encrypted files that only their owner reads, and show up nowhere else."""

from __future__ import annotations

import json
import stat
import traceback
from pathlib import Path

import pytest

from chain.errors import KeyFileError
from chain.keys import (
    address_of,
    assert_fast_crypto,
    check_private,
    create_keyfile,
    devnet_accounts,
    load_keyfile,
    read_password,
    refuse_published_key,
)
from chain.types import Address

PASSWORD = "correct horse battery staple"
ANVIL_FIRST = Address("0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266")


def test_a_keyfile_opens_with_its_password(tmp_path: Path) -> None:
    made = create_keyfile(tmp_path / "deep" / "wallet.json", PASSWORD, light=True)
    assert load_keyfile(tmp_path / "deep" / "wallet.json", PASSWORD).key == made.key


def test_a_keyfile_is_its_owners_alone_and_holds_no_plain_key(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    made = create_keyfile(path, PASSWORD, light=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.key.hex() not in path.read_text()
    assert json.loads(path.read_text())["version"] == 3


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601, 0o660])
def test_a_keyfile_that_others_may_read_is_refused_and_on_the_devnet_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    path = tmp_path / "wallet.json"
    create_keyfile(path, PASSWORD, light=True)
    path.chmod(mode)
    with pytest.raises(
        KeyFileError, match=rf"wallet\.json can be read by others \(mode {mode:o}\): run `chmod 600"
    ):
        check_private(path, 1)
    assert caplog.text == ""
    check_private(path, 31337)
    assert "can be read by others" in caplog.text


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_keyfile_that_only_its_owner_reads_is_taken_everywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    path = tmp_path / "wallet.json"
    create_keyfile(path, PASSWORD, light=True)
    path.chmod(mode)
    for chain_id in (1, 31337):
        check_private(path, chain_id)
    check_private(tmp_path / "none.json", 1)
    assert caplog.text == ""


def test_a_keyfile_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    made = create_keyfile(path, PASSWORD, light=True)
    with pytest.raises(KeyFileError, match="exists already"):
        create_keyfile(path, PASSWORD, light=True)
    assert load_keyfile(path, PASSWORD).key == made.key


def test_an_empty_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="empty password"):
        create_keyfile(tmp_path / "wallet.json", "", light=True)
    assert not (tmp_path / "wallet.json").exists()


def test_a_wrong_password_is_named_and_nothing_secret_is(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    made = create_keyfile(path, PASSWORD, light=True)
    with pytest.raises(KeyFileError, match="password does not open") as caught:
        load_keyfile(path, PASSWORD + "r")
    shown = "".join(traceback.format_exception(caught.value)) + repr(made) + str(made)
    assert PASSWORD not in shown
    assert made.key.hex() not in shown


@pytest.mark.parametrize(
    "content", ["", "no json", "[]", "{}", '{"version": 3}', '{"version": 4, "crypto": {}}']
)
def test_a_file_that_is_no_wallet_is_called_that(tmp_path: Path, content: str) -> None:
    path = tmp_path / "wallet.json"
    path.write_text(content)
    with pytest.raises(KeyFileError, match="is no wallet file"):
        load_keyfile(path, PASSWORD)


def test_a_missing_file_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_keyfile(tmp_path / "none.json", PASSWORD)


def test_the_password_comes_from_the_file_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from the file\nsecond line")
    environ = {"HAPTIC_PASSWORD": "from the environment"}
    assert read_password(file, environ) == "from the file"
    assert read_password(None, environ) == "from the environment"


def test_no_password_at_all_says_where_to_put_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="HAPTIC_PASSWORD"):
        read_password(None, {})
    (tmp_path / "empty").touch()
    with pytest.raises(KeyFileError, match="no password"):
        read_password(tmp_path / "empty", {"HAPTIC_PASSWORD": "x"})
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_password(tmp_path / "none", {})


def test_the_devnets_keys_are_anvils() -> None:
    assert address_of(devnet_accounts(31337)[0]) == ANVIL_FIRST
    assert len({address_of(account) for account in devnet_accounts(31337, 12)}) == 12


@pytest.mark.parametrize("chain_id", [1, 10, 31336, 0])
def test_published_keys_are_refused_everywhere_but_on_the_devnet(chain_id: int) -> None:
    with pytest.raises(KeyFileError, match="public"):
        devnet_accounts(chain_id)
    for account in devnet_accounts(31337, 20):
        with pytest.raises(KeyFileError, match="everybody has its key"):
            refuse_published_key(Address(account.address), chain_id)


def test_other_keys_go_everywhere_and_published_ones_on_the_devnet(tmp_path: Path) -> None:
    refuse_published_key(ANVIL_FIRST, 31337)
    refuse_published_key(address_of(create_keyfile(tmp_path / "wallet.json", PASSWORD, light=True)), 1)


def test_signatures_are_made_by_the_c_library() -> None:
    assert_fast_crypto()


def test_pure_python_signatures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECC_BACKEND_CLASS", "eth_keys.backends.NativeECCBackend")
    with pytest.raises(KeyFileError, match="install coincurve"):
        assert_fast_crypto()
