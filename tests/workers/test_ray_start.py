"""A cluster that an operator starts with `ray start`, whose raylets are killed; and its token."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from store.states import Reason
from tests.workers.conftest import Record, Start, tiny, wait_until
from tests.workers.ray_door import BY_HEAD, BY_INIT, check_only_the_token_opens
from tests.workers.ray_start import RayStart, started
from tests.workers.test_nodes import (
    A100,
    EPOCHS,
    STANDS_FOR_GPU,
    check_epochs,
    of_kind,
    raylet_of,
    undisturbed,
)
from workers.settings import WorkerSettings

pytestmark = pytest.mark.ray

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]

NODE = ("--num-cpus=1", "--num-gpus=1", '--resources={"a100": 1}')


@pytest.fixture(scope="module")
def hosts() -> Iterator[RayStart]:
    with (
        tempfile.TemporaryDirectory(prefix="dr-", ignore_cleanup_errors=True) as name,
        started(Path(name), **STANDS_FOR_GPU) as held,
    ):
        yield held


def variables(hosts: RayStart) -> dict[str, str]:
    """The environment of a dispatcher that uses the cluster."""
    return {
        **hosts.access,
        "DARTBOARD_EXECUTOR": "ray",
        "DARTBOARD_RAY_ADDRESS": hosts.address,
    }


def test_killed_raylets_cost_a_search_nothing_and_the_token_stays_a_secret(
    settings: WorkerSettings,
    hosts: RayStart,
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    first, second = hosts.join(*NODE), hosts.join(*NODE)
    start(**variables(hosts), DARTBOARD_TRIAL_FAILURES="0", DARTBOARD_NODE_PATIENCE_SECONDS="3")
    search = submit(training={"epochs": EPOCHS}, resources=A100)
    wait_until(lambda: "trial.epoch" in record(search).kinds)
    pids = {first.raylet.pid: first, second.raylet.pid: second}
    used = raylet_of(record(search))
    pids.pop(used)
    next(node for node in (first, second) if node.raylet.pid == used).raylet.kill()
    (left,) = pids.values()

    wait_until(lambda: record(search).kinds.count("trial.started") == 2)
    assert raylet_of(record(search)) == left.raylet.pid
    assert [event.data["reason"] for event in of_kind(record(search), "trial.interrupted")] == [
        Reason.NODE_LOST
    ]
    # Now the last of its kind.
    left.raylet.kill()
    wait_until(lambda: "search.requeued" in record(search).kinds)
    waiting = record(search).search
    assert (waiting.status, waiting.reason, waiting.failures) == ("queued", Reason.NODE_LOST, 0)

    hosts.join(*NODE)
    wait_until(lambda: record(search).search.ended_at)
    after = record(search)
    assert after.search.status == "succeeded", after.search.message
    assert after.search.attempt == 2
    check_epochs(after, EPOCHS)
    expected = undisturbed(tiny(training={"epochs": EPOCHS}))
    assert [trial.architecture_hash for trial in after.trials] == expected

    token = hosts.token_file.read_bytes()
    logs = [
        file
        for root in (settings.home, hosts.home)
        for file in root.rglob("*")
        if file.is_file() and file != hosts.token_file
    ]
    names = {file.name for file in logs}
    # Ours, and those of Ray's parts.
    assert {"dispatcher.log", "node-0.log", "gcs_server.out", "raylet.out"} <= names
    assert any(file.parent.name == "runners" for file in logs)
    assert [file for file in logs if token in file.read_bytes()] == []
    assert token.decode() not in str([(event.kind, event.data) for event in after.events])


@pytest.mark.parametrize("way", [BY_INIT, BY_HEAD])
def test_only_the_token_opens_the_cluster(hosts: RayStart, tmp_path: Path, way: str) -> None:
    check_only_the_token_opens(way, hosts.address, hosts.token_file, tmp_path)


def test_without_its_head_a_search_goes_back_to_the_queue(
    start: Start, submit: Submit, record: Recorder
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="dr-", ignore_cleanup_errors=True) as name,
        started(Path(name)) as held,
    ):
        held.join("--num-cpus=1")
        dispatcher = start(**variables(held), DARTBOARD_NODE_PATIENCE_SECONDS="3")
        search = submit(training={"epochs": 10_000})
        wait_until(lambda: "trial.epoch" in record(search).kinds)
        next(each for each in held.nodes[0].processes if each.name() == "gcs_server").kill()
        wait_until(lambda: "search.requeued" in record(search).kinds)
        dispatcher.terminate()
        dispatcher.wait(120)
    (requeued, *_) = of_kind(record(search), "search.requeued")
    assert requeued.data["reason"] == Reason.RUNNER_CRASHED
    assert record(search).search.failures == 1
