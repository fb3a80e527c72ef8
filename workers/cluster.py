"""Holds a Ray cluster of one node until it is stopped: `python -m workers.cluster`.

For one machine. A real cluster is started with `ray start` and named in `DARTBOARD_RAY_ADDRESS`.
"""

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

import psutil

from workers import ray_token, warming
from workers.settings import WorkerSettings

_WATCH_SECONDS = 2.0


def main() -> int:
    """Starts Ray, writes its address to a file, and waits for SIGTERM or SIGINT.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m workers.cluster", description=__doc__)
    parser.add_argument("--address-file", type=Path, required=True)
    parser.add_argument("--cpus", type=int, help="logical CPUs; the machine's by default")
    arguments = parser.parse_args()
    stopped = threading.Event()
    ray_token.prepare(WorkerSettings().home)
    # Trials inherit the environment of their node, and nodes get no database credentials.
    os.environ.pop("DARTBOARD_DATABASE_URL", None)
    for name, value in warming.ENVIRONMENT.items():
        os.environ.setdefault(name, value)

    import ray

    arguments.address_file.unlink(missing_ok=True)
    context = ray.init(
        address="local",
        num_cpus=arguments.cpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    # After `init`, which sets handlers of its own.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    partial = arguments.address_file.with_suffix(".partial")
    partial.write_text(
        json.dumps({"address": context.address_info["gcs_address"], "pid": os.getpid()})
    )
    partial.replace(arguments.address_file)
    while not stopped.wait(_WATCH_SECONDS):
        if not any(is_head_alive(process) for process in psutil.Process().children()):
            arguments.address_file.unlink(missing_ok=True)
            sys.stderr.write("Ray's head has died; start the cluster again\n")
            return 1
    arguments.address_file.unlink(missing_ok=True)
    ray.shutdown()
    return 0


def is_head_alive(process: psutil.Process) -> bool:
    """Whether a child of this process is Ray's head, and at work."""
    try:
        return bool(process.name() == "gcs_server" and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main())
