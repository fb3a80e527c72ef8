"""What the dispatcher knows of its cluster."""

from pathlib import Path

import pytest

from store.leases import Capacity, Node
from tests.workers.conftest import RayCluster, wait_until
from workers.capacity import RayCapacity, ThisMachine


def test_this_machine_has_cpus() -> None:
    with ThisMachine() as source:
        assert source.now().cpus >= 1


@pytest.mark.ray
def test_the_nodes_of_a_cluster_are_seen(
    ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(ray_cluster.home / "run" / "ray-token"))
    with RayCapacity(ray_cluster.address) as source:
        assert source.now() == Capacity(nodes=())
        wait_until(lambda: source.now().nodes)
        assert source.now() == Capacity((Node(cpus=2.0, gpus=0.0),))


def test_a_probe_that_says_nothing_leaves_the_cluster_empty_and_ends_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARTBOARD_HOME", str(tmp_path))
    with RayCapacity("127.0.0.1:1") as source:
        assert source.now().nodes == ()
