"""The attack bench: crowds that cheat, held against the production score: `make bench-score`.

    python -m tests.bench.score [--small] [--seeds N] [--real]

Prints tables of simulated crowds (mean ± standard deviation over the seeds), of real people's judgements where they
are at hand, and the bars; ends with 1 where a bar does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.bench.score import real
from tests.bench.score.attacks import Bench, Size
from tests.bench.score.tables import Tables, bars, show_bars

SMALL = Size(wallets=250, tasks=1000, epochs=4, slow=False, grid=False)


def main(arguments: Sequence[str]) -> int:
    """Run everything; return 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--small", action="store_true", help="250 wallets, one seed, few rings: under a minute"
    )
    parser.add_argument("--seeds", type=int, default=0, help="how many crowds (4; with --small 1)")
    parser.add_argument("--real", action="store_true", help="only the judgements of real people")
    given = parser.parse_args(arguments)
    size = SMALL if given.small else Size()
    seeds = given.seeds or (1 if given.small else 4)
    if given.real:
        real.show_all(small=given.small)
        return 0
    print(f"{size.wallets:,} wallets, {size.tasks:,} tasks an epoch, {size.epochs} epochs, {seeds} seeds")
    tables = Tables()
    for seed in range(1, seeds + 1):
        began = time.process_time()
        tables.add(Bench(seed, size, slow=size.slow and seed == 1).all())
        print(f"seed {seed}: {time.process_time() - began:.0f} CPU s", flush=True)
    tables.show()
    real.show_all(small=given.small)
    found = bars(tables)
    show_bars(found)
    print(f"\n{time.process_time():.0f} CPU seconds of one thread")
    return 0 if all(b.held for b in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
