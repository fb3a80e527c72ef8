"""How a runner's process says why it ended."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of a runner; every other one is a crash."""

    ENDED = 0
    """The search ended and its end is recorded."""
    CANCELLED = 10
    """The search was cancelled and that is recorded."""
    SHUTDOWN = 11
    """Asked to stop; the search is back in the queue."""
    LEASE_LOST = 12
    """The search belongs to somebody else, or to nobody."""
    NO_CLUSTER = 13
    """No Ray cluster answered; the dispatcher puts the search back."""
