"""What a runner records, twice as well as once, and never without its lease."""

import math
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from search_core import published
from store import architectures, endings, epoch_reports, events, leases, recording, searches
from store.epoch_reports import EpochResult, EpochWarning
from store.errors import LeaseLostError
from store.leases import Lease
from store.models import Trial
from store.sessions import transaction
from store.states import Reason
from tests.store.conftest import GENOTYPE, forget_pauses

Submit = Callable[..., UUID]
Claim = Callable[..., Lease]


def result(epoch: int, accuracy: float = 0.5, loss: float = 1.0) -> EpochResult:
    metrics = {"validation_accuracy": accuracy, "train_loss": loss}
    return EpochResult(epoch, metrics, GENOTYPE)


def trials_of(engine: Engine, search_id: UUID) -> list[Trial]:
    with transaction(engine) as session:
        return list(searches.trials(session, search_id))


def kinds_of(engine: Engine, search_id: UUID) -> list[str]:
    with transaction(engine) as session:
        return [event.kind for event in events.page(session, search_id)]


def test_the_whole_way_of_a_search(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit(trials={"seeds": [7, 8]})
    lease = claim()
    first, second = trials_of(engine, search_id)
    for trial, accuracy in ((first, 0.6), (second, 0.9)):
        with transaction(engine) as session:
            recording.trial_started(session, lease, trial.id, from_epoch=0, node="n1", pid=1)
        with transaction(engine) as session:
            epoch_reports.epoch_ended(session, lease, trial.id, result(1, accuracy))
        with transaction(engine) as session:
            recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
    with transaction(engine) as session:
        assert endings.finish(session, lease) == "succeeded"
    with transaction(engine) as session:
        search = searches.get(session, search_id)
        assert search.recommended_hash == GENOTYPE.hash
        assert "Trial 1 (seed 8)" in search.recommendation
        assert search.lease_token is None
        findings = architectures.findings(session, GENOTYPE.hash)
        assert [finding.trial.number for finding in findings] == [1, 0]
        assert architectures.families(session, GENOTYPE.hash) == ["darts"]
    assert kinds_of(engine, search_id) == [
        "search.queued",
        "search.running",
        *["trial.started", "trial.epoch", "search.best", "trial.succeeded"] * 2,
        "search.succeeded",
    ]


def test_only_what_no_trial_reached_before_is_a_new_best(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit(trials={"seeds": [7, 8]})
    lease = claim()
    first, second = (trial.id for trial in trials_of(engine, search_id))
    epochs = [
        *((first, 1, math.nan), (second, 1, 0.5), (first, 2, 0.5), (second, 2, 0.4)),
        *((second, 2, 0.9), (first, 3, 0.6), (second, 3, 0.55)),
    ]
    for trial_id, epoch, accuracy in epochs:
        with transaction(engine) as session:
            epoch_reports.epoch_ended(session, lease, trial_id, result(epoch, accuracy))
    with transaction(engine) as session:
        best = [event for event in events.page(session, search_id) if event.kind == "search.best"]
        assert searches.get(session, search_id).best_validation_accuracy == 0.6
    told = [(event.trial_id, event.data["epoch"], event.data["before"]) for event in best]
    # The second's second epoch, sent again with 0.9, was recorded before: it changes nothing.
    assert told == [(second, 1, None), (first, 3, 0.5)]
    assert best[-1].data["validation_accuracy"] == 0.6
    assert best[-1].data["genotype_hash"] == GENOTYPE.hash


def test_only_cells_have_families(engine: Engine, submit: Submit, claim: Claim) -> None:
    path = published.get("HYPERCUBOID_HANDMADE").genotype
    found = [
        ({"kind": "hypercuboid"}, path),
        ({"kind": "sharp_darts"}, GENOTYPE),
        ({"kind": "sharper_darts"}, GENOTYPE),
        ({"kind": "darts"}, GENOTYPE),
    ]
    for space, genotype in found:
        search_id = submit(space=space)
        lease = claim()
        (trial,) = trials_of(engine, search_id)
        with transaction(engine) as session:
            recording.trial_succeeded(session, lease, trial.id, genotype)
            endings.finish(session, lease)
    with transaction(engine) as session:
        assert architectures.families(session, GENOTYPE.hash) == ["darts", "sharp"]
        assert architectures.families(session, path.hash) == []


def test_an_epoch_recorded_twice_is_there_once(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    (trial,) = trials_of(engine, search_id)
    for _ in range(2):
        with transaction(engine) as session:
            epoch_reports.epoch_ended(session, lease, trial.id, result(1))
    assert kinds_of(engine, search_id).count("trial.epoch") == 1
    with transaction(engine) as session:
        assert len(searches.metrics(session, trial.id)) == 2


def test_the_alphas_of_an_epoch_are_kept_as_they_were(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    (trial,) = trials_of(engine, search_id)
    # A third has no end in binary: it must come back to the bit.
    tables = {epoch: {"normal": [[1 / 3, 2 / 3], [0.1, 0.9]]} for epoch in (1, 2, 3)}
    with transaction(engine) as session:
        assert searches.last_alphas(session, trial.id) is None
    for epoch in (1, 2, 2, 3):
        reported = EpochResult(epoch, {}, GENOTYPE, alphas=tables[epoch])
        with transaction(engine) as session:
            epoch_reports.epoch_ended(session, lease, trial.id, reported)
    with transaction(engine) as session:
        kept = searches.alphas(session, trial.id)
        assert {row.step: row.weights for row in kept} == tables
        later = searches.alphas(session, trial.id, after_step=1, limit=1)
        assert [row.step for row in later] == [2]
        last = searches.last_alphas(session, trial.id)
        assert last is not None
        assert last.step == 3


def test_series_are_chosen_by_name_and_by_how_it_begins(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    (trial,) = trials_of(engine, search_id)
    values = {"marginal.a=1": 0.5, "marginal.b=1": 0.5, "marginalX": 1.0, "loss": 2.0, "l_ss": 3.0}
    with transaction(engine) as session:
        epoch_reports.epoch_ended(session, lease, trial.id, EpochResult(1, values, GENOTYPE))
    for names, expected in (
        (["marginal.*"], ["marginal.a=1", "marginal.b=1"]),
        (["marginal.b*", "loss"], ["loss", "marginal.b=1"]),
        (["l_*"], ["l_ss"]),  # no wildcard of SQL's own
    ):
        with transaction(engine) as session:
            points = searches.metrics(session, trial.id, names=names)
        assert [point.name for point in points] == expected


def test_the_history_of_genotypes_can_be_read_and_warnings_are_events(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    (trial,) = trials_of(engine, search_id)
    warned = EpochResult(1, {}, GENOTYPE, (EpochWarning("collapse", "All skips."),))
    for _ in range(2):
        with transaction(engine) as session:
            epoch_reports.epoch_ended(session, lease, trial.id, warned)
    with transaction(engine) as session:
        epoch, warning = events.page(session, search_id, after=2)
        stored = architectures.get(session, epoch.data["genotype_hash"])
        assert stored.genotype == GENOTYPE.model_dump(mode="json")
        assert warning.kind == "trial.warning"
        assert warning.data == {"epoch": 1, "kind": "collapse", "message": "All skips."}


def test_the_relaxation_is_the_one_told_last(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit()
    lease = claim()
    (trial,) = trials_of(engine, search_id)
    assert trial.relaxation is None
    seen = []
    writes: tuple[Callable[[Session], object], ...] = (
        lambda s: recording.trial_started(
            s, lease, trial.id, from_epoch=0, node="n", pid=1, relaxation="fast"
        ),
        lambda s: epoch_reports.epoch_ended(s, lease, trial.id, result(1)),
        lambda s: epoch_reports.epoch_ended(
            s, lease, trial.id, EpochResult(2, {}, GENOTYPE, relaxation="plain")
        ),
        # An epoch that was recorded before, of the time before.
        lambda s: epoch_reports.epoch_ended(
            s, lease, trial.id, EpochResult(2, {}, GENOTYPE, relaxation="fast")
        ),
    )
    for write in writes:
        with transaction(engine) as session:
            write(session)
        seen.append(trials_of(engine, search_id)[0].relaxation)
    assert seen == ["fast", "fast", "plain", "plain"]
    with transaction(engine) as session:
        [started] = [e for e in events.page(session, search_id) if e.kind == "trial.started"]
    assert started.data["relaxation"] == "fast"


def test_an_earlier_epoch_does_not_set_a_trial_back(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    (trial,) = trials_of(engine, search_id)
    for epoch, accuracy in ((1, 0.8), (2, 0.7), (1, 0.8)):
        with transaction(engine) as session:
            epoch_reports.epoch_ended(session, lease, trial.id, result(epoch, accuracy))
    (trial,) = trials_of(engine, search_id)
    assert trial.epoch == 2
    assert trial.metrics["validation_accuracy"] == 0.7
    assert trial.best_validation_accuracy == 0.8


def test_values_that_are_not_finite_are_kept(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit()
    lease = claim()
    (trial,) = trials_of(engine, search_id)
    with transaction(engine) as session:
        epoch_reports.epoch_ended(session, lease, trial.id, result(1, loss=math.inf))
    with transaction(engine) as session:
        (point,) = searches.metrics(session, trial.id, names=["train_loss"])
        assert point.value == math.inf
        event = events.page(session, search_id)[-2]
        assert event.data["metrics"]["train_loss"] is None


def test_a_runner_without_its_lease_writes_nothing(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim(duration=timedelta(0))
    with transaction(engine) as session:
        leases.expire(session, max_failures=3)
    before = kinds_of(engine, search_id)
    (trial,) = trials_of(engine, search_id)
    writes: tuple[Callable[[Session], object], ...] = (
        lambda s: recording.trial_started(s, lease, trial.id, from_epoch=0, node="n", pid=1),
        lambda s: epoch_reports.epoch_ended(s, lease, trial.id, result(1)),
        lambda s: epoch_reports.epoch_ended(
            s, lease, trial.id, EpochResult(1, {}, GENOTYPE, alphas={"normal": [[1.0]]})
        ),
        lambda s: recording.trial_succeeded(s, lease, trial.id, GENOTYPE),
        lambda s: recording.trial_failed(s, lease, trial.id, reason=Reason.DIVERGED, message="no"),
        lambda s: recording.trial_interrupted(
            s, lease, trial.id, reason=Reason.NODE_LOST, message="no"
        ),
        lambda s: recording.trial_stopped(s, lease, trial.id, GENOTYPE, message="no"),
        lambda s: recording.trials_suggested(s, lease, [trial.id], {}, 3),
        lambda s: recording.all_trials(s, lease),
        lambda s: epoch_reports.recorded_epochs(s, lease),
        lambda s: endings.finish(s, lease),
        lambda s: endings.cancelled(s, lease),
    )
    for write in writes:
        with pytest.raises(LeaseLostError), transaction(engine) as session:
            write(session)
    assert kinds_of(engine, search_id) == before
    assert trials_of(engine, search_id)[0].status == "queued"
    with transaction(engine) as session:
        assert searches.last_alphas(session, trial.id) is None


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ([Reason.DIVERGED, Reason.DIVERGED], Reason.DIVERGED),
        ([Reason.DIVERGED, Reason.OUT_OF_MEMORY], Reason.TRIALS_FAILED),
    ],
)
def test_a_search_without_a_result_fails_with_the_trials_reason(
    engine: Engine,
    submit: Submit,
    claim: Claim,
    reasons: list[Reason],
    expected: Reason,
) -> None:
    search_id = submit(trials={"seeds": [0, 1]})
    lease = claim()
    for trial, reason in zip(trials_of(engine, search_id), reasons, strict=True):
        with transaction(engine) as session:
            recording.trial_failed(session, lease, trial.id, reason=reason, message="Lower it.")
    with transaction(engine) as session:
        assert endings.finish(session, lease) == "failed"
    with transaction(engine) as session:
        search = searches.get(session, search_id)
        assert search.reason == expected
        assert "Lower it." in search.message


def test_only_a_further_epoch_forgives_earlier_crashes(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    for epoch, failures in ((1, 0), (1, 1), (1, 2), (2, 0)):
        forget_pauses(engine)
        lease = claim()
        (trial,) = trials_of(engine, search_id)
        with transaction(engine) as session:
            # What a resumed trial reports first is the epoch of its checkpoint.
            epoch_reports.epoch_ended(session, lease, trial.id, result(epoch))
        with transaction(engine) as session:
            assert searches.get(session, search_id).failures == failures
            leases.give_back(
                session, lease, reason=Reason.RUNNER_CRASHED, message="It died.", max_failures=9
            )


def test_an_ended_trial_does_not_start_again(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit()
    lease = claim()
    (trial,) = trials_of(engine, search_id)
    with transaction(engine) as session:
        recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
        recording.trial_started(session, lease, trial.id, from_epoch=0, node="n", pid=1)
    assert trials_of(engine, search_id)[0].status == "succeeded"
    assert "trial.started" not in kinds_of(engine, search_id)


def test_one_failed_trial_does_not_spoil_the_others(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit(trials={"seeds": [0, 1]})
    lease = claim()
    first, second = trials_of(engine, search_id)
    with transaction(engine) as session:
        recording.trial_failed(
            session, lease, first.id, reason=Reason.DIVERGED, message="Not finite."
        )
        epoch_reports.epoch_ended(session, lease, second.id, result(1))
        recording.trial_succeeded(session, lease, second.id, GENOTYPE)
        endings.finish(session, lease)
    with transaction(engine) as session:
        search = searches.get(session, search_id)
        assert search.status == "succeeded"
        assert search.message == "1 of 2 trials failed."


def test_a_requeued_search_keeps_what_its_trials_finished(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit(trials={"seeds": [0, 1]})
    lease = claim()
    first, second = trials_of(engine, search_id)
    with transaction(engine) as session:
        recording.trial_started(session, lease, second.id, from_epoch=0, node="n", pid=1)
        recording.trial_succeeded(session, lease, first.id, GENOTYPE)
        leases.give_back(
            session, lease, reason=Reason.RUNNER_CRASHED, message="It died.", max_failures=3
        )
    forget_pauses(engine)
    again = claim()
    with transaction(engine) as session:
        assert [trial.id for trial in recording.open_trials(session, again)] == [second.id]
