"""Names and frozen records that every room of `chain` speaks in; nothing here computes or reads anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, NewType

import msgspec

Address = NewType("Address", str)
"""Lowercase 0x-hex of 20 bytes; so the order of strings is the order of numbers."""

Hash32 = NewType("Hash32", str)
"""Lowercase 0x-hex of 32 bytes."""

NOBODY: Final = Address("0x" + 40 * "0")
"""The zero address, where no wallet is meant."""

ZERO_HASH: Final = Hash32("0x" + 64 * "0")
"""32 zero bytes, where there is nothing that could have a hash."""

Epoch = NewType("Epoch", int)
"""Number of a half-open interval of block time, from 0."""

MAX_EPOCH: Final = 2**31 - 1
"""Largest epoch that the tables hold."""

Wei = NewType("Wei", int)
"""Smallest unit of a token; an amount is never a float."""

Ppm = NewType("Ppm", int)
"""Parts per million."""

ONE = 1_000_000
"""1.0 in ppm."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """An exact non-negative rational `num/den`, `den > 0`."""

    num: int
    den: int


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block by number and hash, with its time in Unix seconds."""

    number: int
    hash: Hash32
    parent_hash: Hash32
    timestamp: int


class Attempt(NamedTuple):
    """Signed bytes of a transaction: the first, or the same with higher fees."""

    hash: Hash32
    raw: bytes
    stored_at: int
    """The chain's newest block at that time."""


@dataclass(frozen=True, slots=True)
class Params:
    """The parameters of HapticScore v1 (SPEC 3); all of them are in `rulesHash`."""

    n1: int = 36
    """Prior weight of a reliability, in sixths of a comparison."""
    amin_em: int = 50_000
    """Lowest reliability while it is being estimated, ppm."""
    amin: int = 500_000
    """Lowest reliability when it weights a label, ppm."""
    amax: int = 950_000
    """Highest reliability, ppm."""
    z_num: int = 2
    z_den: int = 1
    """Standard errors of surplus that stay unpaid until proven."""
    c0: int = 12
    """Surplus that every wallet leaves unpaid, in sixths of a comparison."""
    kappa: int = 1
    """Stake can raise a score at most (1 + kappa) times."""
    lambda0_num: int = 10 * 10**18
    lambda0_den: int = 6 * ONE
    """lambda of epoch 0: wei of stake per unit of proven surplus (10 tokens per comparison)."""


@dataclass(frozen=True, slots=True)
class WalletState:
    """What the score remembers of a wallet between epochs; all zero at first."""

    label_n: int = 0
    label_d: int = 0
    pay_g: int = 0
    pay_v: int = 0
    pay_hmax: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison inside one judgement: `x` = +1 when the pair's first response was ranked better."""

    judgement: int
    wallet: int
    pair: int
    x: int
    w: int
    """Weight in sixths of a comparison."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What is known of a pair of responses before anybody's answer is weighed."""

    gold: int
    """+1 or -1 when the better one is known, else 0."""
    bucket: int
    """Style bucket 0..4 by difference of length."""
    longer: int
    """+1 when the first response is the longer, -1 the second, 0 equal (Unicode code points)."""


@dataclass(frozen=True, slots=True)
class WalletResult:
    """A wallet after an epoch: every intermediate integer of SPEC 3."""

    n: int
    d: int
    a: Ppm
    """Reliability that weighted its labels."""
    delta_g: int
    delta_v: int
    h: int
    w: int
    """Surplus proven in this epoch (Contribution x Quality)."""
    comparisons: int
    """Sum of row weights, in sixths of a comparison (Contribution)."""
    state: WalletState
    """The state carried to the next epoch."""


class PairResult(msgspec.Struct, frozen=True, gc=False):
    """A pair after an epoch; there may be millions, and a Struct is made eight times as fast as a dataclass."""

    log_odds: int
    """L_p in ppm of a natural logit."""
    label: int
    """+1 when the first response is the better, -1 the second; 0 only on an exact tie of both rules."""
    confidence: Ppm
    """sigmoid(|L_p|): how sure the label is, 500_000..1_000_000."""


@dataclass(frozen=True, slots=True)
class EpochScore:
    """The result of scoring one epoch: wallets and pairs in the order they were given."""

    wallets: tuple[WalletResult, ...]
    pairs: tuple[PairResult, ...]
    style_bias: tuple[int, ...]
    """m_b per style bucket, ppm."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One account's cumulative payout in the payout tree."""

    account: Address
    cumulative: Wei


@dataclass(frozen=True, slots=True)
class Allocation:
    """What becomes of one pool of revenue; `sum(shares) + carry` is the pool, to the last unit."""

    shares: dict[Address, Wei]
    """One entry per wallet that was weighed, in ascending order; 0 for a weight of 0."""
    carry: Wei
    """What is left for the next epoch: everything when nobody scores, else 0."""
