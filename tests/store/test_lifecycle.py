"""The state machine: the table, cancel, and no way around either."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, select

from service.trials.schemas import TrialCounts
from store import endings, events, leases, lifecycle, queue, recording, searches, verbs
from store.errors import (
    IllegalTransitionError,
    LeaseLostError,
    NotFoundError,
    NotRetryableError,
)
from store.leases import Lease
from store.models import Search
from store.sessions import transaction
from store.states import ENDED, SEARCH_TRANSITIONS, TRIAL_ENDED, Reason, SearchStatus
from tests.store.conftest import GENOTYPE, PLENTY, forget_pauses, spec

Submit = Callable[..., UUID]
Claim = Callable[..., Lease]


def test_the_table_names_every_status() -> None:
    assert set(SEARCH_TRANSITIONS) == set(SearchStatus)


@pytest.mark.parametrize("to", [SearchStatus.SUCCEEDED, SearchStatus.FAILED, SearchStatus.QUEUED])
def test_a_queued_search_cannot_jump(engine: Engine, submit: Submit, to: SearchStatus) -> None:
    search_id = submit()
    with pytest.raises(IllegalTransitionError), transaction(engine) as session:
        lifecycle.transition(
            session, lifecycle.lock(session, search_id), to, reason=Reason.DIVERGED
        )
    with transaction(engine) as session:
        assert searches.get(session, search_id).status == "queued"
        assert len(events.page(session, search_id)) == 1


def test_cancelling_a_queued_search_ends_it(engine: Engine, submit: Submit) -> None:
    search_id = submit()
    for _ in range(2):
        with transaction(engine) as session:
            search = verbs.request_cancel(session, search_id)
            assert (search.status, search.reason) == ("cancelled", Reason.CANCELLED_BY_USER)
    with transaction(engine) as session:
        kinds = [event.kind for event in events.page(session, search_id)]
        assert kinds == ["search.queued", "search.cancelled"]
        assert {trial.status for trial in searches.trials(session, search_id)} == {"cancelled"}


def test_cancelling_a_running_search_asks_its_runner_once(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim()
    for _ in range(2):
        with transaction(engine) as session:
            search = verbs.request_cancel(session, search_id)
            assert search.status == "running"
            assert search.cancel_requested_at is not None
    with transaction(engine) as session:
        endings.cancelled(session, lease)
    with transaction(engine) as session:
        kinds = [event.kind for event in events.page(session, search_id)]
        assert kinds[2:] == ["search.cancel_requested", "search.cancelled"]


def test_cancelling_a_search_whose_runner_went_silent_ends_it(
    engine: Engine, submit: Submit, claim: Claim
) -> None:
    search_id = submit()
    lease = claim(duration=timedelta(0))
    with transaction(engine) as session:
        assert verbs.request_cancel(session, search_id).status == "cancelled"
    with pytest.raises(LeaseLostError), transaction(engine) as session:
        leases.guard(session, lease)


def test_an_ended_search_cannot_be_cancelled(engine: Engine, submit: Submit, claim: Claim) -> None:
    search_id = submit()
    lease = claim()
    with transaction(engine) as session:
        (trial,) = recording.open_trials(session, lease)
        recording.trial_succeeded(session, lease, trial.id, GENOTYPE)
        endings.finish(session, lease)
    with pytest.raises(IllegalTransitionError, match="succeeded"), transaction(engine) as session:
        verbs.request_cancel(session, search_id)


def test_cancelling_what_is_not_there(engine: Engine) -> None:
    with pytest.raises(NotFoundError), transaction(engine) as session:
        verbs.request_cancel(session, uuid4())


class LifeOfSearches(RuleBasedStateMachine):
    """Users, dispatchers and runners at once, the late ones among them too."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[UUID] = []
        self.leases: list[Lease] = []
        self.ended: dict[UUID, str] = {}
        self.totals: dict[UUID, int] = {}
        self.folds = False

    @rule(seeds=st.integers(1, 3), priority=st.integers(-1, 1), tpe=st.booleans())
    def submit(self, seeds: int, priority: int, tpe: bool) -> None:
        trials: dict[str, Any] = {"seeds": list(range(seeds))}
        if tpe:
            trials |= {"sample": {"training.epochs": {"randint": [1, 9]}}, "sampler": "tpe"}
        with transaction(self.engine) as session:
            search_id = searches.submit(session, spec(trials=trials, priority=priority)).id
        self.ids.append(search_id)
        self.totals[search_id] = seeds

    @rule(already_late=st.booleans())
    def claim(self, already_late: bool) -> None:
        duration = timedelta(0) if already_late else timedelta(minutes=1)
        with transaction(self.engine) as session:
            lease = leases.claim(session, PLENTY, holder="machine", duration=duration)
        if lease is not None:
            self.leases.append(lease)

    @rule()
    def pass_the_pauses(self) -> None:
        forget_pauses(self.engine)

    @rule()
    def expire(self) -> None:
        with transaction(self.engine) as session:
            leases.expire(session, max_failures=1)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.ids:
            return
        search_id = data.draw(st.sampled_from(self.ids))
        try:
            with transaction(self.engine) as session:
                verbs.request_cancel(session, search_id)
        except IllegalTransitionError:
            assert self.ended[search_id] in ("succeeded", "failed")

    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        if not self.ids:
            return
        search_id = data.draw(st.sampled_from(self.ids))
        try:
            with transaction(self.engine) as session:
                search = verbs.request_pause(session, search_id)
                assert search.status == "paused" or search.pause_requested_at is not None
        except IllegalTransitionError:
            assert search_id in self.ended or self._is_to_be_cancelled(search_id)

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        if not self.ids:
            return
        search_id = data.draw(st.sampled_from(self.ids))
        try:
            with transaction(self.engine) as session:
                search = verbs.resume(session, search_id)
                assert search.status in ("queued", "running")
                assert search.pause_requested_at is None
        except IllegalTransitionError:
            assert search_id in self.ended

    @rule(data=st.data())
    def retry_all(self, data: st.DataObject) -> None:
        if not self.ids:
            return
        search_id = data.draw(st.sampled_from(self.ids))
        try:
            with transaction(self.engine) as session:
                assert verbs.retry(session, search_id).status not in ENDED
        except NotRetryableError:
            with transaction(self.engine) as session:
                trials = searches.trials(session, search_id)
            assert self._is_to_be_cancelled(search_id) or {trial.status for trial in trials} <= {
                "succeeded",
                "stopped",
            }
        else:
            self.ended.pop(search_id, None)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if not self.ids:
            return
        search_id = data.draw(st.sampled_from(self.ids))
        try:
            with transaction(self.engine) as session:
                verbs.delete(session, search_id)
        except IllegalTransitionError:
            assert search_id not in self.ended
        else:
            self.ended.pop(search_id)
            self.ids.remove(search_id)
            del self.totals[search_id]
            # Whoever still runs it finds nothing to write to.
            with pytest.raises(NotFoundError), transaction(self.engine) as session:
                searches.get(session, search_id)

    def _is_to_be_cancelled(self, search_id: UUID) -> bool:
        with transaction(self.engine) as session:
            return searches.get(session, search_id).cancel_requested_at is not None

    @rule(data=st.data())
    def stop_between_epochs(self, data: st.DataObject) -> None:
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(self.leases))
        try:
            with transaction(self.engine) as session:
                search = leases.guard(session, lease)
                asked = search.pause_requested_at or search.cancel_requested_at
                status = endings.halted(session, lease)
                assert (status is None) == (asked is None)
        except LeaseLostError:
            return

    @rule(data=st.data())
    def run_out_of_time(self, data: st.DataObject) -> None:
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(self.leases))
        try:
            with transaction(self.engine) as session:
                leases.guard(session, lease).time_limit = 1e-6
                assert leases.renew(session, lease, duration=timedelta(0)).seconds_left is not None
                assert endings.time_is_up(session, lease) in ENDED
        except LeaseLostError:
            return

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        if not self.ids:
            return
        search_id = data.draw(st.sampled_from(self.ids))
        with transaction(self.engine) as session:
            trials = searches.trials(session, search_id)
        trial = data.draw(st.sampled_from(trials))
        try:
            with transaction(self.engine) as session:
                now = verbs.retry_trial(session, trial.id)
                assert now.status in ("queued", "running")
                assert searches.get(session, search_id).status in ("queued", "running", "paused")
        except NotRetryableError:
            with transaction(self.engine) as session:
                cancelled = searches.get(session, search_id).cancel_requested_at
            assert trial.status in ("succeeded", "stopped") or cancelled
        else:
            if trial.status == "failed":
                self.ended.pop(search_id, None)

    @rule(data=st.data(), ending=st.sampled_from(["succeeded", "stopped", "failed"]))
    def run_a_trial(self, data: st.DataObject, ending: str) -> None:
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(self.leases))
        try:
            with transaction(self.engine) as session:
                trials = recording.open_trials(session, lease)
                if not trials:
                    endings.finish(session, lease)
                elif ending != "failed":
                    values = {"training.epochs": 5}
                    recording.trials_suggested(session, lease, [trials[0].id], values, 5)
                    recording.trial_started(
                        session, lease, trials[0].id, from_epoch=0, node="n", pid=1
                    )
                    if ending == "succeeded":
                        recording.trial_succeeded(session, lease, trials[0].id, GENOTYPE)
                    else:
                        recording.trial_stopped(
                            session, lease, trials[0].id, GENOTYPE, message="Weak."
                        )
                else:
                    recording.trial_failed(
                        session, lease, trials[0].id, reason=Reason.DIVERGED, message="No."
                    )
        except LeaseLostError:
            if lease.search_id in self.ids:
                with transaction(self.engine) as session:
                    assert searches.get(session, lease.search_id).lease_token != lease.token

    @rule(data=st.data(), crashed=st.booleans())
    def give_back(self, data: st.DataObject, crashed: bool) -> None:
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(self.leases))
        reason = Reason.RUNNER_CRASHED if crashed else Reason.SHUTDOWN
        try:
            with transaction(self.engine) as session:
                leases.give_back(session, lease, reason=reason, message="It died.", max_failures=1)
        except LeaseLostError:
            return

    @invariant()
    def every_search_is_counted_once(self) -> None:
        with transaction(self.engine) as session:
            if self.folds:
                queue.fold_counts(session)
            self.folds = not self.folds
            stored = Counter(session.scalars(select(Search.status)))
            assert queue.count(session) == {status: stored[status] for status in SearchStatus}

    @invariant()
    def every_trial_is_counted_once(self) -> None:
        with transaction(self.engine) as session:
            for search_id, total in self.totals.items():
                counts = TrialCounts.of(searches.trials(session, search_id))
                assert counts.completed + counts.failed + counts.pending == counts.total == total

    @invariant()
    def what_ended_stays_and_every_step_is_in_the_log(self) -> None:
        with transaction(self.engine) as session:
            for search_id in self.ids:
                search = searches.get(session, search_id)
                log = events.page(session, search_id)
                assert [event.number for event in log] == list(range(1, len(log) + 1))
                steps = [event.kind for event in log if event.kind in STEP_KINDS]
                assert STEP_KINDS[steps[-1]] == search.status
                if search.status in ENDED:
                    assert self.ended.setdefault(search_id, search.status) == search.status
                    open_trials = [
                        trial
                        for trial in searches.trials(session, search_id)
                        if trial.status not in TRIAL_ENDED
                    ]
                    assert open_trials == []


STEP_KINDS = {
    "search.queued": "queued",
    "search.requeued": "queued",
    "search.resumed": "queued",
    "search.paused": "paused",
    "search.running": "running",
    "search.succeeded": "succeeded",
    "search.failed": "failed",
    "search.cancelled": "cancelled",
}


def test_no_order_of_steps_breaks_the_promises(engine: Engine) -> None:
    class OnThisDatabase(LifeOfSearches):
        pass

    OnThisDatabase.engine = engine

    def fresh() -> OnThisDatabase:
        # The machine's searches must be the only ones that a claim can find.
        with engine.begin() as connection:
            connection.exec_driver_sql("TRUNCATE searches, ended_counts CASCADE")
        return OnThisDatabase()

    run_state_machine_as_test(
        fresh,  # type: ignore[arg-type]
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
