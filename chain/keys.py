"""Private keys: encrypted files, the devnet's published ones, and nothing of either in any message."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_keys.main import KeyAPI

from chain.errors import KeyFileError
from chain.types import Address

log = logging.getLogger(__name__)
DEVNET_CHAIN_ID = 31_337
DEVNET_MNEMONIC = "test test test test test test test test test test test junk"
"""Anvil's and Hardhat's published mnemonic: everybody has these keys."""
PUBLISHED = 20
"""So many accounts of it are known by default to those tools."""
PASSWORD_VARIABLE = "HAPTIC_PASSWORD"  # noqa: S105  (the name of a variable, not a password)
STRONG_SCRYPT = 2**18
LIGHT_SCRYPT = 2**12


class Addressed(Protocol):
    """Whatever has an address: a key, or a signer elsewhere."""

    @property
    def address(self) -> str:
        """In any case."""


def address_of(account: Addressed) -> Address:
    """Return the address of an account as Haptic writes it."""
    return Address(account.address.lower())


def create_keyfile(path: Path, password: str, *, light: bool = False) -> LocalAccount:
    """Make a new key, write it encrypted to `path` (Web3 Secret Storage v3, mode 600) and return its account.

    `light` uses a weak but quick key derivation: devnet and tests only. A KeyFileError where the file exists
    (it is never overwritten), the place cannot be written or the password is empty.
    """
    if not password:
        raise KeyFileError(f"an empty password does not protect {path}: choose one")
    account: LocalAccount = Account.from_key(secrets.token_bytes(32))
    rounds = LIGHT_SCRYPT if light else STRONG_SCRYPT
    text = json.dumps(Account.encrypt(account.key, password, kdf="scrypt", iterations=rounds))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise KeyFileError(f"{path} exists already: a wallet file is never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from None
    return account


def load_keyfile(path: Path, password: str) -> LocalAccount:
    """Open a Web3 Secret Storage file; a KeyFileError says whether the file or the password is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeyFileError(
            f"{path} cannot be read: {error.strerror}; `haptic wallet FILE` makes one"
        ) from None
    except ValueError:
        raise KeyFileError(f"{path} is no wallet file: it holds no JSON") from None
    try:
        account: LocalAccount = Account.from_key(Account.decrypt(content, password))
    except Exception as error:  # noqa: BLE001  (the library raises whatever a strange file leads it to)
        if "MAC mismatch" in str(error):
            raise KeyFileError(f"the password does not open {path}") from None
        raise KeyFileError(f"{path} is no wallet file (Web3 Secret Storage version 3)") from None
    return account


def check_private(path: Path, chain_id: int) -> None:
    """Raise a KeyFileError if others than its owner may read a wallet file; on the devnet only warn."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # whoever opens it says what is wrong
    if not mode & 0o077:
        return
    said = f"{path} can be read by others (mode {mode & 0o777:o}): run `chmod 600 {path}`"
    if chain_id != DEVNET_CHAIN_ID:
        raise KeyFileError(said)
    log.warning("%s", said)


def keyfile_address(path: Path) -> Address:
    """Return the address that a wallet file names; it is not secret, so no password is needed."""
    try:
        named = str(json.loads(path.read_text(encoding="utf-8"))["address"]).lower().removeprefix("0x")
        bytes.fromhex(named)
    except OSError as error:
        raise KeyFileError(
            f"{path} cannot be read: {error.strerror}; `haptic wallet FILE` makes one"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise KeyFileError(f"{path} is no wallet file that names its address") from None
    return Address("0x" + named)


def read_password(file: Path | None, environ: Mapping[str, str]) -> str:
    """Return the password: the first line of `file` if one is given, else HAPTIC_PASSWORD of `environ`."""
    if file is None:
        password = environ.get(PASSWORD_VARIABLE, "")
    else:
        try:
            password = (file.read_text(encoding="utf-8").splitlines() or [""])[0]
        except (OSError, ValueError):
            raise KeyFileError(f"the password file {file} cannot be read") from None
    if not password:
        raise KeyFileError(f"no password: name a password file or set {PASSWORD_VARIABLE}")
    return password


def devnet_accounts(chain_id: int, count: int = 10) -> tuple[LocalAccount, ...]:
    """Return the first accounts of Anvil's published mnemonic; a KeyFileError on any chain but the devnet."""
    if chain_id != DEVNET_CHAIN_ID:
        raise KeyFileError(
            f"the devnet's keys are public: they are not for chain {chain_id}; make a wallet file"
        )
    return _published(count)


def refuse_published_key(address: Address, chain_id: int) -> None:
    """Raise a KeyFileError if everybody has the key of `address` and this is not the devnet."""
    if chain_id == DEVNET_CHAIN_ID:
        return
    if address.lower() in {address_of(account) for account in _published(PUBLISHED)}:
        raise KeyFileError(
            f"{address} is one of Anvil's published accounts: everybody has its key, so it must not be used "
            f"on chain {chain_id}; make a wallet file"
        )


def assert_fast_crypto() -> None:
    """Raise a KeyFileError unless signatures are checked by libsecp256k1; pure Python is 300 times slower."""
    backend = type(KeyAPI().backend).__name__
    if backend != "CoinCurveECCBackend":
        raise KeyFileError(f"signatures would be checked by {backend}: install coincurve")


@lru_cache
def _published(count: int) -> tuple[LocalAccount, ...]:
    Account.enable_unaudited_hdwallet_features()
    return tuple(
        Account.from_mnemonic(DEVNET_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
        for index in range(count)
    )
