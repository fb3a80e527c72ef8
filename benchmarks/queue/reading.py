"""The queue page, a search's place and a list, by how many searches are stored."""

import statistics
import time
from pathlib import Path
from typing import Final

import httpx2

from benchmarks.queue import servers
from benchmarks.queue.stored import Database

_PATHS: Final = {
    "queue": "/v1/queue",
    "position": "/v1/searches/{id}",
    "list": "/v1/searches?limit=50",
    "list_of_a_status": "/v1/searches?status=succeeded&limit=50",
}


def measure(small: Database, large: Database, home: Path, *, repeats: int) -> dict[str, float]:
    """Both databases in turn.

    Returns:
        For each request, the milliseconds that it took at each size (medians), and the ratio.
    """
    found: dict[str, float] = {}
    with servers.api(small, home) as at_small, servers.api(large, home) as at_large:
        clients = {
            "small": _client(at_small, small),
            "large": _client(at_large, large),
        }
        for name, path in _PATHS.items():
            took: dict[str, list[float]] = {"small": [], "large": []}
            for repeat in range(repeats + 2):
                for size, client in clients.items():
                    began = time.perf_counter()
                    client.get(path.format(id=_last_queued(client))).raise_for_status()
                    if repeat >= 2:
                        took[size].append(1000 * (time.perf_counter() - began))
            for size, all_took in took.items():
                found[f"{name}_ms_{size}"] = statistics.median(all_took)
            found[f"{name}_ratio"] = found[f"{name}_ms_large"] / found[f"{name}_ms_small"]
        for client in clients.values():
            client.close()
    return found


def _client(address: str, database: Database) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {database.key}"}
    return httpx2.Client(base_url=address, headers=headers, timeout=60, trust_env=False)


_known: dict[int, str] = {}


def _last_queued(client: httpx2.Client) -> str:
    if id(client) not in _known:
        answer = client.get("/v1/searches?status=queued&limit=1")
        _known[id(client)] = answer.json()["items"][0]["id"]
    return _known[id(client)]
