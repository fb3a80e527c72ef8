"""What the cluster can hold now: asked of Ray by a process of its own, read by the dispatcher.

Ray ends a connected process when the cluster's head is gone for long. The one that asks is
therefore not the dispatcher: it may die, and is started again.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Final, Protocol, Self

from store.leases import Capacity, Node
from workers import memory, ray_token
from workers.settings import WorkerSettings

_ASK_SECONDS = 2.0
_PAUSE_SECONDS = 2.0
_STALE_SECONDS = 15.0
_NOTHING = Capacity(nodes=())
_NOT_CUSTOM: Final = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


class CapacitySource(Protocol):
    """Knows what the cluster holds; a context manager that frees what it needs for that."""

    def now(self) -> Capacity:
        """The latest word; without nodes while there is none."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ThisMachine:
    """This machine's CPUs and memory, for trials that run inside their runner's process."""

    def __init__(self) -> None:
        self._node = Node(cpus=os.cpu_count() or 1, memory=memory.total())

    def now(self) -> Capacity:
        """One node with the machine's CPUs and no GPU."""
        return Capacity((self._node,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return


class RayCapacity:
    """The living nodes of a Ray cluster.

    Args:
        address: The head's address.
        clock: Seconds that only ever go up.
    """

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._address = address
        self._clock = clock
        self._latest = _NOTHING
        self._heard_at = 0.0
        self._closed = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, name="capacity", daemon=True)

    def now(self) -> Capacity:
        """What the cluster said last, if that was lately: a head that hangs has no room."""
        silent = self._clock() - self._heard_at
        return self._latest if silent < _STALE_SECONDS else _NOTHING

    def hear(self, line: str) -> None:
        """Takes a line of what the probe wrote for its latest word.

        Args:
            line: The nodes as JSON; somebody else's words, such as a library's, are passed over.
        """
        try:
            self._latest = _read(line)
        except (KeyError, TypeError, ValueError):  # other JSON is foreign too
            return
        self._heard_at = self._clock()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        if self._process is not None:
            _dismiss(self._process)
        self._thread.join()

    def _follow(self) -> None:
        while not self._closed.is_set():
            with subprocess.Popen(
                [sys.executable, "-m", "workers.capacity", self._address],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as process:
                self._process = process
                if self._closed.is_set():
                    _dismiss(process)
                assert process.stdout is not None
                for line in process.stdout:
                    self.hear(line)
            self._latest = _NOTHING
            self._closed.wait(_PAUSE_SECONDS)


def _dismiss(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def _read(line: str) -> Capacity:
    return Capacity(
        tuple(
            Node(node["cpus"], node["gpus"], node.get("memory"), node.get("custom", {}))
            for node in json.loads(line)
        )
    )


def main() -> int:
    """Prints the nodes of the cluster at an address, as a JSON line, every few seconds.

    Ends when its standard input does, which is when whoever started it is gone.

    Returns:
        The exit status: 1 when no cluster answers.
    """
    ray_token.prepare(WorkerSettings().home)
    import ray

    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        ray.init(address=sys.argv[1], log_to_driver=False)
    except ConnectionError as error:
        sys.stderr.write(f"no Ray cluster answers at {sys.argv[1]}: {error}\n")
        return 1
    while True:
        sys.stdout.write(json.dumps([asdict(node) for node in living_nodes()]) + "\n")
        sys.stdout.flush()
        time.sleep(_ASK_SECONDS)


def living_nodes() -> list[Node]:
    """What each living node of the cluster that this process is connected to holds."""
    import ray

    return [to_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def to_node(resources: Mapping[str, float]) -> Node:
    """A node from its resources as Ray names them.

    Left out is what no search can ask for: the object store, the node's own address, and what Ray
    keeps for placement groups.
    """
    return Node(
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory=resources.get("memory"),
        custom={
            name: amount
            for name, amount in resources.items()
            if name not in _NOT_CUSTOM and not name.startswith("node:") and "_group_" not in name
        },
    )


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
