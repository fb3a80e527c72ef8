"""How long an event takes from its commit to two hundred listeners."""

import asyncio
import time
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx2

from benchmarks.queue import servers
from benchmarks.queue.stored import SPEC, Database
from store import events
from store.sessions import transaction

_LISTENERS: Final = 200


def measure(database: Database, home: Path, *, num_events: int) -> dict[str, Any]:
    """Commits events one after the other, each once every listener has the one before.

    Returns:
        Median and largest delay in milliseconds, over all listeners and events.
    """
    with servers.api(database, home) as address:
        delays = sorted(asyncio.run(_listen(database, address, num_events)))
    return {
        "listeners": _LISTENERS,
        "median_ms": 1000 * delays[len(delays) // 2],
        "largest_ms": 1000 * delays[-1],
    }


async def _listen(database: Database, address: str, num_events: int) -> list[float]:
    headers = {"Authorization": f"Bearer {database.key}"}
    delays: list[float] = []
    arrived = asyncio.Semaphore(0)
    sent_at = [0.0]
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=address, headers=headers, limits=limits, timeout=120, trust_env=False
    ) as client:
        search_id = (await client.post("/v1/searches", json=SPEC)).json()["id"]

        async def listen() -> None:
            path, accept = f"/v1/searches/{search_id}/events", {"Accept": "text/event-stream"}
            async with client.stream("GET", path, headers=accept) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("event: measured"):
                        delays.append(time.monotonic() - sent_at[0])
                        arrived.release()
                    elif line.startswith("event: search.queued"):
                        arrived.release()

        listeners = [asyncio.create_task(listen()) for _ in range(_LISTENERS)]
        await _all(arrived)
        for _ in range(num_events):
            await asyncio.to_thread(_append, database, UUID(search_id), sent_at)
            await _all(arrived)
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
    return delays


async def _all(arrived: asyncio.Semaphore) -> None:
    async with asyncio.timeout(60):
        for _ in range(_LISTENERS):
            await arrived.acquire()


def _append(database: Database, search_id: UUID, sent_at: list[float]) -> None:
    with transaction(database.engine) as session:
        events.append(session, search_id, "measured")
        # Not after the commit: the first may have it by then.
        session.flush()
        sent_at[0] = time.monotonic()
