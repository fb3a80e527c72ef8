"""Holds a `ray.cluster_utils.Cluster` for a test, in a process that has its token to itself.

Ray reads its token once in a process, and every cluster of the tests has one of its own. Nodes are
added and removed by JSON lines on the standard input, each of which is answered by one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workers import ray_token


class Cluster:
    """A cluster of several nodes on this machine, whose head trains nothing.

    Args:
        process: It holds the nodes.
        home: The home that has the cluster's token.
    """

    def __init__(self, process: subprocess.Popen[str], home: Path) -> None:
        self._process = process
        self.home = home
        self.address: str = self._answer()["address"]

    def add(self, **resources: Any) -> int:
        """Starts a node, such as with `num_gpus=1, resources={"a100": 1}`.

        Returns:
            The pid of its raylet.
        """
        raylet: int = self._ask(add=resources)["raylet"]
        return raylet

    def remove(self, raylet: int, *, gracefully: bool = False) -> None:
        """Ends a node's processes; with SIGKILL unless gracefully."""
        self._ask(remove=raylet, gracefully=gracefully)

    def variables(self) -> dict[str, str]:
        """The environment of a dispatcher that uses the cluster."""
        return {
            "DARTBOARD_EXECUTOR": "ray",
            "DARTBOARD_RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(ray_token.token_file(self.home)),
        }

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise AssertionError("the cluster's process has ended; its log says why")


@contextmanager
def cluster(home: Path, **variables: str) -> Iterator[Cluster]:
    """A cluster with nothing but its head.

    Args:
        home: A folder of its own.
        variables: The nodes' environment, besides the test's.
    """
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        # Seconds instead of ten until the head takes a killed node for dead.
        "RAY_health_check_initial_delay_ms": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
        # No such device: GPUs are logical, also on a machine that has some.
        "CUDA_VISIBLE_DEVICES": "99",
        "DARTBOARD_HOME": str(home),
        **variables,
    }
    with (home / "cluster.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.workers.cluster_process"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        try:
            yield Cluster(process, home)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(120)


def main() -> int:
    """Starts the head, then does what it is told until its standard input ends."""
    ray_token.prepare(Path(os.environ["DARTBOARD_HOME"]))
    from ray import cluster_utils

    held = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes: dict[int, Any] = {}
    _say(address=held.address)
    for line in sys.stdin:
        command = json.loads(line)
        if "add" in command:
            node = held.add_node(**command["add"])
            (raylet,) = node.all_processes["raylet"]
            nodes[raylet.process.pid] = node
            _say(raylet=raylet.process.pid)
        else:
            held.remove_node(nodes.pop(command["remove"]), allow_graceful=command["gracefully"])
            _say(removed=True)
    held.shutdown()
    return 0


def _say(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
