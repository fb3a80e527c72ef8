"""How failures of trials are counted; what Ray says of lost processes is tested with a real one."""

from types import SimpleNamespace
from typing import Any

from store.states import Reason
from workers.failures import Failure
from workers.ray_failures import Failures

CRASH = Failure(Reason.TRIAL_CRASHED, "Its process was lost.", retry=True, process_lost=True)
LOSS = Failure(Reason.NODE_LOST, "Its node was lost.", retry=True)


def trial(name: str) -> Any:
    return SimpleNamespace(trial_id=name, pickled_error_file=None)


def test_each_trial_may_crash_as_often_as_is_allowed() -> None:
    failures = Failures(max_failures=2, node_losses=0)
    assert [failures.goes_on(trial("a"), CRASH) for _ in range(3)] == [True, True, False]
    assert failures.goes_on(trial("b"), CRASH)


def test_lost_nodes_are_crashes_only_if_too_many_are_lost_in_a_row() -> None:
    failures = Failures(max_failures=1, node_losses=2)
    one = trial("a")
    for _ in range(5):
        assert failures.goes_on(one, LOSS)
        assert failures.goes_on(one, LOSS)
        failures.got_further(one)
    assert [failures.goes_on(one, LOSS) for _ in range(4)] == [True, True, True, False]


def test_an_epoch_forgets_no_crash() -> None:
    failures = Failures(max_failures=1, node_losses=2)
    one = trial("a")
    assert failures.goes_on(one, CRASH)
    failures.got_further(one)
    assert not failures.goes_on(one, CRASH)
