"""Submissions from many clients at once, against the bare endpoint that inserts one row."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any, Final

import httpx2

from benchmarks.queue import servers
from benchmarks.queue.stored import SPEC, Database

_CLIENTS: Final = 64
_ROUNDS: Final = 3


def measure(database: Database, home: Path, *, seconds: float) -> dict[str, Any]:
    """Both sides in turn, several times.

    Args:
        database: Where both insert.
        home: A folder of this run.
        seconds: Of each side in each round.

    Returns:
        Requests per second of both and their ratio (medians over the rounds); p50 and p99 of a
        submission in milliseconds, and their ratio.
    """
    headers = {"Authorization": f"Bearer {database.key}"}
    sides: dict[str, list[list[float]]] = {"bare": [], "submit": []}
    ratios = []
    with servers.bare(database, home) as bare, servers.api(database, home) as api:
        for _ in range(_ROUNDS):
            alone = asyncio.run(_load(bare, "/", {}, seconds))
            ours = asyncio.run(_load(api, "/v1/searches", headers, seconds))
            sides["bare"].append(alone)
            sides["submit"].append(ours)
            ratios.append(len(ours) / len(alone))
    rates = {
        side: statistics.median(len(found) / seconds for found in rounds)
        for side, rounds in sides.items()
    }
    took = sorted(1000 * each for found in sides["submit"] for each in found)
    p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
    return {
        "clients": _CLIENTS,
        "bare_per_second": rates["bare"],
        "submit_per_second": rates["submit"],
        "ratio": statistics.median(ratios),
        "p50_ms": p50,
        "p99_ms": p99,
        "p99_to_p50": p99 / p50,
    }


async def _load(address: str, path: str, headers: dict[str, str], seconds: float) -> list[float]:
    """How long each request took, of all that ended in time."""
    took: list[float] = []
    limits = httpx2.Limits(max_connections=_CLIENTS, max_keepalive_connections=_CLIENTS)
    async with httpx2.AsyncClient(
        base_url=address, headers=headers, limits=limits, timeout=60, trust_env=False
    ) as client:
        await client.post(path, json=SPEC)
        until = time.monotonic() + seconds

        async def work() -> None:
            while (began := time.monotonic()) < until:
                response = await client.post(path, json=SPEC)
                response.raise_for_status()
                if (now := time.monotonic()) < until:
                    took.append(now - began)

        await asyncio.gather(*(work() for _ in range(_CLIENTS)))
    return took
