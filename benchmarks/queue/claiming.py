"""Claims from two dispatchers at once, by how many searches are queued."""

import statistics
import threading
import time
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import update

from benchmarks.queue.stored import Database
from store import leases
from store.models import Search
from store.room import Capacity, Node
from store.sessions import make_engine, transaction
from store.states import SearchStatus
from workers.dispatcher import CLAIMS_AT_ONCE

_PLENTY: Final = Capacity((Node(cpus=1_000_000),))
_MINUTES: Final = timedelta(minutes=10)
_BATCH: Final = 200


def measure(database: Database, *, rounds: int) -> dict[str, float]:
    """Two threads, each with connections of its own, claim as dispatchers do.

    Between rounds, what was claimed goes back: so many running searches are what two hundred
    nodes hold at once.

    Returns:
        Claims per second (the median of the rounds) and milliseconds of each.
    """
    rates = []
    engines = [make_engine(database.url) for _ in range(2)]
    for _ in range(rounds):
        counts = [0, 0]

        def work(index: int, counts: list[int] = counts) -> None:
            while sum(counts) < _BATCH:
                with transaction(engines[index]) as session:
                    claimed = leases.claim_all(
                        session,
                        _PLENTY,
                        holder=f"dispatcher {index}",
                        duration=_MINUTES,
                        limit=CLAIMS_AT_ONCE,
                    )
                counts[index] += len(claimed)

        began = time.perf_counter()
        threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(sum(counts) / (time.perf_counter() - began))
        _put_back(database)
    for engine in engines:
        engine.dispose()
    rate = statistics.median(rates)
    return {"claims_per_second": rate, "ms_per_claim": 1000 / rate}


def _put_back(database: Database) -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("lease_token", "lease_expires_at", "leased_by", "claimed_at")
    )
    with transaction(database.engine) as session:
        session.execute(
            update(Search)
            .where(Search.status == SearchStatus.RUNNING)
            .values(status=SearchStatus.QUEUED, **nothing)
        )
