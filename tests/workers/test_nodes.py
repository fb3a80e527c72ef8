"""A Ray cluster of several nodes, whose GPUs are logical: nodes leave, and others come."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from sqlalchemy import Engine

from search_core.search import SearchRun
from search_core.spec import SearchSpec
from store import owners, queue, searches
from store.models import Event
from store.sessions import transaction
from store.states import Reason
from tests.workers.cluster_process import Cluster, cluster
from tests.workers.conftest import Record, Start, tiny, wait_until
from tests.workers.test_ray_trials import trial_processes

pytestmark = pytest.mark.ray

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]

EPOCHS = 25
A100 = {"cpus": 1, "gpus": 0.5, "custom": {"a100": 1}}
NODE = {"num_cpus": 1, "num_gpus": 1, "resources": {"a100": 1}}
STANDS_FOR_GPU = {"DARTBOARD_CPU_STANDS_FOR_GPU": "1"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A cluster whose nodes have CPUs that stand for GPUs."""
    with (
        tempfile.TemporaryDirectory(prefix="dartboard-nodes-") as name,
        cluster(Path(name), **STANDS_FOR_GPU) as held,
    ):
        yield held


@pytest.fixture
def spare(nodes: Cluster) -> Iterator[Callable[..., int]]:
    """Adds nodes that are gone after the test."""
    added: list[int] = []

    def add(**resources: object) -> int:
        added.append(nodes.add(**resources))
        return added[-1]

    yield add
    for raylet in added:
        if psutil.pid_exists(raylet):
            nodes.remove(raylet)


def undisturbed(spec: SearchSpec) -> list[str]:
    """What the trials of a search come to by themselves."""
    hashes = []
    for seed in spec.trials.seeds:
        run = SearchRun(spec, seed)
        while not run.finished:
            run.run_epoch()
        hashes.append(run.genotype().hash)
    return hashes


def of_kind(now: Record, kind: str) -> list[Event]:
    return [event for event in now.events if event.kind == kind]


def raylet_of(now: Record) -> int:
    """The raylet whose child the search's one trial is."""
    (trial,) = trial_processes(now)
    raylet: int = trial.ppid()
    return raylet


def check_epochs(now: Record, epochs: int) -> None:
    """Each epoch of each trial was recorded once, in order."""
    for trial in now.trials:
        recorded = [
            event.data["epoch"]
            for event in of_kind(now, "trial.epoch")
            if event.trial_id == trial.id
        ]
        assert recorded == list(range(1, epochs + 1))


@pytest.mark.parametrize("gracefully", [False, True])
def test_a_trial_moves_to_another_node_and_ends_the_same(
    nodes: Cluster,
    spare: Callable[..., int],
    start: Start,
    submit: Submit,
    record: Recorder,
    gracefully: bool,
) -> None:
    raylets = {spare(**NODE), spare(**NODE)}
    # A crash would end it: the loss of a node is none.
    start(**nodes.variables(), DARTBOARD_TRIAL_FAILURES="0")
    search = submit(training={"epochs": EPOCHS}, resources=A100)
    wait_until(lambda: "trial.epoch" in record(search).kinds)
    first = raylet_of(record(search))
    assert first in raylets
    nodes.remove(first, gracefully=gracefully)
    wait_until(lambda: record(search).kinds.count("trial.started") == 2)
    assert raylet_of(record(search)) in raylets - {first}
    wait_until(lambda: record(search).search.ended_at)
    after = record(search)
    assert after.search.status == "succeeded", after.search.message
    assert (after.search.attempt, after.search.failures) == (1, 0)
    assert [event.data["reason"] for event in of_kind(after, "trial.interrupted")] == [
        Reason.NODE_LOST
    ]
    assert of_kind(after, "trial.started")[1].data["from_epoch"] >= 1
    check_epochs(after, EPOCHS)
    expected = undisturbed(tiny(training={"epochs": EPOCHS}))
    assert [trial.architecture_hash for trial in after.trials] == expected


