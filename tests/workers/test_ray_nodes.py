"""Which nodes are there, without a cluster."""

import socket
from typing import Any

import pytest
import ray

from store.room import Node
from store.states import Reason
from workers.capacity import to_node
from workers.ray_nodes import Patience, is_lost
from workers.trials import ExecutorError

A100 = Node(4, 1, custom={"a100": 1})
PLAIN = Node(4)


class Cluster:
    """Nodes and a clock that are set by hand."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = list(nodes)
        self.seconds = 0.0
        self.patience = Patience(60, lambda: self.nodes, lambda: self.seconds)

    def check(self, seconds: float) -> None:
        self.seconds = seconds
        self.patience.check(A100)


def test_patience_ends_when_no_node_has_been_large_enough_for_long() -> None:
    cluster = Cluster(PLAIN)
    cluster.check(0)
    cluster.check(59)
    with pytest.raises(ExecutorError, match="no node has 1 GPU and 1 a100, which") as raised:
        cluster.check(61)
    assert raised.value.reason is Reason.NODE_LOST


def test_a_node_that_comes_starts_patience_anew() -> None:
    cluster = Cluster(PLAIN)
    cluster.check(0)
    cluster.nodes.append(A100)
    cluster.check(50)
    cluster.nodes.clear()
    cluster.check(60)
    cluster.check(119)
    with pytest.raises(ExecutorError, match="there is no node"):
        cluster.check(121)


def test_the_cluster_is_not_asked_all_the_time() -> None:
    asked: list[float] = []
    now = 0.0

    def nodes() -> list[Node]:
        asked.append(now)
        return [A100]

    patience = Patience(60, nodes, lambda: now)
    for step in range(100):
        now = step / 10
        patience.check(A100)
    assert len(asked) == 5


@pytest.fixture
def port() -> Any:
    """A port on which something listens, until the test says otherwise."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def describe(node_id: str, port: int, *, alive: bool = True) -> dict[str, Any]:
    address = {"NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port}
    return {"NodeID": node_id, "Alive": alive, **address}


def test_a_node_is_lost_when_ray_says_so_or_it_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, port: socket.socket
) -> None:
    number = port.getsockname()[1]
    nodes = [describe("here", number), describe("gone", number, alive=False)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert not is_lost("here")
    assert is_lost("gone")
    assert is_lost("never heard of")
    assert not is_lost(None)
    port.close()
    assert is_lost("here")
    assert is_lost(None)


def test_of_a_node_that_is_left_out_which_nobody_can_ask_for() -> None:
    told = {
        "CPU": 16.0,
        "GPU": 2.0,
        "memory": 8e9,
        "object_store_memory": 1e9,
        "node:10.0.0.7": 1.0,
        "node:__internal_head__": 1.0,
        "CPU_group_0_9c1f": 1.0,
        "bundle_group_9c1f": 1000.0,
        "accelerator_type:A100": 1.0,
        "a100": 2.0,
    }
    custom = {"accelerator_type:A100": 1.0, "a100": 2.0}
    assert to_node(told) == Node(16, 2, 8e9, custom)
