"""`python -m benchmarks.queue`: the service's figures in one run, both sides in turn.

It starts a PostgreSQL, APIs and a Ray of its own on this machine, and ends by itself.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.queue import claiming, reading, start_up, streaming, submitting, writing
from benchmarks.queue.stored import make_database, postgres

_GOALS: Final = {
    "submit": "at least 0.7 of the bare endpoint; p99 at most 5 p50",
    "claim": "at least 1,000/s from two dispatchers; at 100,000 queued at most 1.5 of 1,000's cost",
    "read": "at 100,000 stored at most 2 of the time at 1,000",
    "write": "at least 5,000 points/s from one runner",
    "stream": "within 1 s to 200 listeners",
    "start": "at most bare Ray Tune plus 1 s",
}
_SMALL, _LARGE = 1_000, 100_000
_QUEUED = 500


def main() -> int:
    """Measures what the command line names, or everything.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--only", choices=list(_GOALS), action="append", help="repeatable")
    parser.add_argument("--seconds", type=float, default=10, help="of each side of submitting")
    parser.add_argument("--json", action="store_true", help="print one object")
    given = parser.parse_args()
    # So that what was started is stopped again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()}
    }
    with tempfile.TemporaryDirectory(prefix="dartboard-queue-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        with postgres(home) as server:
            for part, measure in _parts(server, home, given.seconds).items():
                if given.only is None or part in given.only:
                    found[part] = measure()
                    if not given.json:
                        _show(part, found[part])
    if given.json:
        print(json.dumps(found))
    return 0


def _parts(server: str, home: Path, seconds: float) -> dict[str, Callable[[], dict[str, Any]]]:
    def submit() -> dict[str, Any]:
        return submitting.measure(make_database(server, ended=_SMALL), home, seconds=seconds)

    def claim() -> dict[str, Any]:
        small = claiming.measure(make_database(server, queued=_SMALL), rounds=15)
        large = claiming.measure(make_database(server, queued=_LARGE), rounds=15)
        return {
            "per_second_at_1000": small["claims_per_second"],
            "per_second_at_100000": large["claims_per_second"],
            "cost_ratio": large["ms_per_claim"] / small["ms_per_claim"],
        }

    def read() -> dict[str, Any]:
        small = make_database(server, ended=_SMALL - _QUEUED, queued=_QUEUED)
        large = make_database(server, ended=_LARGE - _QUEUED, queued=_QUEUED)
        return reading.measure(small, large, home, repeats=30)

    return {
        "submit": submit,
        "claim": claim,
        "read": read,
        "write": lambda: writing.measure(make_database(server), epochs=300),
        "stream": lambda: streaming.measure(make_database(server), home, num_events=20),
        "start": lambda: start_up.measure(make_database(server), home),
    }


def _show(part: str, figures: dict[str, Any]) -> None:
    print(f"{part} ({_GOALS[part]})")
    for name, value in figures.items():
        print(f"  {name:28} {value:,.2f}" if isinstance(value, float) else f"  {name:28} {value}")


if __name__ == "__main__":
    raise SystemExit(main())