def test_a_search_whose_nodes_leave_for_good_waits_in_the_queue_until_one_comes(
    nodes: Cluster,
    spare: Callable[..., int],
    engine: Engine,
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    a100 = spare(**NODE)
    spare(num_cpus=1)
    start(**nodes.variables(), DARTBOARD_NODE_PATIENCE_SECONDS="3")
    search = submit(training={"epochs": EPOCHS}, resources=A100)
    wait_until(lambda: "trial.epoch" in record(search).kinds)
    nodes.remove(a100)
    wait_until(lambda: "search.requeued" in record(search).kinds)
    waiting = record(search)
    assert (waiting.search.status, waiting.search.reason) == ("queued", Reason.NODE_LOST)
    assert waiting.search.failures == 0
    assert "no node has 0.5 GPUs and 1 a100" in waiting.search.message
    with transaction(engine) as session:
        place = queue.waiting(session, searches.get(session, search))
    assert place is not None
    assert place.why == "no node has 0.5 GPUs and 1 a100, which each of its trials needs"
    # What is left of the cluster is not kept waiting.
    other = submit()
    wait_until(lambda: record(other).search.ended_at)
    assert record(other).search.status == "succeeded"
    assert record(search).search.status == "queued"
    spare(**NODE)
    wait_until(lambda: record(search).search.ended_at)
    after = record(search)
    assert after.search.status == "succeeded", after.search.message
    assert after.search.attempt == 2
    assert of_kind(after, "trial.started")[-1].data["from_epoch"] >= 1
    check_epochs(after, EPOCHS)
    expected = undisturbed(tiny(training={"epochs": EPOCHS}))
    assert [trial.architecture_hash for trial in after.trials] == expected


def test_a_crash_is_no_lost_node(
    nodes: Cluster,
    spare: Callable[..., int],
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    spare(**NODE)
    start(**nodes.variables(), DARTBOARD_TRIAL_FAILURES="1")
    search = submit(training={"epochs": 10_000}, resources=A100)

    def kill_start(count: int) -> None:
        wait_until(lambda: record(search).kinds.count("trial.started") == count)
        (trial,) = trial_processes(record(search))
        trial.kill()

    kill_start(1)
    kill_start(2)
    wait_until(lambda: record(search).search.ended_at)
    after = record(search)
    assert (after.search.status, after.search.reason) == ("failed", Reason.TRIAL_CRASHED)
    assert [event.data["reason"] for event in of_kind(after, "trial.interrupted")] == [
        Reason.TRIAL_CRASHED
    ]


def test_nodes_that_a_trial_loses_one_after_the_other_count_in_the_end(
    nodes: Cluster,
    spare: Callable[..., int],
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    spare(**NODE)
    spare(**NODE)
    start(**nodes.variables(), DARTBOARD_TRIAL_FAILURES="0", DARTBOARD_NODE_LOSSES="0")
    search = submit(training={"epochs": 10_000}, resources=A100)
    wait_until(lambda: "trial.started" in record(search).kinds)
    nodes.remove(raylet_of(record(search)))
    wait_until(lambda: record(search).search.ended_at)
    after = record(search)
    assert (after.search.status, after.search.reason) == ("failed", Reason.NODE_LOST)


def test_trials_share_a_gpu_side_by_side(
    nodes: Cluster,
    spare: Callable[..., int],
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    spare(num_cpus=4, num_gpus=1)
    start(**nodes.variables())
    search = submit(
        training={"epochs": EPOCHS}, trials={"seeds": [0, 1, 2]}, resources={"gpus": 0.5}
    )
    wait_until(lambda: record(search).search.ended_at)
    after = record(search)
    assert after.search.status == "succeeded", after.search.message
    order = [
        event.kind for event in after.events if event.kind in ("trial.started", "trial.succeeded")
    ]
    # The third half waits for one of the others, though there are CPUs for it.
    assert order[:3] == ["trial.started", "trial.started", "trial.succeeded"]
    running = [*itertools.accumulate(1 if kind == "trial.started" else -1 for kind in order)]
    assert max(running) == 2


def test_a_trial_that_finds_no_gpu_says_what_to_do(
    start: Start, submit: Submit, record: Recorder
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="dartboard-nodes-") as name,
        cluster(Path(name)) as held,
    ):
        held.add(num_cpus=1, num_gpus=1)
        dispatcher = start(**held.variables())
        search = submit(resources={"gpus": 1})
        wait_until(lambda: record(search).search.ended_at)
        dispatcher.terminate()
        dispatcher.wait(120)
    after = record(search)
    assert (after.search.status, after.search.reason) == ("failed", Reason.NO_GPU)
    assert "nvidia-smi" in after.search.message
    assert "DARTBOARD_CPU_STANDS_FOR_GPU=1" in after.search.message


def test_a_quota_of_gpus_lets_so_many_trials_run_at_once(
    nodes: Cluster,
    engine: Engine,
    spare: Callable[..., int],
    start: Start,
    submit: Submit,
    record: Recorder,
) -> None:
    for _ in range(3):
        spare(num_cpus=1, num_gpus=1)
    with transaction(engine) as session:
        owners.change(session, owners.LOCAL, {"max_gpus": 1})
    start(**nodes.variables())
    search = submit(trials={"seeds": [0, 1, 2]}, resources={"cpus": 1, "gpus": 1})
    wait_until(lambda: record(search).search.ended_at)
    after = record(search)
    assert after.search.status == "succeeded"
    # One begins when the one before it has ended, though there is room for all three.
    steps = [
        event.kind for event in after.events if event.kind in ("trial.starting", "trial.succeeded")
    ]
    assert steps == ["trial.starting", "trial.succeeded"] * 3
