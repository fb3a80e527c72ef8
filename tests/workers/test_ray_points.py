"""Points, TPE and ASHA on a real Ray cluster, over the death of their runner."""

from collections.abc import Callable
from uuid import UUID

import pytest

from service.searches.schemas import SearchAnswer
from tests.workers.conftest import RayCluster, Record, Start, hold, wait_until
from tests.workers.test_points import HALVING
from workers.settings import WorkerSettings

pytestmark = pytest.mark.ray

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]

NUM_TRIALS = 6
EPOCHS = 5


@pytest.fixture
def _dispatcher(start: Start, ray_cluster: RayCluster) -> None:
    start(
        DARTBOARD_EXECUTOR="ray",
        DARTBOARD_RAY_ADDRESS=ray_cluster.address,
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(ray_cluster.home / "run" / "ray-token"),
    )


def check_counts(now: Record) -> None:
    counts = SearchAnswer.of(now.search, now.trials, None).counts
    assert counts.completed + counts.failed + counts.pending == counts.total == NUM_TRIALS


@pytest.mark.usefixtures("_dispatcher")
def test_a_killed_runner_leaves_its_successor_the_same_points(
    settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    search = submit(
        training={"epochs": EPOCHS, "batch_size": 64, "schedule": {"kind": "constant"}},
        trials={
            "grid": {"algorithm.weighting": ["scalar", "max_w"]},
            "sample": {"training.learning_rate": {"loguniform": [1e-3, 0.5]}},
            "num_samples": NUM_TRIALS // 2,
            "sampler": "tpe",
            "scheduler": HALVING,
        },
    )

    def reached(kind: str, count: int) -> bool:
        now = record(search)
        check_counts(now)
        return now.kinds.count(kind) >= count

    # Some trials have ended, some train, and some are not drawn yet.
    wait_until(lambda: reached("trial.suggested", 3) and reached("trial.epoch", EPOCHS))
    hold(settings, search).kill()
    before = record(search)
    drawn = [trial.parameters for trial in before.trials]
    assert None in drawn
    wait_until(lambda: (reached("search.running", 2), record(search).search.ended_at)[1])
    after = record(search)
    check_counts(after)
    assert after.search.status == "succeeded", after.search.message
    assert after.search.attempt == 2
    for old, trial in zip(drawn, after.trials, strict=True):
        assert trial.parameters is not None
        assert old in (None, trial.parameters)
        epochs = [
            event.data["epoch"]
            for event in after.events
            if event.kind == "trial.epoch" and event.trial_id == trial.id
        ]
        assert epochs == list(range(1, trial.epoch + 1))
        assert trial.status in ("succeeded", "stopped")
        assert (trial.epoch == EPOCHS) == (trial.status == "succeeded")
        assert after.kinds.count("trial.suggested") == NUM_TRIALS


@pytest.mark.usefixtures("_dispatcher")
def test_a_grid_fails_where_it_must_and_goes_on_elsewhere(submit: Submit, record: Recorder) -> None:
    search = submit(
        training={"epochs": 2, "learning_rate": 10.0, "batch_size": 64},
        trials={"grid": {"training.weight_decay": [10.0, 0.0, 1e-4]}},
    )
    wait_until(lambda: record(search).search.ended_at)
    after = record(search)
    assert after.search.status == "succeeded", after.search.message
    assert [trial.reason for trial in after.trials] == ["diverged", "completed", "completed"]
