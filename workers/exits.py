"""How a runner's process says why it ended."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of a runner; every other one is a crash."""

    ENDED = 0
    """The search ended and its end is recorded."""
    NOTHING_TO_RUN = 14
    """Whoever would have given it something is gone."""
    CANCELLED = 10
    """The search was cancelled and that is recorded."""
    REQUEUED = 11
    """The search is back in the queue, with the reason."""
    LET_GO = 13
    """The search is paused, or back in the queue because another took its place."""
    LEASE_LOST = 12
    """The search belongs to somebody else, or to nobody."""
