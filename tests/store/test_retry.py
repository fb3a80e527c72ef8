"""Running a failed trial again: what it changes, who is refused, and two at once."""

import threading
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from store import endings, events, recording, searches, verbs
from store.errors import NotFoundError, NotRetryableError
from store.leases import Lease
from store.models import Search, Trial
from store.sessions import transaction
from store.states import Reason
from tests.store.conftest import GENOTYPE

Submit = Callable[..., UUID]
Claim = Callable[..., Lease]


def end(engine: Engine, lease: Lease, *ends: str) -> None:
    """Ends the open trials, and the search."""
    with transaction(engine) as session:
        for trial, ending in zip(recording.open_trials(session, lease), ends, strict=True):
            if ending == "succeeded":
                recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
            elif ending == "stopped":
                recording.trial_stopped(session, lease, trial.id, GENOTYPE, message="Weak.")
            else:
                recording.trial_failed(
                    session, lease, trial.id, reason=Reason.DIVERGED, message="It diverged."
                )
        endings.finish(session, lease)


def now(engine: Engine, search_id: UUID) -> tuple[Search, list[Trial], list[str]]:
    with transaction(engine) as session:
        return (
            searches.get(session, search_id),
            list(searches.trials(session, search_id)),
            [event.kind for event in events.page(session, search_id)],
        )


def retry(engine: Engine, trial_id: UUID) -> Trial:
    with transaction(engine) as session:
        return verbs.retry_trial(session, trial_id)


@pytest.mark.parametrize("ends", [("failed", "succeeded"), ("failed", "failed")])
def test_an_ended_search_goes_back_to_the_end_of_the_queue_for_one_trial(
    engine: Engine, submit: Submit, claim: Claim, ends: tuple[str, str]
) -> None:
    search_id = submit(trials={"seeds": [0, 1]})
    end(engine, claim(), *ends)
    before, trials, _ = now(engine, search_id)
    later = submit()
    for _ in range(2):
        trial = retry(engine, trials[0].id)
        assert (trial.status, trial.reason, trial.ended_at) == ("queued", None, None)
    search, after, kinds = now(engine, search_id)
    assert (search.status, search.reason, search.ended_at) == ("queued", "retried", None)
    assert search.recommended_hash is None
    assert search.queued_at > before.queued_at
    assert after[1].status == ends[1]
    assert kinds[-2:] == ["trial.retried", "search.requeued"]
    assert claim().search_id == later
    lease = claim()
    with transaction(engine) as session:
        assert [each.id for each in recording.open_trials(session, lease)] == [trials[0].id]
    end(engine, lease, "succeeded")
    search, after, _ = now(engine, search_id)
    assert search.status == "succeeded"
    assert search.recommended_hash == GENOTYPE.hash


def test_two_at_once_queue_it_once(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit()
    end(engine, claim(), "failed")
    _, (trial,), _ = now(engine, search_id)
    threads = [threading.Thread(target=retry, args=(engine, trial.id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    search, _, kinds = now(engine, search_id)
    assert search.status == "queued"
    assert kinds.count("trial.retried") == kinds.count("search.requeued") == 1


def test_a_search_that_runs_does_not_end_before_the_trial_has_run_again(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    with transaction(engine) as session:
        (trial,) = recording.open_trials(session, lease)
        recording.trial_failed(session, lease, trial.id, reason=Reason.DIVERGED, message="No.")
    assert retry(engine, trial.id).status == "queued"
    with transaction(engine) as session:
        assert endings.finish(session, lease) is None
    assert now(engine, search_id)[0].status == "running"
    end(engine, lease, "succeeded")
    assert now(engine, search_id)[0].status == "succeeded"


@pytest.mark.parametrize("ending", ["succeeded", "stopped"])
def test_what_has_its_result_is_not_run_again(
    engine: Engine, submit: Submit, claim: Claim, ending: str
) -> None:
    search_id = submit()
    end(engine, claim(), ending)
    _, (trial,), kinds = now(engine, search_id)
    with pytest.raises(NotRetryableError, match="has its result"):
        retry(engine, trial.id)
    assert now(engine, search_id)[2] == kinds


def test_what_was_cancelled_is_not_run_again(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit(trials={"seeds": [0, 1]})
    lease = claim()
    with transaction(engine) as session:
        first = recording.open_trials(session, lease)[0].id
        recording.trial_failed(session, lease, first, reason=Reason.DIVERGED, message="No.")
        verbs.request_cancel(session, search_id)
    with pytest.raises(NotRetryableError, match="submit the spec again"):
        retry(engine, first)  # asked to stop, and stops within seconds
    with transaction(engine) as session:
        endings.cancelled(session, lease)
    for trial in now(engine, search_id)[1]:
        with pytest.raises(NotRetryableError, match="submit the spec again"):
            retry(engine, trial.id)


def test_a_trial_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(NotFoundError):
        retry(engine, uuid4())


def test_only_stopped_and_failed_trials_make_no_recommendation(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit(trials={"seeds": [0, 1, 2]})
    end(engine, claim(), "failed", "stopped", "stopped")
    search, _, _ = now(engine, search_id)
    assert (search.status, search.reason) == ("failed", "diverged")
    assert search.recommended_hash is None
    assert search.message == (
        "No trial ran to its end: 1 of 3 trials failed, 2 of 3 trials stopped early. It diverged."
    )


def test_a_suggestion_is_written_once(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit(
        trials={"sample": {"training.epochs": {"randint": [1, 9]}}, "sampler": "tpe"}
    )
    _, (trial,), _ = now(engine, search_id)
    assert (trial.parameters, trial.epochs) == (None, 9)
    lease = claim()
    for epochs in (4, 7):
        with transaction(engine) as session:
            recording.trials_suggested(
                session, lease, [trial.id], {"training.epochs": epochs}, epochs
            )
    _, (trial,), kinds = now(engine, search_id)
    assert (trial.parameters, trial.epochs) == ({"training.epochs": 4}, 4)
    assert kinds.count("trial.suggested") == 1
