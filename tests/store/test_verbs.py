"""What users ask of a search: each verb once, twice, at the wrong time, and against the others."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from store import endings, epoch_reports, events, leases, recording, searches, verbs
from store.epoch_reports import EpochResult
from store.errors import IllegalTransitionError, NotFoundError, NotRetryableError, StoreError
from store.leases import Lease
from store.models import Metric, Search, Trial
from store.sessions import transaction
from store.states import ENDED, Reason
from tests.store.conftest import GENOTYPE, MINUTE

Submit = Callable[..., UUID]
Claim = Callable[..., Lease]
Verb = Callable[..., object]


def ask(engine: Engine, verb: Verb, search_id: UUID) -> Search:
    with transaction(engine) as session:
        verb(session, search_id)
    return now(engine, search_id)


def now(engine: Engine, search_id: UUID) -> Search:
    with transaction(engine) as session:
        return searches.get(session, search_id)


def kinds(engine: Engine, search_id: UUID) -> list[str]:
    with transaction(engine) as session:
        return [event.kind for event in events.page(session, search_id)]


def test_a_waiting_search_is_paused_at_once_and_resumed_at_the_end_of_the_queue(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    for _ in range(2):
        paused = ask(engine, verbs.request_pause, search_id)
        assert (paused.status, paused.reason) == ("paused", Reason.PAUSED_BY_USER)
    assert claim() is None
    later = submit()
    for _ in range(2):
        assert ask(engine, verbs.resume, search_id).status == "queued"
    assert kinds(engine, search_id) == ["search.queued", "search.paused", "search.resumed"]
    assert [claim().search_id, claim().search_id] == [later, search_id]


def test_a_running_search_is_paused_by_its_runner_between_epochs(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    for _ in range(2):
        assert ask(engine, verbs.request_pause, search_id).status == "running"
    with transaction(engine) as session:
        assert leases.renew(session, lease, duration=MINUTE).halt
        (trial,) = recording.open_trials(session, lease)
        recording.trial_started(session, lease, trial.id, from_epoch=0, node="n", pid=1)
        epoch_reports.epoch_ended(session, lease, trial.id, EpochResult(1, {"x": 1.0}, GENOTYPE))
    with transaction(engine) as session:
        assert endings.halted(session, lease) == "paused"
    search = now(engine, search_id)
    assert (search.lease_token, search.claimed_at, search.pause_requested_at) == (None,) * 3
    with transaction(engine) as session:
        (trial,) = searches.trials(session, search_id)
    assert (trial.status, trial.epoch) == ("queued", 1)
    assert ask(engine, verbs.resume, search_id).status == "queued"
    resumed = claim()
    assert (resumed.search_id, resumed.attempt) == (search_id, 2)


def test_a_pause_is_withdrawn_by_a_resume(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit()
    lease = claim()
    ask(engine, verbs.request_pause, search_id)
    assert ask(engine, verbs.resume, search_id).pause_requested_at is None
    with transaction(engine) as session:
        assert not leases.renew(session, lease, duration=MINUTE).halt
        assert endings.halted(session, lease) is None
    assert now(engine, search_id).status == "running"


def test_a_search_that_is_to_be_paused_and_loses_its_runner_is_paused(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    ask(engine, verbs.request_pause, search_id)
    with transaction(engine) as session:
        leases.give_back(
            session, lease, reason=Reason.RUNNER_CRASHED, message="It died.", max_failures=3
        )
    search = now(engine, search_id)
    assert (search.status, search.failures) == ("paused", 0)


def test_a_paused_search_is_cancelled_at_once(engine: Engine, submit: Submit) -> None:
    search_id = submit()
    ask(engine, verbs.request_pause, search_id)
    assert ask(engine, verbs.request_cancel, search_id).status == "cancelled"
    for verb in (verbs.request_pause, verbs.resume):
        with pytest.raises(IllegalTransitionError, match="cancelled"):
            ask(engine, verb, search_id)


def test_a_cancel_goes_before_a_pause(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit()
    lease = claim()
    ask(engine, verbs.request_pause, search_id)
    ask(engine, verbs.request_cancel, search_id)
    with pytest.raises(IllegalTransitionError):
        ask(engine, verbs.request_pause, search_id)
    with transaction(engine) as session:
        assert endings.halted(session, lease) == "cancelled"


def test_a_retry_runs_what_did_not_finish_and_nothing_else(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit(trials={"seeds": [0, 1, 2]}, time_limit=60)
    lease = claim()
    with transaction(engine) as session:
        first, second, _ = recording.open_trials(session, lease)
        recording.trial_succeeded(session, lease, first.id, GENOTYPE)
        recording.trial_failed(session, lease, second.id, reason=Reason.DIVERGED, message="No.")
    ask(engine, verbs.request_cancel, search_id)
    with pytest.raises(NotRetryableError, match="retry it once it is"):
        ask(engine, verbs.retry, search_id)
    with transaction(engine) as session:
        endings.cancelled(session, lease)
        session.execute(update(Search).values(ran_seconds=50))
    for _ in range(2):
        search = ask(engine, verbs.retry, search_id)
        assert (search.status, search.reason) == ("queued", Reason.RETRIED)
        assert (search.cancel_requested_at, search.ended_at, search.ran_seconds) == (None, None, 0)
    lease = claim()
    with transaction(engine) as session:
        open_trials = recording.open_trials(session, lease)
        assert [trial.number for trial in open_trials] == [1, 2]
        for trial in open_trials:
            recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
        assert endings.finish(session, lease) == "succeeded"
    with pytest.raises(NotRetryableError, match="every trial"):
        ask(engine, verbs.retry, search_id)


def test_time_that_a_search_ran_adds_up_and_ends_it(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit(trials={"seeds": [0, 1]}, time_limit=100)
    lease = claim()
    with transaction(engine) as session:
        session.execute(update(Search).values(claimed_at=Search.claimed_at - timedelta(seconds=60)))
    with transaction(engine) as session:
        left = leases.renew(session, lease, duration=MINUTE).seconds_left
        assert left is not None
        assert 30 < left <= 40
        first, _ = recording.open_trials(session, lease)
        recording.trial_succeeded(session, lease, first.id, GENOTYPE)
    with transaction(engine) as session:
        leases.give_back(session, lease, reason=Reason.SHUTDOWN, message="Bye.", max_failures=3)
    assert 60 <= now(engine, search_id).ran_seconds < 70
    lease = claim()
    with transaction(engine) as session:
        session.execute(update(Search).values(claimed_at=Search.claimed_at - timedelta(seconds=60)))
    with transaction(engine) as session:
        left = leases.renew(session, lease, duration=MINUTE).seconds_left
        assert left is not None
        assert left < 0
        # What had finished counts.
        assert endings.time_is_up(session, lease) == "succeeded"
    with transaction(engine) as session:
        _, second = searches.trials(session, search_id)
    assert (second.status, second.reason) == ("failed", Reason.TIME_LIMIT)
    assert "time limit of 100 s" in second.message
    assert "Retry it" in second.message


def test_a_search_of_which_nothing_finished_in_time_fails_for_that(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit(time_limit=5)
    lease = claim()
    with transaction(engine) as session:
        endings.time_is_up(session, lease)
    search = now(engine, search_id)
    assert (search.status, search.reason) == ("failed", Reason.TIME_LIMIT)


def test_name_labels_and_priority_change_in_any_state(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    first, second = submit(), submit()
    changes = {"name": "new", "labels": {"team": "vision"}, "priority": 7}
    for _ in range(2):
        with transaction(engine) as session:
            changed = verbs.change(session, second, changes)
            assert {name: getattr(changed, name) for name in changes} == changes
    with transaction(engine) as session:
        log = events.page(session, second)
    assert [event.kind for event in log] == ["search.queued", "search.changed"]
    assert log[-1].data == changes
    assert claim().search_id == second
    assert claim().search_id == first
    ask(engine, verbs.request_cancel, first)
    with transaction(engine) as session:
        assert verbs.change(session, first, {"name": "later"}).name == "later"


def test_only_what_has_ended_is_deleted_and_then_it_is_gone(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    with pytest.raises(IllegalTransitionError, match="cannot become deleted"):
        ask(engine, verbs.delete, search_id)
    with transaction(engine) as session:
        (trial,) = recording.open_trials(session, lease)
        epoch_reports.epoch_ended(session, lease, trial.id, EpochResult(1, {"x": 1.0}, GENOTYPE))
        recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
        endings.finish(session, lease)
    for _ in range(2):
        with transaction(engine) as session:
            verbs.delete(session, search_id)
    with transaction(engine) as session:
        for table in (Search, Trial, Metric):
            assert session.query(table).count() == 0
        with pytest.raises(NotFoundError):
            verbs.request_cancel(session, search_id)
        with pytest.raises(NotFoundError):
            verbs.delete(session, uuid4())


def at_once(engine: Engine, *writes: Callable[[Session], object]) -> None:
    """Makes every write in a transaction and a thread of its own, all at the same time."""
    start = threading.Barrier(len(writes))

    def make(write: Callable[[Session], object]) -> None:
        start.wait()
        with suppress(StoreError), transaction(engine) as session:
            write(session)

    threads = [threading.Thread(target=make, args=(write,)) for write in writes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_to_the_end(session: Session, lease: Lease) -> None:
    for trial in recording.open_trials(session, lease):
        recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
    endings.finish(session, lease)


def _stop(session: Session, stop: Callable[[Session, Lease], object], lease: Lease) -> None:
    stop(session, lease)


@pytest.mark.parametrize("stop", [endings.halted, run_to_the_end])
def test_verbs_that_race_leave_a_search_in_one_legal_state(
    engine: Engine, submit: Submit, claim: Claim, stop: Callable[[Session, Lease], object]
) -> None:
    """Every verb at once, against a runner that stops between epochs, or finishes."""
    asked = (verbs.request_cancel, verbs.request_pause, verbs.resume, verbs.retry, verbs.delete)
    for _ in range(4):
        search_id = submit()
        lease = claim()
        assert lease.search_id == search_id
        at_once(
            engine,
            partial(_stop, stop=stop, lease=lease),
            *(partial(verb, search_id=search_id) for verb in asked),
        )
        try:
            search = now(engine, search_id)
        except NotFoundError:
            continue
        with transaction(engine) as session:
            statuses = {trial.status for trial in searches.trials(session, search_id)}
            numbers = [event.number for event in events.page(session, search_id)]
        assert numbers == list(range(1, len(numbers) + 1))
        is_over = search.status in ENDED
        assert statuses <= ({"succeeded", "cancelled"} if is_over else {"queued"})
        if not is_over:
            # The next round's claim is to find its own.
            with transaction(engine) as session:
                if verbs.request_cancel(session, search_id).status == "running":
                    endings.cancelled(session, lease)


def test_two_who_delete_at_once_both_see_it_done(engine: Engine, submit: Submit) -> None:
    search_id = submit()
    ask(engine, verbs.request_cancel, search_id)
    done: list[bool] = []

    def delete(session: Session) -> None:
        verbs.delete(session, search_id)
        done.append(True)

    at_once(engine, delete, delete, delete)
    assert done == [True] * 3
