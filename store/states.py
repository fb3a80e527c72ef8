"""Roles, kinds and states of what the tables hold, and which changes are legal, and why."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a key lets its holder do."""

    VIEWER = "viewer"
    """Look at what its owner sees."""
    MEMBER = "member"
    """Submit as its owner, and steer what its owner sees."""
    ADMIN = "admin"
    """See and steer everything; make keys for anybody; set weights and quotas."""


class WebhookScope(StrEnum):
    """Whose events a webhook is told."""

    VISIBLE = "visible"
    """Those of its owner's searches, and of the ones that a team label shares with its owner."""
    ALL = "all"
    """Those of everybody's searches; only an admin's key makes such a webhook."""


class DeliveryStatus(StrEnum):
    """Where one message to a webhook is in its life."""

    PENDING = "pending"
    """Waits for its first attempt, or for the next one."""
    DELIVERED = "delivered"
    """The receiver answered with a 2xx status."""
    FAILED = "failed"
    """Given up: out of attempts, or its webhook was disabled."""


class JobKind(StrEnum):
    """What a row of `searches` runs; queue, leases and events are the same for both."""

    SEARCH = "search"
    """Derives architectures; its spec is a `SearchSpec`."""
    TRAINING = "training"
    """Trains one architecture from scratch; its spec is a `RetrainingSpec`."""


class SearchStatus(StrEnum):
    """Where a search is in its life."""

    QUEUED = "queued"
    """Waits for a dispatcher's claim."""
    RUNNING = "running"
    """Leased by one runner."""
    PAUSED = "paused"
    """Holds nothing until its user resumes it; goes on from its checkpoints then."""
    SUCCEEDED = "succeeded"
    """At least one trial came to its result and none is left to run."""
    FAILED = "failed"
    """Ended without a result; the reason says why."""
    CANCELLED = "cancelled"
    """Ended because its user said so."""


class TrialStatus(StrEnum):
    """Where one run of a search is in its life."""

    QUEUED = "queued"
    """Waits for its search to run, or for room on the cluster."""
    RUNNING = "running"
    """Trains on a node."""
    SUCCEEDED = "succeeded"
    """Derived an architecture after its last epoch, or trained the one that it was given."""
    STOPPED = "stopped"
    """Ended early by its scheduler, because it was weak; has what it had derived until then."""
    FAILED = "failed"
    """Stopped with an error; the reason says which."""
    CANCELLED = "cancelled"
    """Stopped with its search."""


class Reason(StrEnum):
    """Why a search or a trial ended or went back to the queue."""

    COMPLETED = "completed"
    """Every trial ran to its end."""
    STOPPED_EARLY = "stopped_early"
    """Of a trial: weaker than others were after as many epochs."""
    CANCELLED_BY_USER = "cancelled_by_user"
    """A cancel request."""
    PAUSED_BY_USER = "paused_by_user"
    """A pause request."""
    RESUMED = "resumed"
    """Its user asked to go on."""
    PREEMPTED = "preempted"
    """Made room for a search of a higher priority."""
    TIME_LIMIT = "time_limit"
    """Ran for as long as its spec lets it."""
    INVALID_INPUT = "invalid_input"
    """The spec passed validation but cannot run; not retried."""
    DATA_NOT_FOUND = "data_not_found"
    """The data set is not on the node; not retried."""
    DIVERGED = "diverged"
    """A loss was not finite; not retried, since the same seed would do the same."""
    OUT_OF_MEMORY = "out_of_memory"
    """A trial needed more memory than its node has."""
    NO_GPU = "no_gpu"
    """The trial was given a GPU by Ray, and PyTorch finds none on the node; not retried."""
    TRIAL_CRASHED = "trial_crashed"
    """A trial's process died or raised what nobody foresaw, more often than is retried."""
    STORAGE_UNAVAILABLE = "storage_unavailable"
    """The storage of the checkpoints was full or gone, more often than is retried."""
    RUNNER_CRASHED = "runner_crashed"
    """The runner's process ended without saying why."""
    LEASE_EXPIRED = "lease_expired"
    """The runner was not heard of for a whole lease."""
    RETRIED = "retried"
    """Its user asked to run what did not finish again."""
    SHUTDOWN = "shutdown"
    """The dispatcher was asked to stop; the search goes on with the next one."""
    NODE_LOST = "node_lost"
    """The trial's node left the cluster; or every node that could hold the search's trials did."""
    NO_CLUSTER = "no_cluster"
    """No Ray cluster answered its runner."""
    RUNNER_NOT_STARTED = "runner_not_started"
    """The dispatcher's host could not start its runner."""
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    """Crashed once more than is retried."""
    TRIALS_FAILED = "trials_failed"
    """No trial succeeded, for more than one reason; see the trials."""


SEARCH_TRANSITIONS: Final[dict[SearchStatus, frozenset[SearchStatus]]] = {
    SearchStatus.QUEUED: frozenset(
        {SearchStatus.RUNNING, SearchStatus.PAUSED, SearchStatus.CANCELLED}
    ),
    SearchStatus.RUNNING: frozenset(
        {
            SearchStatus.QUEUED,
            SearchStatus.PAUSED,
            SearchStatus.SUCCEEDED,
            SearchStatus.FAILED,
            SearchStatus.CANCELLED,
        }
    ),
    SearchStatus.PAUSED: frozenset({SearchStatus.QUEUED, SearchStatus.CANCELLED}),
    # By running what did not finish again.
    SearchStatus.SUCCEEDED: frozenset({SearchStatus.QUEUED}),
    SearchStatus.FAILED: frozenset({SearchStatus.QUEUED}),
    SearchStatus.CANCELLED: frozenset({SearchStatus.QUEUED}),
}
"""From each status, the ones that may follow."""

ENDED: Final = frozenset({SearchStatus.SUCCEEDED, SearchStatus.FAILED, SearchStatus.CANCELLED})
"""The statuses that a search keeps by itself: nothing runs or waits to."""

UNCOUNTED: Final = frozenset(
    {
        Reason.SHUTDOWN,
        Reason.NO_CLUSTER,
        Reason.NODE_LOST,
        Reason.RUNNER_NOT_STARTED,
        Reason.PREEMPTED,
    }
)
"""Returns to the queue that are not the search's doing, and never make it fail."""

TRIAL_COMPLETED: Final = frozenset({TrialStatus.SUCCEEDED, TrialStatus.STOPPED})
"""The trial statuses that have an architecture."""

TRIAL_ENDED: Final = TRIAL_COMPLETED | {TrialStatus.FAILED, TrialStatus.CANCELLED}
"""The trial statuses of trials that neither run nor wait to."""
