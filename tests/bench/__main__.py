"""Speed and memory as ratios to named peers in the same run: `make bench`.

score      the vectorised score against the plain-Python specification, same rows, same answer
recover    signature recovery against eth-keys' pure-Python backend, same signatures
tree       the payout tree against its floor, the bare keccak calls that any tree of that size has to make
"""

from __future__ import annotations

import random
import resource
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from eth_account import Account
from eth_keys import KeyAPI
from eth_keys.backends import NativeECCBackend

from chain import score, spec
from chain.hashing import keccak256
from chain.messages import Domain, Receipt, recover, sign
from chain.tree import SumTree
from chain.types import Address, Hash32, Leaf, Pair, Params, Row, WalletState, Wei

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return CPU seconds and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def line(name: str, ours: float, peer: str, theirs: float) -> None:
    ratio = f"{ours / theirs:.2f}x" if ours > theirs else f"{theirs / ours:.0f} times faster"
    print(f"{name:<42} {ours:8.2f} s   {peer:<34} {theirs:8.2f} s   {ratio}")


def world(rows: int, wallets: int) -> tuple[list[Row], list[Pair]]:
    draw = random.Random(1)
    pairs = rows // 5
    golds = [0] * 19 + [1]
    known = [Pair(draw.choice(golds), draw.randrange(5), draw.choice([-1, 0, 1])) for _ in range(pairs)]
    made = []
    for j in range(rows):
        pair = j % pairs
        made.append(Row(j, draw.randrange(wallets), pair, 1 if draw.random() < 0.7 else -1, 6))
    return made, known


def bench_score(rows: int = 100_000, wallets: int = 1_000) -> None:
    made, pairs = world(rows, wallets)
    states, params = [WalletState()] * wallets, Params()
    columns = score.Rows.of(made), score.Pairs.of(pairs)
    ours, fast = timed(lambda: score.score(*columns, states, params))
    theirs, plain = timed(lambda: spec.score(made, pairs, states, params))
    if fast != plain:
        raise SystemExit("the two implementations differ")
    line(f"score, {rows:,} rows x {wallets:,} wallets", ours, "plain-Python specification", theirs)


def bench_recover(count: int = 40) -> None:
    domain, account = Domain(1, Address("0x" + "11" * 20)), Account.from_key(secrets.token_bytes(32))
    receipts = [Receipt(Hash32("0x" + "22" * 32), 1, i, 1) for i in range(count)]
    signed = [(r.digest(domain), sign(r, domain, account)) for r in receipts]
    ours, _ = timed(lambda: [recover(d, s) for d, s in signed])
    slow = KeyAPI(NativeECCBackend)

    def pure() -> None:
        for digest, text in signed:
            raw = bytes.fromhex(text[2:])
            signature = slow.Signature(raw[:64] + bytes([raw[64] - 27]))
            slow.ecdsa_recover(bytes.fromhex(digest[2:]), signature)

    theirs, _ = timed(pure)
    line(f"recover, {count} signatures", ours, "eth-keys, pure Python", theirs)


def bench_tree(accounts: int = 100_000) -> None:
    leaves = [Leaf(Address("0x" + i.to_bytes(20, "big").hex()), Wei(i)) for i in range(1, accounts + 1)]
    ours, tree = timed(lambda: SumTree.build(leaves))
    proofs, _ = timed(lambda: [tree.proof(x.account) for x in leaves])

    def floor() -> None:
        for _ in range(accounts):
            keccak256(b"\0" * 32)
        for _ in range(accounts):
            keccak256(b"\0" * 88)

    theirs, _ = timed(floor)
    line(f"tree, {accounts:,} accounts", ours, "floor: its keccak calls alone", theirs)
    line(f"the same and {accounts:,} proofs", ours + proofs, "floor: its keccak calls alone", theirs)


def main() -> None:
    """Run all and print a line each."""
    for bench in (bench_score, bench_recover, bench_tree):
        bench()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory of this run {peak} MB (CPU seconds of one thread; quote the ratios)")


if __name__ == "__main__":
    main()
