"""What a trial's failure means: a crash of its own, or the loss of its node."""

from collections import Counter
from pathlib import Path

from ray import cloudpickle
from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.tune.experiment import Trial as TuneTrial

from store.states import Reason
from workers.failures import Failure, explain, out_of_memory
from workers.ray_nodes import is_lost


class Failures:
    """Counts the failures of a run's trials, because Tune does so without asking why.

    The loss of a node is no crash, unless the trial loses more of them in a row than a cluster
    loses by itself.

    Args:
        max_failures: Crashes of one trial's process that are retried.
        node_losses: Losses of a trial's node in a row that are no crashes.
    """

    def __init__(self, max_failures: int, node_losses: int) -> None:
        self._max_failures = max_failures
        self._node_losses = node_losses
        # Of Tune's trials, by their ids:
        self._nodes: dict[str, str] = {}
        """Ray's id of the node, once the trial has said where it is."""
        self._losses: Counter[str] = Counter()
        """Nodes lost since the trial last completed an epoch."""
        self._crashes: Counter[str] = Counter()

    def started(self, trial: TuneTrial) -> None:
        """A trial starts, on a node that it has not told yet."""
        self._nodes.pop(trial.trial_id, None)

    def placed(self, trial: TuneTrial, node: str) -> None:
        """A trial has told its node, by Ray's id."""
        self._nodes[trial.trial_id] = node

    def got_further(self, trial: TuneTrial) -> None:
        """A trial has completed an epoch."""
        self._losses[trial.trial_id] = 0

    def goes_on(self, trial: TuneTrial, failure: Failure) -> bool:
        """Counts a failure; whether the trial may have one more."""
        key = trial.trial_id
        if failure.reason is Reason.NODE_LOST:
            self._losses[key] += 1
            if self._losses[key] <= self._node_losses:
                return True
        self._crashes[key] += 1
        return self._crashes[key] <= self._max_failures

    def why(self, trial: TuneTrial) -> Failure:
        """Why a trial has failed just now."""
        failure = _explain_crash(trial)
        if failure.process_lost and is_lost(self._nodes.get(trial.trial_id)):
            return Failure(Reason.NODE_LOST, "Its node was lost.", retry=True)
        return failure


def _explain_crash(trial: TuneTrial) -> Failure:
    """What ended a trial's process, or was raised in it."""
    error = _error_of(trial)
    if isinstance(error, RayTaskError):
        return explain(error.cause)
    if isinstance(error, OutOfMemoryError):
        return out_of_memory("Its node ran out of memory and Ray stopped the trial.")
    return Failure(
        Reason.TRIAL_CRASHED,
        "Its process was lost. The log of the search's runner says more.",
        retry=True,
        process_lost=True,
    )


def _error_of(trial: TuneTrial) -> Exception | None:
    """What Tune wrote about a trial's latest failure; None where it has nothing but text.

    Tune looks for it where a trial's folder goes when the trial has ended, which is too late.
    """
    if trial.pickled_error_file is None:
        return None
    file = Path(trial.pickled_error_file)
    if not file.exists():
        return None
    error: Exception = cloudpickle.loads(file.read_bytes())
    file.unlink()  # the next failure may leave none, and is not this one
    return error
