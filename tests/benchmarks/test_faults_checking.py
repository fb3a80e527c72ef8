"""The checks of `benchmarks.faults` see what a fault could do; records of a store are made up."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from benchmarks.faults.checking import check
from benchmarks.faults.injecting import Fault, Injected, Moment, seconds_until_on
from benchmarks.faults.mix import MIX, Kind, Steering
from benchmarks.faults.records import (
    EventRecord,
    ExpectedEpoch,
    ExpectedTrial,
    JobRecord,
    TrialRecord,
)
from search_core.pace import OF_THE_MACHINE
from store.states import JobKind

PLAIN = next(kind for kind in MIX if kind.steering is Steering.NOTHING and "order" in kind.name)
CANCELLED = next(kind for kind in MIX if kind.steering is Steering.CANCEL)
ASHA = next(kind for kind in MIX if "ASHA" in kind.name)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

EXPECTED = (
    ExpectedTrial(
        tuple(
            ExpectedEpoch(
                {"train_loss": 1 / epoch, "validation_accuracy": epoch / 10},
                OF_THE_MACHINE,
                {"normal": [[0.25, epoch / 4]]},
                f"hash {epoch}",
            )
            for epoch in (1, 2, 3)
        ),
        None,
    ),
)


def events_of(trial_id: UUID, *told: tuple[str, dict[str, Any]]) -> tuple[EventRecord, ...]:
    return tuple(
        EventRecord(
            number,
            kind,
            trial_id if kind.startswith("trial.") else None,
            data,
            BEGAN + timedelta(seconds=number),
        )
        for number, (kind, data) in enumerate(told, start=1)
    )


def epoch(number: int) -> tuple[str, dict[str, Any]]:
    return "trial.epoch", {"epoch": number, "genotype_hash": f"hash {number}"}


RUNNING_1 = ("search.running", {"attempt": 1})
RUNNING_2 = ("search.running", {"attempt": 2})
STARTED_1 = ("trial.started", {"attempt": 1, "from_epoch": 0})
STARTED_2 = ("trial.started", {"attempt": 2, "from_epoch": 1})
CRASHED = ("search.requeued", {"attempt": 1, "reason": "runner_crashed"})
QUEUED: tuple[str, dict[str, Any]] = ("search.queued", {})
TRIAL_DONE: tuple[str, dict[str, Any]] = ("trial.succeeded", {})
DONE = ("search.succeeded", {"attempt": 2})
WHOLE = (
    QUEUED, RUNNING_1, STARTED_1, epoch(1), CRASHED, RUNNING_2, STARTED_2, epoch(2), epoch(3),
    TRIAL_DONE, DONE,
)  # fmt: skip


def job_with(*told: tuple[str, dict[str, Any]], last_epoch: int = 3) -> JobRecord:
    """A search that was interrupted once and ended as it should; or of which other events tell."""
    trial_id = uuid4()
    events = events_of(trial_id, *(told or WHOLE))
    trial = TrialRecord(
        id=trial_id,
        number=0,
        status="succeeded",
        epoch=last_epoch,
        epochs=3,
        architecture=f"hash {last_epoch}",
        result=None,
        metrics=tuple(
            (name, step, value)
            for step, each in enumerate(EXPECTED[0].epochs[:last_epoch], start=1)
            for name, value in {**each.metrics, **dict.fromkeys(OF_THE_MACHINE, 7.0)}.items()
        ),
        alphas={
            step: each.alphas for step, each in enumerate(EXPECTED[0].epochs[:last_epoch], start=1)
        },
    )
    return JobRecord(
        id=uuid4(),
        kind=JobKind.SEARCH,
        name="one",
        status="succeeded",
        attempt=2,
        last_event=len(events),
        recommended="hash 3",
        trials=(trial,),
        events=events,
    )


def changed(job: JobRecord, **fields: Any) -> JobRecord:
    return replace(job, trials=(replace(job.trials[0], **fields),))


def test_what_was_interrupted_and_went_on_is_right() -> None:
    assert check(job_with(), PLAIN, EXPECTED) == []


@pytest.mark.parametrize(
    ("finding", "damage"),
    [
        (
            "validation_accuracy is missing after epoch 3",
            lambda job: changed(
                job,
                metrics=tuple(
                    point
                    for point in job.trials[0].metrics
                    if point[:2] != ("validation_accuracy", 3)
                ),
            ),
        ),
        (
            "seconds is missing after epoch 2",
            lambda job: changed(
                job,
                metrics=tuple(
                    point for point in job.trials[0].metrics if point[:2] != ("seconds", 2)
                ),
            ),
        ),
        (
            "train_loss is doubled after epoch 1",
            lambda job: changed(job, metrics=(*job.trials[0].metrics, ("train_loss", 1, 1.0))),
        ),
        (
            "train_loss is there after epoch 4, and should not be",
            lambda job: changed(job, metrics=(*job.trials[0].metrics, ("train_loss", 4, 0.25))),
        ),
        (
            "train_loss is 0.5000000000000001 after epoch 2, undisturbed 0.5",
            lambda job: changed(
                job,
                metrics=tuple(
                    (name, step, 0.5000000000000001 if (name, step) == ("train_loss", 2) else value)
                    for name, step, value in job.trials[0].metrics
                ),
            ),
        ),
        (
            "other alphas than undisturbed after epoch 2",
            lambda job: changed(
                job, alphas={**job.trials[0].alphas, 2: {"normal": [[0.25, 0.51]]}}
            ),
        ),
        (
            "alphas are there after the epochs [1, 2]",
            lambda job: changed(job, alphas={step: job.trials[0].alphas[step] for step in (1, 2)}),
        ),
        ("another genotype than undisturbed", lambda job: changed(job, architecture="hash 2")),
        ("it recommends hash 1", lambda job: replace(job, recommended="hash 1")),
        ("it is failed instead of succeeded", lambda job: replace(job, status="failed")),
        ("result: it failed", lambda job: changed(job, status="failed")),
        ("result: it stopped", lambda job: changed(job, status="stopped")),
        ("another result on the test images", lambda job: changed(job, result={"last": 1})),
        ("3 attempts are counted", lambda job: replace(job, attempt=3)),
        ("not numbered 1 to 12", lambda job: replace(job, last_event=12)),
        ("0 trials instead of 1", lambda job: replace(job, trials=())),
    ],
)
def test_a_damaged_store_is_seen(finding: str, damage: Callable[[JobRecord], JobRecord]) -> None:
    findings = check(damage(job_with()), PLAIN, EXPECTED)
    assert any(finding in each for each in findings), findings


@pytest.mark.parametrize(
    ("finding", "told"),
    [
        ("it ended 2 times", (*WHOLE, DONE)),
        ("it ended 2 times", (*WHOLE[:-1], ("search.cancelled", {"attempt": 2}),
                              ("search.requeued", {"attempt": 2, "reason": "retried"}), DONE)),
        ("running follows running", (*WHOLE[:4], *WHOLE[5:])),
        ("attempt 1 follows 1", (*WHOLE[:5], RUNNING_1, *WHOLE[6:])),
        ("a trial of attempt 1 started during 2", (*WHOLE[:6], STARTED_1, *WHOLE[7:])),
        ("its epochs were told as [1, 3]", (*WHOLE[:7], *WHOLE[8:])),
        ("its epochs were told as [1, 1, 2, 3]", (*WHOLE[:7], epoch(1), *WHOLE[7:])),
        ("while nobody ran it", (*WHOLE[:3], CRASHED, epoch(1), *WHOLE[5:])),
        ("the end of a trial was told 2 times", (*WHOLE[:10], TRIAL_DONE, DONE)),
        ("the end of a trial was told 0 times", (*WHOLE[:9], DONE)),
        ("its last state is no end", WHOLE[:-1]),
        ("it did not begin in the queue", WHOLE[1:]),
        (
            "another genotype after epoch 2",
            (*WHOLE[:7], ("trial.epoch", {"epoch": 2, "genotype_hash": "other"}), *WHOLE[8:]),
        ),
    ],
)  # fmt: skip
def test_a_life_that_cannot_be_is_seen(
    finding: str, told: tuple[tuple[str, dict[str, Any]], ...]
) -> None:
    findings = check(job_with(*told), PLAIN, EXPECTED)
    assert any(finding in each for each in findings), findings


def cancelled_once() -> JobRecord:
    return job_with(
        *WHOLE[:4],
        ("search.cancelled", {"attempt": 1, "reason": "cancelled_by_user"}),
        ("search.requeued", {"attempt": 1, "reason": "retried"}),
        *WHOLE[5:],
    )


@pytest.mark.parametrize(("kind", "is_right"), [(CANCELLED, True), (PLAIN, False)])
def test_only_who_cancels_and_retries_sees_two_ends(kind: Kind, is_right: bool) -> None:
    assert (check(cancelled_once(), kind, EXPECTED) == []) is is_right


def test_a_trial_that_a_scheduler_stopped_has_the_epochs_up_to_there() -> None:
    told: tuple[tuple[str, dict[str, Any]], ...] = (*WHOLE[:8], ("trial.stopped", {}), DONE)
    stopped = changed(job_with(*told, last_epoch=2), status="stopped")
    stopped = replace(stopped, recommended=None)
    assert check(stopped, ASHA, EXPECTED) == []
    assert check(stopped, PLAIN, EXPECTED) != []


def test_how_long_a_fault_is_felt_is_told_by_the_slowest_search_and_part() -> None:
    one, other = uuid4(), uuid4()
    fault = Injected(1, Fault.POSTGRES, Moment.ANY, "PostgreSQL", 100.0, (one, other))
    told = {one: [99.0, 103.0, 120.0], other: [90.0, 107.5]}
    assert seconds_until_on(fault, told) == 7.5
    fault.back_at = 109.0
    assert seconds_until_on(fault, told) == 9.0
    assert seconds_until_on(replace(fault, hit=(), back_at=None), told) is None
