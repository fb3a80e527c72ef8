"""A training as a job of the queue, to its result and over the loss of its process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from sqlalchemy import Engine, update

from search_core.pace import reproducible
from search_core.spec.retraining import RetrainingSpec
from search_core.storage import Folder
from search_core.training import TrainingRun
from search_core.training_measurement import TestImages
from store.epoch_reports import EpochResult
from store.models import Search
from store.sessions import transaction
from store.states import Reason
from tests.workers.conftest import RayCluster, Record, Start, tiny_training, wait_until
from tests.workers.test_ray_trials import EPOCHS, trial_processes
from tests.workers.test_runner import claim
from workers.inline_trials import InlineTrials
from workers.recording import StoreSink
from workers.runner import run
from workers.settings import WorkerSettings
from workers.trial_run import TrialRun

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]


def undisturbed(spec: RetrainingSpec, seed: int) -> dict[str, Any]:
    """What the search core alone makes of a training."""
    whole = TrainingRun(spec, seed)
    while not whole.finished:
        whole.run_epoch()
    return whole.result().to_plain()


def test_a_training_runs_to_its_results(
    engine: Engine, settings: WorkerSettings, submit_training: Submit, record: Recorder
) -> None:
    torch.set_num_threads(1)
    training = submit_training(trials={"seeds": [0, 3]})
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(training)
    spec = tiny_training()
    assert after.search.recommended_hash is None
    for trial in after.trials:
        assert (trial.status, trial.epoch) == ("succeeded", 2)
        assert trial.architecture_hash == spec.genotype.hash
        assert trial.best_validation_accuracy is not None
        assert trial.result == undisturbed(spec, trial.seed)
    assert after.kinds[5] == "training.best"
    # Which later epochs are better than all before, is the numbers' affair.
    assert [kind for kind in after.kinds if kind != "training.best"] == [
        "training.queued",
        "training.running",
        *["trial.starting", "trial.started", "trial.epoch", "trial.epoch", "trial.succeeded"] * 2,
        "training.succeeded",
    ]


def test_a_training_of_a_path_runs_to_its_result(
    engine: Engine, settings: WorkerSettings, submit_training: Submit, record: Recorder
) -> None:
    torch.set_num_threads(1)
    step = {"level": 0, "stride": 2, "in_channels": 2, "out_channels": 4, "operation": "conv"}
    of_a_path = {"architecture": {"final_channels": 4, "steps": [step]}, "network": {}}
    spec = tiny_training(**of_a_path)
    training = submit_training(**of_a_path)
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    (trial,) = record(training).trials
    assert trial.architecture_hash == spec.genotype.hash
    assert trial.result == undisturbed(spec, trial.seed)


class _LosesItsProcess(StoreSink):
    """A sink whose process ends right after an epoch's checkpoint, before it is recorded."""

    def epoch_ended(self, trial_id: UUID, result: EpochResult) -> None:
        if result.epoch == 2:
            raise KeyboardInterrupt
        super().epoch_ended(trial_id, result)


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_training_that_loses_its_process_ends_the_same(
    engine: Engine,
    settings: WorkerSettings,
    submit_training: Submit,
    record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    epochs: int,
) -> None:
    torch.set_num_threads(1)
    spec = tiny_training(training={"epochs": epochs})
    expected = undisturbed(spec, 0)
    training = submit_training(training={"epochs": epochs})
    lease = claim(engine)
    with monkeypatch.context() as patched:
        patched.setattr("workers.runner.StoreSink", _LosesItsProcess)
        with pytest.raises(KeyboardInterrupt):
            run(engine, lease, settings, InlineTrials())
    if epochs == 2:
        # Its last checkpoint has the result: nobody looks at the test images again.
        monkeypatch.setattr(TestImages, "measure", None)
    assert run(engine, lease, settings, InlineTrials()) == "succeeded"
    (trial,) = record(training).trials
    assert trial.result == expected
    started = [event for event in record(training).events if event.kind == "trial.started"]
    assert [event.data["from_epoch"] for event in started] == [0, 2]


def test_a_trial_of_a_training_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = tiny_training()
    whole = TrialRun(spec, 5, Folder(tmp_path / "whole"), tmp_path)
    expected = [whole.train_epoch() for _ in range(2)]
    first = TrialRun(spec, 5, Folder(tmp_path / "interrupted"), tmp_path)
    first.train_epoch()
    second = TrialRun(spec, 5, Folder(tmp_path / "interrupted"), tmp_path)
    assert second.from_epoch == 1
    results = [second.last_result, second.train_epoch()]
    for result, wanted in zip(results, expected, strict=True):
        assert result is not None
        assert reproducible(result.metrics) == reproducible(wanted.metrics)
    assert second.result() == whole.result()
    assert second.genotype() == spec.genotype


def test_a_training_that_diverges_fails_and_says_so(
    engine: Engine, settings: WorkerSettings, submit_training: Submit, record: Recorder
) -> None:
    training = submit_training(
        training={"learning_rate": 10.0, "weight_decay": 10.0, "batch_size": 64, "epochs": 4}
    )
    assert run(engine, claim(engine), settings, InlineTrials()) == "failed"
    after = record(training)
    assert after.search.reason == Reason.DIVERGED
    assert after.trials[0].result is None


def test_a_training_of_another_version_fails_at_once(
    engine: Engine, settings: WorkerSettings, submit_training: Submit, record: Recorder
) -> None:
    training = submit_training()
    with transaction(engine) as session:
        session.execute(update(Search).values(spec={"architecture": "OF_TOMORROW"}))
    assert run(engine, claim(engine), settings, InlineTrials()) == "failed"
    assert record(training).search.reason == Reason.INVALID_INPUT


@pytest.mark.ray
def test_a_training_on_ray_survives_the_loss_of_its_process(
    settings: WorkerSettings,
    start: Start,
    ray_cluster: RayCluster,
    submit_training: Submit,
    record: Recorder,
) -> None:
    torch.set_num_threads(1)
    start(
        DARTBOARD_EXECUTOR="ray",
        DARTBOARD_RAY_ADDRESS=ray_cluster.address,
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(ray_cluster.home / "run" / "ray-token"),
    )
    spec = tiny_training(training={"epochs": EPOCHS})
    training = submit_training(training={"epochs": EPOCHS})
    wait_until(lambda: record(training).kinds.count("trial.epoch") >= 2)
    (lost,) = trial_processes(record(training))
    lost.suspend()  # so that it cannot end before it is killed
    lost.kill()
    wait_until(lambda: record(training).search.ended_at)
    after = record(training)
    assert after.search.status == "succeeded", after.search.message
    assert "trial.interrupted" in after.kinds
    assert after.trials[0].result == undisturbed(spec, 0)
