"""A Ray cluster as an operator starts it: `ray start` on the command line, one process a node."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from workers import ray_token

_RAY = str(Path(sys.executable).with_name("ray"))
_PATIENCE_SECONDS = 120.0


@dataclass
class RayNode:
    """What one `ray start` started.

    Attributes:
        processes: All that it has started, the raylet among them.
    """

    command: "subprocess.Popen[bytes]"
    processes: list[psutil.Process]

    @property
    def raylet(self) -> psutil.Process:
        """The process that is the node."""
        return next(each for each in self.processes if each.name() == "raylet")

    def end(self) -> None:
        """Leaves nothing of the node behind, whatever was killed of it before."""
        for process in [*self.processes, psutil.Process(self.command.pid)]:
            if process.is_running():
                process.kill()
        self.command.wait(60)


@dataclass
class RayStart:
    """A cluster of `ray start` commands.

    Attributes:
        home: A folder whose token it uses; Ray's own logs are under `ray` there.
        address: The head's.
        variables: The environment of its nodes, besides the test's.
    """

    home: Path
    address: str
    variables: Mapping[str, str]
    nodes: list[RayNode] = field(default_factory=list)

    @property
    def token_file(self) -> Path:
        """The file that lets processes in."""
        return ray_token.token_file(self.home)

    @property
    def access(self) -> dict[str, str]:
        """What a process needs in its environment to get in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}

    def add(self, *options: str) -> RayNode:
        """Runs `ray start` with these options, and waits for its raylet."""
        number = len(self.nodes)
        with (self.home / f"node-{number}.log").open("wb") as log:
            command = subprocess.Popen(
                [_RAY, "start", "--block", "--dashboard-agent-listen-port=0", *options],
                env={**os.environ, **self.access, **self.variables},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        node = RayNode(command, [])
        self.nodes.append(node)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        # Its last words come when all of its processes are there.
        while b"Ray runtime started" not in (self.home / f"node-{number}.log").read_bytes():
            assert command.poll() is None, (self.home / f"node-{number}.log").read_text()
            assert time.monotonic() < deadline, "ray start takes too long"
            time.sleep(0.1)
        node.processes = psutil.Process(command.pid).children(recursive=True)
        return node

    def join(self, *options: str) -> RayNode:
        """Adds a node to the cluster, such as with `--num-gpus=1`."""
        return self.add(f"--address={self.address}", *options)


@contextmanager
def started(home: Path, **variables: str) -> Iterator[RayStart]:
    """A cluster whose head trains nothing.

    Args:
        home: A folder with a short name: Ray puts sockets there.
        variables: The nodes' environment, besides the test's.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    held = RayStart(home, f"127.0.0.1:{port}", {"CUDA_VISIBLE_DEVICES": "99", **variables})
    try:
        held.add(
            "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false",
            f"--temp-dir={home / 'ray'}",
        )  # fmt: skip
        yield held
    finally:
        for node in reversed(held.nodes):
            node.end()
