"""One frozen Settings, read from HAPTIC_* variables in `main` and passed down; nothing is read at import."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chain.deployment import Deployment, read_deployment
from chain.errors import HapticError
from chain.exchange import public_url
from chain.providers import split_urls
from chain.rules import Rules
from service.errors import ConfigError
from service.stall import DEVNET, PATIENT, Patience
from trainer.errors import TrainerError
from trainer.overrides import read_config

DEVNET_CHAIN_ID = 31337
PYDANTIC = "Value error, "
"""What pydantic puts before the words of a validator."""
_URL = re.compile(r"[a-z0-9+]+://\S+", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")
DEVNET_SECRET = "devnet"  # noqa: S105  # public on purpose, and refused anywhere but on a devnet


class Settings(BaseSettings):
    """Where everything is. Each field is the environment variable HAPTIC_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix="HAPTIC_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    rpc_url: str = "http://127.0.0.1:8545"
    """JSON-RPC URL of a node of the chain; several, separated by commas or spaces, stand in for each other."""
    rpc_quorum: Annotated[int, Field(ge=1)] = 1
    """How many of these nodes must say what is stored, of block hash and every event, before an epoch is closed."""
    stall_s: Annotated[int, Field(ge=0)] | None = None
    """Seconds that the newest block may be old before the chain is said to stand still; 0: never; default by chain."""
    finality_s: Annotated[int, Field(ge=0)] | None = None
    """The same of the newest block that is final."""
    deployment: Path = Path(".haptic/deployment.json")
    """File with the contracts' addresses, as `haptic deploy` writes it."""
    data_dir: Path = Path(".haptic")
    """Folder for the database, bundles, models, snapshots and logs."""
    database_url: str = ""
    """SQLite or PostgreSQL (14 or newer), such as postgresql://user@host/name; empty means SQLite inside data_dir."""
    log: Literal["text", "json"] = "text"
    """Form of the log: lines for people, or a JSON object a line."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    domain: str = ""
    """Host (and port, where it is not the scheme's own) by which people reach the service; default: host:port."""
    trusted_proxies: str = ""
    """Addresses or networks of the proxies in front, whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    cors_origins: str = ""
    """Web pages that may read answers, by their origins, such as https://app.example; *: all."""
    rate_address: Annotated[int, Field(ge=0)] = 60_000
    """Requests of one address in a minute (an IPv6 network of 64 bits counts as one); 0: no limit, as below."""
    rate_wallet: Annotated[int, Field(ge=0)] = 6_000
    """Requests of one wallet in a minute, by its token or its signature."""
    rate_login: Annotated[int, Field(ge=0)] = 1_200
    """Sessions and logins that one address sends in a minute."""
    rate_exports: Annotated[int, Field(ge=0)] = 600
    """Bundles, exports and proofs that one address asks for in a minute."""
    rate_contracts: Annotated[int, Field(ge=0)] = 300
    """Signatures of one address in a minute that no key gave: for each, the chain is asked."""
    password: SecretStr = SecretStr("")
    """Password of the key files."""
    password_file: Path | None = None
    """File whose first line is that password; it goes before HAPTIC_PASSWORD."""
    poster_keyfile: Path = Path(".haptic/poster.json")
    """Keystore of the account that posts roots and pays the gas."""
    poster_signer: str = ""
    """URL of a signer (web3signer's eth1 JSON-RPC) that has the poster's key instead of a key file."""
    poster_address: str = ""
    """Account that posts, where a signer has its key."""
    max_fee_gwei: Annotated[int, Field(ge=1)] = 500
    """Most that the poster offers per gas, tip included; what would need more stops and says so."""
    receipt_keyfile: Path = Path(".haptic/receipt.json")
    """Keystore of the key that signs receipts; it holds no money."""
    secret: SecretStr = SecretStr("")
    """Master secret of the epochs' seeds and session tokens: at least 32 random characters."""
    rules_file: Path | None = None
    """JSON file of the rules (see chain.rules); default: the v1 rules."""
    prompts_file: Path | None = None
    """JSONL of {"prompt", "author"?}: what the models are asked. On a devnet the default is made up."""
    tasks_file: Path | None = None
    """JSONL of {"prompt", "responses", "origins"?, "author"?}: the operator's own tasks, each asked once, beside the
    arena's."""
    gold_file: Path | None = None
    """JSONL of {"prompt", "responses", "ranks"}: tasks with known answers, each used once."""
    devnet_gold: bool = False
    """Take gold answers from the devnet's lexicon; refused outside a devnet."""
    arena: bool = True
    """Let the models of the registry answer and open epochs with what they say; false: tasks come from elsewhere."""
    tasks_per_epoch: Annotated[int, Field(ge=1)] = 160
    retrain_after: Annotated[int, Field(ge=1)] = 400
    """Labelled comparisons since the last retraining that start the next."""
    gate_comparisons: Annotated[int, Field(ge=6)] = 200
    """Tasks in which a retrained model and the one it came from were told apart that decide between the two."""
    gate_epochs: Annotated[int, Field(ge=1)] = 6
    """Epochs in which people compared the two that it has for that; then it is rolled back."""
    tick_s: Annotated[float, Field(gt=0)] = 2.0
    """Seconds between two looks of the clock."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """How often a training job is tried before an operator has to look."""
    trainer_config: Path | None = None
    """YAML or JSON file with settings for the trainer; `python -m trainer config` prints one."""
    ray_address: str = ""
    """URL of a Ray cluster's dashboard, such as http://127.0.0.1:8265; empty: workers train on their own machine."""
    ray_token: SecretStr = SecretStr("")
    """The token that the cluster's head was started with; empty: Ray looks for it by RAY_AUTH_MODE and its like."""
    ray_cpus: Annotated[float, Field(ge=0)] = 1.0
    """Cores that a job reserves on the cluster."""
    ray_gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs that a job reserves on the cluster."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Leave out of URLs what may be a key or a password: a log may show the settings."""
        for name, value in super().__repr_args__():
            yield name, _URL.sub(lambda found: _shown(found[0]), value) if isinstance(value, str) else value

    @field_validator("rpc_quorum")
    @classmethod
    def _enough_nodes(cls, wanted: int, given: ValidationInfo) -> int:
        urls = len(split_urls(given.data.get("rpc_url", "")))
        if wanted > 1 and wanted > urls:
            raise ValueError(f"{wanted} nodes cannot agree, HAPTIC_RPC_URL has {urls}")
        return wanted

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        for part in text.replace(",", " ").split():
            ip_network(part)
        return text

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        for part in text.replace(",", " ").split():
            if part != "*" and not _ORIGIN.fullmatch(part):
                raise ValueError(f"{part!r} is no origin, such as https://app.example, without a path")
        return text

    @field_validator("ray_address")
    @classmethod
    def _is_dashboard(cls, text: str) -> str:
        if text and not _ORIGIN.fullmatch(text.rstrip("/")):
            raise ValueError(f"{text!r} is no URL of a dashboard, such as http://127.0.0.1:8265")
        return text

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in use."""
        return self.database_url or f"sqlite:///{self.data_dir / 'haptic.db'}"

    @property
    def authority(self) -> str:
        """The domain that people sign in at (EIP-4361)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.domain or f"{host}:{self.port}"

    def folder(self, name: str) -> Path:
        """Return a folder inside data_dir, made if it is not there."""
        path = self.data_dir / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def rules(self) -> Rules:
        """Return the rules in force."""
        if self.rules_file is None:
            return Rules()
        try:
            return Rules.from_json(json.loads(self.rules_file.read_text()))
        except (OSError, ValueError, HapticError) as error:
            raise ConfigError(f"HAPTIC_RULES_FILE {self.rules_file}: {error}") from error

    def load_deployment(self) -> Deployment:
        """Return the contracts' addresses, and refuse devnet conveniences on any other chain."""
        found = read_deployment(self.deployment)
        if found.chain_id != DEVNET_CHAIN_ID:
            if self.devnet_gold:
                raise ConfigError(
                    f"HAPTIC_DEVNET_GOLD is for the devnet; chain {found.chain_id} needs HAPTIC_GOLD_FILE"
                )
            if len(self.secret.get_secret_value()) < 32:
                raise ConfigError(
                    f"HAPTIC_SECRET must have at least 32 random characters on chain {found.chain_id}: "
                    "python -c 'import secrets; print(secrets.token_hex(32))'"
                )
        return found

    def patience(self, chain_id: int) -> Patience:
        """Return how old a chain's blocks may be."""
        usual = DEVNET if chain_id == DEVNET_CHAIN_ID else PATIENT
        return Patience(
            usual.head_s if self.stall_s is None else self.stall_s,
            usual.final_s if self.finality_s is None else self.finality_s,
        )

    def check_arena(self) -> None:
        """Refuse settings by which no epoch could be opened: the models would make answers first, and then fail."""
        if not self.arena:
            return
        for name, path in (("PROMPTS", self.prompts_file), ("GOLD", self.gold_file)):
            if path is None and not self.devnet_gold:
                raise ConfigError(
                    f"HAPTIC_{name}_FILE is missing, and epochs are opened with what is in it (see README); "
                    "HAPTIC_ARENA=false where tasks come from elsewhere"
                )
            if path is not None and not path.is_file():
                raise ConfigError(f"HAPTIC_{name}_FILE names {path}, which is no file")

    def check_trainer(self) -> None:
        """Refuse settings of the trainer that it would refuse itself, in each attempt and with its reason in a log."""
        try:
            read_config(self.trainer_config)
        except TrainerError as error:
            raise ConfigError(f"HAPTIC_TRAINER_CONFIG: {error}") from error

    @property
    def master(self) -> bytes:
        """The master secret's bytes."""
        return (self.secret.get_secret_value() or DEVNET_SECRET).encode()


def load(**overrides: object) -> Settings:
    """Return the settings from the environment, with flags over it; ConfigError names the wrong variable."""
    given = {k: v for k, v in overrides.items() if v is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic parses them
    except ValidationError as error:
        wrong = "; ".join(
            f"HAPTIC_{'_'.join(map(str, e['loc'])).upper()}: {e['msg'].removeprefix(PYDANTIC)}"
            for e in error.errors()
        )
        raise ConfigError(wrong) from None  # pydantic's error holds what was given


def _shown(url: str) -> str:
    """Return a URL without user, path and query; of a database only what kind it is."""
    return public_url(url) if url.startswith("http") else url.partition("://")[0] + "://…"
