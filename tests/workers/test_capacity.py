"""What the dispatcher knows of its cluster."""

import contextlib
import subprocess
import sys

import psutil
import pytest

from store.leases import Capacity, Node
from tests.workers.conftest import RayCluster, wait_until
from workers import memory
from workers.capacity import RayCapacity, ThisMachine

OWNER = """
import sys, time
from workers.capacity import RayCapacity

with RayCapacity(sys.argv[1]) as source:
    while not source.now().nodes:
        time.sleep(0.05)
    print("seen", flush=True)
    time.sleep(600)
"""


class Clock:
    """Stands still unless it is put forward."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(clock: Clock) -> RayCapacity:
    """What is told by the test, and not by a probe."""
    return RayCapacity("127.0.0.1:1", clock)


@pytest.fixture
def token_of_the_cluster(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(ray_cluster.home / "run" / "ray-token"))


def probes_of(owner: psutil.Process) -> list[psutil.Process]:
    """The living probes that a process started."""
    found = []
    for process in owner.children():
        with contextlib.suppress(psutil.Error):
            if "workers.capacity" in process.cmdline():
                found.append(process)
    return found


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone, or only waits for somebody to take note of its end."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_this_machine_has_cpus() -> None:
    with ThisMachine() as source:
        (node,) = source.now().nodes
        assert node.cpus >= 1
        assert node.memory == memory.total()


def test_what_was_said_holds_for_a_while(source: RayCapacity, clock: Clock) -> None:
    assert source.now().nodes == ()
    source.hear('[{"cpus": 4.0, "gpus": 1.0, "memory": 8e9}, {"cpus": 2.0, "gpus": 0.0}]\n')
    told = Capacity((Node(cpus=4.0, gpus=1.0, memory=8e9), Node(cpus=2.0)))
    clock.seconds += 14
    assert source.now() == told
    clock.seconds += 2
    assert source.now().nodes == ()
    source.hear('[{"cpus": 2.0, "gpus": 0.5, "custom": {"a100": 1.0}}]\n')
    assert source.now() == Capacity((Node(cpus=2.0, gpus=0.5, custom={"a100": 1.0}),))


@pytest.mark.parametrize(
    "line", ["Connected.\n", "\n", "7\n", "null\n", '{"cpus": 1}\n', "[{}]\n", "[7]\n"]
)
def test_foreign_words_change_nothing_and_count_for_nothing(
    source: RayCapacity, clock: Clock, line: str
) -> None:
    source.hear('[{"cpus": 2.0, "gpus": 0.0}]\n')
    clock.seconds += 14
    source.hear(line)
    assert source.now() == Capacity((Node(cpus=2.0),))
    clock.seconds += 2
    assert source.now().nodes == ()


@pytest.mark.ray
@pytest.mark.usefixtures("token_of_the_cluster")
def test_the_nodes_of_a_cluster_are_seen_by_a_probe_that_ends_when_it_is_closed(
    ray_cluster: RayCluster,
) -> None:
    with RayCapacity(ray_cluster.address) as source:
        assert source.now() == Capacity(nodes=())
        wait_until(lambda: source.now().nodes)
        (node,) = source.now().nodes
        assert (node.cpus, node.gpus) == (2, 0)
        assert node.memory is not None
        assert 2**20 < node.memory < memory.total()
        (probe,) = probes_of(psutil.Process())
    assert has_ended(probe)
    assert probes_of(psutil.Process()) == []


@pytest.mark.ray
@pytest.mark.usefixtures("token_of_the_cluster")
def test_the_probe_ends_with_an_owner_that_is_killed(ray_cluster: RayCluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, ray_cluster.address], stdout=subprocess.PIPE
    ) as owner:
        try:
            # From then on it would go on asking for ever: the cluster answers.
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"seen\n"
            (probe,) = probes_of(psutil.Process(owner.pid))
        finally:
            owner.kill()
    wait_until(lambda: has_ended(probe))
