"""Trainings are rows of the same table: what they share with searches, and what they do not."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import text

from store import architectures, endings, epoch_reports, events, leases, recording, searches, verbs
from store.epoch_reports import EpochResult
from store.errors import IllegalTransitionError, NotFoundError
from store.jobs import parse_spec
from store.leases import Lease
from store.searches import SearchFilter
from store.sessions import transaction
from store.states import JobKind, Reason
from tests.store.conftest import GENOTYPE, training_spec

RESULT = {
    "last": {"epoch": 3, "loss": float("inf"), "accuracy": 0.9, "extra_accuracies": {}},
    "best": None,
}


@pytest.fixture
def training(engine: Engine) -> UUID:
    with transaction(engine) as session:
        return searches.submit(
            session, training_spec(trials={"seeds": [4, 5]}, priority=3, labels={"a": "b"})
        ).id


def kinds(engine: Engine, job_id: UUID) -> list[str]:
    with transaction(engine) as session:
        return [event.kind for event in events.page(session, job_id)]


def test_a_training_is_stored_with_its_spec_and_trials(engine: Engine, training: UUID) -> None:
    with transaction(engine) as session:
        row = searches.get(session, training, JobKind.TRAINING)
        assert (row.kind, row.space_kind, row.priority, row.labels) == (
            "training",
            None,
            3,
            {"a": "b"},
        )
        assert parse_spec(JobKind(row.kind), row.spec) == training_spec(
            trials={"seeds": [4, 5]}, priority=3, labels={"a": "b"}
        )
        assert [trial.seed for trial in searches.trials(session, training)] == [4, 5]


def test_a_training_runs_to_its_results_and_recommends_nothing(
    engine: Engine, training: UUID, claim: Callable[..., Lease]
) -> None:
    lease = claim()
    assert lease.search_id == training
    with transaction(engine) as session:
        first, second = recording.open_trials(session, lease)
        epoch_reports.epoch_ended(
            session, lease, first.id, EpochResult(1, {"train_loss": 0.5}, GENOTYPE)
        )
        for trial in (first, second):
            recording.trial_succeeded(session, lease, trial.id, GENOTYPE, RESULT)
            # Told again by a trial whose report was lost on its way.
            recording.trial_succeeded(session, lease, trial.id, GENOTYPE, RESULT)
        assert endings.finish(session, lease) == "succeeded"
    assert kinds(engine, training) == [
        "training.queued",
        "training.running",
        "trial.epoch",
        "trial.succeeded",
        "trial.succeeded",
        "training.succeeded",
    ]
    with transaction(engine) as session:
        row = searches.get(session, training)
        assert (row.recommended_hash, row.recommendation) == (None, "")
        trial = searches.trials(session, training)[0]
        assert trial.architecture_hash == GENOTYPE.hash
        assert trial.result is not None
        assert trial.result["last"] == {**RESULT["last"], "loss": None}  # type: ignore[dict-item]
        assert trial.best_validation_accuracy is None
        # It was given the architecture, and did not find it.
        assert architectures.get(session, GENOTYPE.hash).kind == "cell"
        assert architectures.findings(session, GENOTYPE.hash) == []
        assert architectures.families(session, GENOTYPE.hash) == []


def test_a_trial_of_a_search_has_no_result(
    engine: Engine, submit: Callable[..., UUID], claim: Callable[..., Lease]
) -> None:
    search_id = submit()
    lease = claim()
    with transaction(engine) as session:
        (trial,) = recording.open_trials(session, lease)
        recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
        endings.finish(session, lease)
    with transaction(engine) as session:
        assert searches.trials(session, search_id)[0].result is None
        # SQL's null, not JSON's.
        nulls = session.scalar(text("SELECT count(*) FROM trials WHERE result IS NULL"))
        assert nulls == 1
        assert searches.get(session, search_id).recommended_hash == GENOTYPE.hash


def test_lists_and_lookups_tell_the_kinds_apart(
    engine: Engine, training: UUID, submit: Callable[..., UUID]
) -> None:
    search_id = submit()
    with transaction(engine) as session:
        for kind, mine, other in (
            (JobKind.SEARCH, search_id, training),
            (JobKind.TRAINING, training, search_id),
        ):
            page = searches.list_page(session, SearchFilter(kind=kind), limit=9)
            assert [row.id for row in page.searches] == [mine]
            assert searches.get(session, mine, kind).id == mine
            for look in (searches.get, searches.trials, verbs.request_cancel):
                with pytest.raises(NotFoundError, match=f"no {kind} {other}"):
                    look(session, other, kind)
        assert len(searches.list_page(session, SearchFilter(), limit=9).searches) == 2


def test_both_kinds_wait_in_one_queue(
    engine: Engine, training: UUID, submit: Callable[..., UUID], claim: Callable[..., Lease]
) -> None:
    urgent, late = submit(priority=4), submit(priority=3)
    assert [claim().search_id for _ in range(3)] == [urgent, training, late]


def test_a_training_is_given_back_and_cancelled_like_a_search(
    engine: Engine, training: UUID, claim: Callable[..., Lease]
) -> None:
    lease = claim()
    with transaction(engine) as session:
        leases.give_back(session, lease, reason=Reason.SHUTDOWN, message="Stop.", max_failures=1)
    with transaction(engine) as session:
        assert verbs.request_cancel(session, training, JobKind.TRAINING).status == "cancelled"
    assert kinds(engine, training)[2:] == ["training.requeued", "training.cancelled"]


def test_an_ended_training_is_named_as_one_when_it_refuses(
    engine: Engine, training: UUID, claim: Callable[..., Lease]
) -> None:
    lease = claim()
    with transaction(engine) as session:
        for trial in recording.open_trials(session, lease):
            recording.trial_failed(
                session, lease, trial.id, reason=Reason.DIVERGED, message="It diverged."
            )
        assert endings.finish(session, lease) == "failed"
    with (
        pytest.raises(IllegalTransitionError, match=f"training {training} is failed"),
        transaction(engine) as session,
    ):
        verbs.request_cancel(session, training)


@pytest.mark.parametrize("change", ["kind = 'game'", "kind = 'search'", "space_kind = 'darts'"])
def test_the_tables_refuse_a_kind_that_does_not_fit(
    engine: Engine, training: UUID, change: str
) -> None:
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(f"UPDATE searches SET {change}"))
