"""What Prometheus scrapes: the chain, the index, the money and the clock's jobs, as they are when it asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from chain.errors import HapticError
from service.context import Context
from service.status import Status, read_status

GAUGES = {
    "head_block": ("latest block of the node", "head"),
    "head_timestamp_seconds": ("when it was made, by its own time", "now"),
    "finalized_block": ("finalized block of the node", "finalized"),
    "finalized_timestamp_seconds": ("when it was made, by its own time", "finalized_at"),
    "indexed_block": ("last block whose events are in the database, -1 before the first", "indexed"),
    "index_lag_seconds": (
        "how far the index is behind the finalized block, in block time; absent before its first block",
        "lag_s",
    ),
    "epoch": ("the running epoch by block time", "epoch"),
    "epoch_judgements": ("rankings of the running epoch", "judgements"),
    "staked": ("stake of all accounts, smallest units", "staked"),
    "revenue_funded": ("revenue that ever came in, smallest units", "funded"),
    "revenue_committed": ("what the active root allots, smallest units", "committed"),
    "revenue_claimed": ("what was paid, smallest units", "claimed"),
    "bond_wei": ("bond in the distributor", "bond"),
    "bond_required_wei": ("bond that a post needs", "bond_required"),
    "poster_balance_wei": ("what the poster has for gas", "poster_balance"),
}
"""Name without the prefix, what it means, and the field of Status; a gauge is a float and no amount is taken from it."""


@dataclass(frozen=True, slots=True, eq=False)
class Observed(Collector):
    """A service, as Prometheus sees it."""

    ctx: Context

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; those of the chain only while it answers."""
        status = self._status()
        yield GaugeMetricFamily(
            "haptic_chain_up", "1 while node and database answer", float(status is not None)
        )
        if status is not None:
            meaning = "1 while blocks are older than HAPTIC_STALL_S or HAPTIC_FINALITY_S allow"
            yield GaugeMetricFamily("haptic_chain_stalled", meaning, float(bool(status.stalled)))
            for name, (meaning, field) in GAUGES.items():
                value = getattr(status, field)
                if value is not None:
                    yield GaugeMetricFamily(f"haptic_{name}", meaning, float(value))
        pulse, now = self.ctx.pulse, time.time()
        failures = CounterMetricFamily(
            "haptic_job_failures", "failed runs of a job of the clock", labels=["job"]
        )
        age = GaugeMetricFamily("haptic_job_age_seconds", "since a job of the clock last ran", labels=["job"])
        took = GaugeMetricFamily("haptic_job_seconds", "how long its last run took", labels=["job"])
        for job, at in sorted(dict(pulse.ran_at).items()):
            failures.add_metric([job], pulse.failures.get(job, 0))
            age.add_metric([job], now - at)
            took.add_metric([job], pulse.seconds.get(job, 0.0))
        yield from (failures, age, took)

    def _status(self) -> Status | None:
        try:
            with self.ctx.db.read() as db:
                return read_status(self.ctx, db, time.time())
        except (HapticError, SQLAlchemyError):
            return None


def registry(ctx: Context) -> CollectorRegistry:
    """Return what is scraped of a service."""
    found = CollectorRegistry()
    found.register(Observed(ctx))
    return found
