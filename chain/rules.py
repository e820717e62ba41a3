"""The rules of an epoch: every parameter that decides what feedback is asked for and what it earns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from chain.canonical import canonical, hash_of
from chain.errors import BundleError, VersionError
from chain.types import ONE, Hash32, Params

VERSION = 3
"""Of the rules and of the bundles made by them; 1 handed tasks to wallets without stake too, 2 named
them without a salt."""
METHODS = ("pairwise", "best_worst", "ranking", "likert")
"""How a wallet may be asked (SPEC 2)."""
FLAGS = ("", "all_bad", "unsafe", "identity", "broken")
"""What a wallet may say of a task instead of an order; a flagged ranking gives no comparison."""
SKIP_REASONS = ("unclear", "offensive", "not_my_language", "too_long", "other")
"""Why a wallet may give a task back unjudged."""
SIZES = (2, 3, 4, 6)
"""Numbers of responses a task may show; 12 is divisible by each, so weights stay integers."""


@dataclass(frozen=True, slots=True)
class Rules:
    """All that `rulesHash` covers. A change of any field is a new hash, visible before the epoch opens."""

    params: Params = field(default_factory=Params)
    methods: tuple[str, ...] = METHODS
    """Methods that are drawn per wallet and epoch."""
    overlap: int = 5
    """Judgements wanted of a task about which they mostly agree."""
    overlap_min: int = 3
    """Judgements wanted of each task, and of one about which they agree in all."""
    overlap_max: int = 7
    """Judgements wanted of one about which they do not agree."""
    cooldown_epochs: int = 1
    """Least epochs that unstaked tokens wait, so that stake cannot leave before it is judged."""
    gold_ppm: int = 50_000
    """Share of gold tasks in the first `gold_epochs` epochs."""
    gold_epochs: int = 3
    gold_floor_ppm: int = 20_000
    """Least share of gold tasks in the epochs after."""
    stake_least: int = 10**18
    """Stake in wei with which a wallet is handed tasks: without it, wallets that cost nothing would have a say."""
    lease_s: int = 1200
    """Seconds of block time that a task is kept for the wallet that it was handed to."""
    skips_free: int = 3
    """Tasks that a wallet may give back unjudged in an epoch."""
    judged_per_skip: int = 5
    """Judged tasks that earn one more."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that is hashed; wei as decimal strings because they exceed 2^53."""
        params: dict[str, Any] = asdict(self.params)
        params["lambda0_num"] = str(self.params.lambda0_num)
        params["lambda0_den"] = str(self.params.lambda0_den)
        rest = {k: v for k, v in asdict(self).items() if k != "params"}
        rest |= {"methods": list(self.methods), "stake_least": str(self.stake_least)}
        return {"version": VERSION, "params": params, **rest}

    def hash(self) -> Hash32:
        """Return `rulesHash`: keccak256 of the canonical JSON of all parameters and the version."""
        return hash_of(canonical(self.to_json()))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Rules:
        """Return the rules in a bundle's header, or say which field is wrong."""
        try:
            if (version := value["version"]) != VERSION:
                raise VersionError(
                    f"the rules are of version {version}, and this program knows version {VERSION}: use the release that "
                    "the epoch was opened with"
                )
            params = Params(**{k: int(v) for k, v in value["params"].items()})
            rest = {
                k: v for k, v in value.items() if k not in {"version", "params", "methods", "stake_least"}
            }
            stake = int(value["stake_least"])
            rules = cls(params=params, methods=tuple(value["methods"]), stake_least=stake, **rest)
            same = canonical(rules.to_json()) == canonical(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"rules of the bundle cannot be read: {error}") from error
        if not same:
            raise BundleError(f"rules of the bundle are not those of version {VERSION}: {value}")
        if wrong := _wrong(rules):
            raise BundleError(f"rules of the bundle: {wrong}")
        return rules


_POSITIVE: Final = frozenset(
    {"n1", "z_den", "lambda0_den", "overlap", "overlap_min", "stake_least", "judged_per_skip"}
)


def _wrong(rules: Rules) -> str:
    """Return what no epoch can run by, in words; nothing when all is well."""
    p, methods = rules.params, rules.methods
    if not methods or len(set(methods)) < len(methods) or not set(methods) <= set(METHODS):
        return f"methods {list(methods)} must be some of {', '.join(METHODS)}, each once"
    numbers = asdict(p) | {k: v for k, v in asdict(rules).items() if k not in {"params", "methods"}}
    for name, value in numbers.items():
        least = 1 if name in _POSITIVE else 0
        most = ONE if name.endswith("_ppm") or name == "n1" else value
        if type(value) is not int or not least <= value <= most:
            return f"{name} is {value!r}, expected a whole number from {least}"
    if not rules.overlap_min <= rules.overlap <= rules.overlap_max:
        return f"overlap is {rules.overlap}, expected {rules.overlap_min} to {rules.overlap_max}"
    if not p.amin_em <= p.amin <= p.amax <= ONE:
        return f"reliabilities {p.amin_em}, {p.amin}, {p.amax} must not fall, nor be above {ONE}"
    return ""
