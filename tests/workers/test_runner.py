"""A runner's whole work, with trials in its own process."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, update

from search_core.pace import reproducible
from search_core.relaxation import RunningStatistics
from store import leases, searches
from store.errors import LeaseLostError
from store.leases import Capacity, Lease, Node
from store.models import Search
from store.sessions import transaction
from store.states import Reason
from tests.workers.conftest import Record
from workers.inline_trials import InlineTrials
from workers.runner import make_executor, run
from workers.settings import WorkerSettings
from workers.trials import EarlyStopping, ExecutorError, TrialPlans, TrialSink


def claim(engine: Engine) -> Lease:
    with transaction(engine) as session:
        lease = leases.claim(
            session,
            Capacity((Node(cpus=8),)),
            holder="test",
            duration=timedelta(minutes=1),
        )
    assert lease is not None
    return lease


def test_a_search_runs_to_its_recommendation(
    engine: Engine,
    settings: WorkerSettings,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
) -> None:
    search_id = submit(trials={"seeds": [0, 1]})
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search_id)
    assert after.search.recommended_hash in {trial.architecture_hash for trial in after.trials}
    for trial in after.trials:
        assert (trial.status, trial.epoch) == ("succeeded", 2)
        with transaction(engine) as session:
            points = searches.metrics(session, trial.id)
        assert {(point.name, point.step) for point in points} == {
            (name, step) for name in trial.metrics for step in (1, 2)
        }


def test_a_trial_that_diverges_fails_and_says_so(
    engine: Engine,
    settings: WorkerSettings,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
) -> None:
    # Each step multiplies the weights by 1 - learning rate * weight decay = -99.
    search_id = submit(
        training={"learning_rate": 10.0, "weight_decay": 10.0, "batch_size": 64, "epochs": 4}
    )
    assert run(engine, claim(engine), settings, InlineTrials()) == "failed"
    after = record(search_id)
    assert after.search.reason == Reason.DIVERGED
    assert "epoch" in after.search.message
    assert after.kinds[-2:] == ["trial.failed", "search.failed"]


def test_a_search_whose_plan_is_wrong_goes_on_plainly_and_says_so(
    engine: Engine,
    settings: WorkerSettings,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
) -> None:
    whole = submit(algorithm={"relaxation": "plain"})
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    (plain,) = record(whole).trials
    assert plain.relaxation == "plain"

    right = RunningStatistics.record_biased
    search_id = submit()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(
            RunningStatistics,
            "record_biased",
            lambda self, norm, mean_c, *given: right(self, norm, mean_c + 0.1, *given),
        )
        assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    after = record(search_id)
    (trial,) = after.trials
    [started] = [event for event in after.events if event.kind == "trial.started"]
    [warning] = [event for event in after.events if event.kind == "trial.warning"]
    assert started.data["relaxation"] == "fast"
    assert warning.data["epoch"] == 1
    assert warning.data["kind"] == "relaxation_fell_back"
    assert "results are right" in warning.data["message"]
    assert trial.relaxation == "plain"
    assert reproducible(trial.metrics) == reproducible(plain.metrics)
    assert trial.architecture_hash == plain.architecture_hash


class _Stubborn:
    """An executor that comes back without having ended its trials."""

    def run(
        self,
        plans: TrialPlans,
        sink: TrialSink,
        stopping: EarlyStopping | None,
        halt: threading.Event,
    ) -> None:
        """Runs nothing."""


def test_a_trial_that_ends_without_a_word_is_tried_again(
    engine: Engine, settings: WorkerSettings, submit: Callable[..., UUID]
) -> None:
    submit()
    with pytest.raises(ExecutorError, match="without a result") as raised:
        run(engine, claim(engine), settings, _Stubborn())
    assert raised.value.reason is Reason.RUNNER_CRASHED


class _HaltedForAMoment(InlineTrials):
    """Is asked to halt while it starts its trials, and not to when they have stopped for that."""

    runs = 0

    def run(
        self,
        plans: TrialPlans,
        sink: TrialSink,
        stopping: EarlyStopping | None,
        halt: threading.Event,
    ) -> None:
        """Runs nothing the first time."""
        self.runs += 1
        if self.runs == 1:
            halt.set()
        super().run(plans, sink, stopping, halt)
        halt.clear()


def test_a_pause_that_is_withdrawn_when_trials_have_stopped_costs_no_crash(
    engine: Engine,
    settings: WorkerSettings,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
) -> None:
    search_id = submit()
    executor = _HaltedForAMoment(max_failures=0)
    assert run(engine, claim(engine), settings, executor) == "succeeded"
    assert executor.runs == 2
    assert record(search_id).search.failures == 0


def test_a_spec_of_another_version_fails_at_once(
    engine: Engine,
    settings: WorkerSettings,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
) -> None:
    search_id = submit()
    with engine.begin() as connection:
        connection.execute(update(Search).values(spec={"space": {"kind": "of tomorrow"}}))
    assert run(engine, claim(engine), settings, InlineTrials()) == "failed"
    after = record(search_id)
    assert after.search.reason == Reason.INVALID_INPUT
    assert "submit it again" in after.search.message


def test_a_folder_that_cannot_be_written_to_is_named(
    engine: Engine,
    settings: WorkerSettings,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
    tmp_path: Path,
) -> None:
    search_id = submit()
    storage = tmp_path / "storage"
    storage.write_text("a file where a folder should be")
    blocked = settings.model_copy(update={"storage": str(storage)})
    assert run(engine, claim(engine), blocked, InlineTrials()) == "failed"
    after = record(search_id)
    assert after.search.reason == Reason.STORAGE_UNAVAILABLE
    assert str(storage) in after.search.message
    assert "earlier checkpoints are untouched" in after.search.message.lower()


def test_a_lost_lease_stops_the_runner_without_a_trace(
    engine: Engine,
    settings: WorkerSettings,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
) -> None:
    search_id = submit()
    lease = claim(engine)
    with transaction(engine) as session:
        leases.give_back(
            session, lease, reason=Reason.RUNNER_CRASHED, message="It died.", max_failures=3
        )
    before = record(search_id).kinds
    with pytest.raises(LeaseLostError):
        run(engine, lease, settings, InlineTrials())
    assert record(search_id).kinds == before


def test_without_a_cluster_the_error_says_what_to_set(settings: WorkerSettings) -> None:
    lease = Lease(UUID(int=0), UUID(int=1), 1)
    with pytest.raises(ExecutorError, match="DARTBOARD_RAY_ADDRESS"):
        make_executor(settings.model_copy(update={"executor": "ray"}), lease)
