"""From POST to the first epoch on a warm cluster, against bare Ray Tune with the same trainable."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.queue import servers
from benchmarks.queue.stored import SPEC, Database
from dartboard import Client

_PATIENCE_SECONDS: Final = 120.0


def measure(database: Database, home: Path, *, num_runs: int = 5) -> dict[str, Any]:
    """Both sides in turn, on one Ray of this machine.

    Returns:
        Seconds of both sides (medians, without the first of each), and their difference.
    """
    variables = {"DARTBOARD_DATABASE_URL": database.url, "DARTBOARD_HOME": str(home)}
    address_file = home / "ray.json"
    with (
        _running(["-m", "workers.cluster", "--address-file", str(address_file)], variables, home),
        servers.api(database, home) as api,
    ):
        _wait(address_file.exists)
        ray = json.loads(address_file.read_text())["address"]
        with (
            _running(
                ["-m", "workers.dispatcher"], {**variables, "DARTBOARD_RAY_ADDRESS": ray}, home
            ),
            Client(api, key=database.key) as client,
        ):
            _wait(lambda: client.queue().cluster.nodes)
            ours, bare = [], []
            for _ in range(num_runs):
                ours.append(_from_post_to_epoch(client))
                bare.append(_bare(ray, home))
    return {
        "post_to_epoch_s": statistics.median(ours[1:]),
        "bare_tune_s": statistics.median(bare[1:]),
        "difference_s": statistics.median(
            one - other for one, other in zip(ours[1:], bare[1:], strict=True)
        ),
    }


def _from_post_to_epoch(client: Client) -> float:
    # As soon as the one before has gone: what is kept warm has had its time to warm up.
    began = time.monotonic()
    search = client.submit({**SPEC, "trials": {"seeds": [0]}})
    took = None
    for event in client.follow(search):
        if event.kind == "trial.started":
            took = time.monotonic() - began
    assert took is not None, f"{search.id} trained no epoch"
    time.sleep(10)
    return took


def _bare(address: str, home: Path) -> float:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.queue.bare_tune", address, str(home), "1"],
        capture_output=True, text=True, check=True, timeout=_PATIENCE_SECONDS,
    )  # fmt: skip
    seconds: float = json.loads(run.stdout.strip().splitlines()[-1])
    return seconds


@contextmanager
def _running(command: list[str], variables: dict[str, str], home: Path) -> Iterator[None]:
    with (home / f"{command[1]}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command], env={**os.environ, **variables}, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
