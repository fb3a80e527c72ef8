"""Which nodes of the Ray cluster are there: asked of Ray, and of the nodes themselves."""

import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import ray

from store.room import Capacity, Node, missing
from store.states import Reason
from workers.capacity import living_nodes
from workers.trials import ExecutorError

_ANSWER_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 2.0


def is_lost(node_id: str | None) -> bool:
    """Whether a node has left the cluster.

    Ray's head takes a node that went silent for living for another ten seconds or so, while its
    trials are seen to end at once. The node itself is therefore asked: a raylet that is gone
    refuses the connection, and a host that is gone does not answer.

    Args:
        node_id: Ray's id of the node; where it is not known, any node that Ray takes for living.
    """
    nodes = ray.nodes()
    if node_id is None:
        return any(node["Alive"] and not _answers(node) for node in nodes)
    return not any(node["NodeID"] == node_id and node["Alive"] and _answers(node) for node in nodes)


def _answers(node: Mapping[str, Any]) -> bool:
    address = (node["NodeManagerAddress"], node["NodeManagerPort"])
    try:
        with socket.create_connection(address, timeout=_ANSWER_SECONDS):
            return True
    except OSError:
        return False


class Patience:
    """Notices when no node of the cluster is large enough any more for the trials of a search.

    They would wait inside Ray for as long as no such node comes.

    Args:
        seconds: How long a node may be away.
        nodes: The living nodes now.
        clock: Seconds that only ever go up.
    """

    def __init__(
        self,
        seconds: float,
        nodes: Callable[[], list[Node]] = living_nodes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._nodes = nodes
        self._clock = clock
        self._looks_at = clock()
        self._missing_since: float | None = None

    def check(self, need: Node) -> None:
        """Looks at the cluster every few seconds; meant to be called more often than that.

        Args:
            need: What each trial needs of its node.

        Raises:
            ExecutorError: There has been no such node for too long.
        """
        now = self._clock()
        if now < self._looks_at:
            return
        self._looks_at = now + _LOOK_SECONDS
        capacity = Capacity(tuple(self._nodes()))
        if capacity.holds(need):
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        elif now - self._missing_since >= self._seconds:
            raise ExecutorError(
                f"Its nodes left the cluster: for {self._seconds:.0f} s "
                f"{missing(capacity, need)}, which each of its trials needs; it goes on from its "
                "checkpoints when such a node comes",
                Reason.NODE_LOST,
            )
