"""Metrics that one runner writes, epoch by epoch, as it does while trials train."""

import statistics
import time
from datetime import timedelta
from typing import Final

from benchmarks.queue.stored import Database
from search_core.genotype import CellGenotype, Edge
from store import epoch_reports, leases, recording
from store.epoch_reports import EpochResult
from store.room import Capacity, Node
from store.sessions import transaction

_PLENTY: Final = Capacity((Node(cpus=1000),))
_METRICS: Final = 40
"""What a hypercuboid reports in an epoch: losses, accuracies, pace, shares by axis."""

_EDGES: Final = (Edge("sep_conv_3x3", 0), Edge("skip_connect", 1))


def measure(database: Database, *, epochs: int) -> dict[str, float]:
    """Writes epochs of one trial, each in a transaction of its own.

    Returns:
        Points per second, and milliseconds of an epoch (medians).
    """
    genotype = CellGenotype(normal=_EDGES, normal_concat=(2,), reduce=_EDGES, reduce_concat=(2,))
    with transaction(database.engine) as session:
        lease = leases.claim(session, _PLENTY, holder="x", duration=timedelta(hours=1))
        assert lease is not None
        trial = recording.open_trials(session, lease)[0]
        trial.epochs = 10 * epochs
    took = []
    for epoch in range(1, epochs + 1):
        metrics = {f"metric_{index}": index / epoch for index in range(_METRICS)}
        began = time.perf_counter()
        with transaction(database.engine) as session:
            epoch_reports.epoch_ended(
                session, lease, trial.id, EpochResult(epoch, metrics, genotype)
            )
        took.append(time.perf_counter() - began)
    epoch_seconds = statistics.median(took)
    return {"points_per_second": _METRICS / epoch_seconds, "epoch_ms": 1000 * epoch_seconds}
