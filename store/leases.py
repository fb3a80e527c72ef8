"""Claiming a search, keeping it, and taking it back from a runner that went silent.

A lease is a random token with a time until which it holds. Every write of a runner names the token
and so fails once somebody else holds the search. All times are the database's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import (
    ColumnElement,
    Double,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from store import lifecycle
from store.errors import LeaseLostError
from store.models import Search, Trial
from store.room import Capacity as Capacity
from store.room import Node as Node
from store.room import has_room as has_room
from store.states import TRIAL_ENDED, UNCOUNTED, Reason, SearchStatus

_CLAIMS: Final = 7_230_180_991
"""Key of the advisory lock that a claim holds until it commits."""

_LONGEST_PAUSE_SECONDS: Final = 60


@dataclass(frozen=True)
class Lease:
    """The right to run one search until it expires or is renewed."""

    search_id: UUID
    token: UUID
    attempt: int


def claim(
    session: Session, capacity: Capacity, *, holder: str, duration: timedelta
) -> Lease | None:
    """Leases the first search of the queue, if the cluster has room for one of its trials now.

    A search that no node could ever hold is passed over; one that only has to wait for room keeps
    its place, so that small searches cannot starve a large one.

    Args:
        session: The caller's session.
        capacity: What the cluster holds in all.
        holder: Who claims, for people.
        duration: How long the lease holds unless renewed.

    Returns:
        The lease, or None when nothing can start now.
    """
    # One claim at a time: two that count the same free room would both take it, and a claim that
    # skips the head of the queue because another looks at it would let a small search overtake.
    session.execute(select(func.pg_advisory_xact_lock(_CLAIMS)))
    search = session.scalars(
        select(Search)
        .where(
            Search.status == SearchStatus.QUEUED,
            fits_some_node(capacity),
            or_(Search.not_before.is_(None), Search.not_before <= func.clock_timestamp()),
        )
        .order_by(Search.priority.desc(), Search.queued_at, Search.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if search is None:
        return None
    if not has_room(capacity, open_trials(session), need_of(search)):
        return None
    token = uuid4()
    now = session.scalar(select(func.clock_timestamp()))
    assert isinstance(now, datetime)
    search.lease_token = token
    search.lease_expires_at = now + duration
    search.leased_by = holder
    search.claimed_at = now
    search.started_at = search.started_at or now
    search.attempt += 1
    search.not_before = None
    lifecycle.transition(session, search, SearchStatus.RUNNING, data={"holder": holder})
    return Lease(search.id, token, search.attempt)


def need_of(search: Search) -> Node:
    """What each trial of a search needs of its node."""
    return Node(search.trial_cpus, search.trial_gpus, custom=search.trial_custom)


def fits_some_node(capacity: Capacity) -> ColumnElement[bool]:
    """The condition that some node of the cluster could hold a trial of the search."""
    shapes = {(node.cpus, node.gpus, tuple(sorted(node.custom.items()))) for node in capacity.nodes}
    return or_(
        false(),
        *(
            and_(Search.trial_cpus <= cpus, Search.trial_gpus <= gpus, _custom_within(custom))
            for cpus, gpus, custom in sorted(shapes)
        ),
    )


def _custom_within(held: Sequence[tuple[str, float]]) -> ColumnElement[bool]:
    """The condition that a trial needs no more of any custom resource than a node holds."""
    # One column each: the key, and the value as the text of a JSON number.
    need = func.jsonb_each_text(Search.trial_custom).table_valued("key", "value")
    available = case(dict(held), value=need.c.key, else_=0.0) if held else literal(0.0)
    more_than_held = (
        select(1).select_from(need).where(cast(need.c.value, Double) > available).exists()
    )
    return or_(Search.trial_custom == {}, ~more_than_held)


def open_trials(session: Session) -> list[Node]:
    """What each trial that the running searches still have to run needs of a node.

    Trials that are stacked need what one of them does.
    """
    rows = session.execute(
        select(Search.trial_cpus, Search.trial_gpus, Search.trial_custom)
        .join(Trial, Trial.search_id == Search.id)
        .where(Search.status == SearchStatus.RUNNING, Trial.status.not_in(TRIAL_ENDED))
        .group_by(Search.id, Trial.stack)
    )
    return [Node(cpus, gpus, custom=custom) for cpus, gpus, custom in rows]


@dataclass(frozen=True)
class Orders:
    """What the holder of a lease is to do.

    Attributes:
        cancel: End the search at once: its user asked for it.
        halt: Complete the epochs that run, then let go: its user, or a search of a higher
            priority, asked for that.
        seconds_left: Until the time limit is reached; None without one.
    """

    cancel: bool
    halt: bool
    seconds_left: float | None


def renew(session: Session, lease: Lease, *, duration: timedelta) -> Orders:
    """Keeps a lease for another `duration` from now.

    Returns:
        What its holder is to do now.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    row = session.execute(
        update(Search)
        .where(Search.id == lease.search_id, Search.lease_token == lease.token)
        .values(lease_expires_at=func.clock_timestamp() + duration)
        .returning(
            Search.cancel_requested_at.is_not(None),
            or_(Search.pause_requested_at.is_not(None), Search.preempt_requested_at.is_not(None)),
            Search.time_limit
            - Search.ran_seconds
            - func.extract("epoch", func.clock_timestamp() - Search.claimed_at),
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        raise LeaseLostError(f"search {lease.search_id} is no longer leased to this runner")
    cancel, halt, left = row
    return Orders(cancel, halt, None if left is None else float(left))


def guard(session: Session, lease: Lease) -> Search:
    """The leased search's row, locked: the first statement of every write that a runner makes.

    Raises:
        LeaseLostError: Somebody else holds the search, or nobody.
    """
    search = session.scalars(
        select(Search)
        .where(Search.id == lease.search_id, Search.lease_token == lease.token)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if search is None:
        raise LeaseLostError(f"search {lease.search_id} is no longer leased to this runner")
    return search


def give_back(
    session: Session, lease: Lease, *, reason: Reason, message: str, max_failures: int
) -> SearchStatus:
    """Returns a search whose runner stopped before the end.

    Args:
        session: The caller's session.
        lease: The lease it held.
        reason: Why; the ones in `store.states.UNCOUNTED` count as no failure.
        message: What is known about it.
        max_failures: A search that failed more often than this ends.

    Returns:
        Where the search is now.

    Raises:
        LeaseLostError: It has already been taken back, or it ended.
    """
    return _take_back(
        session, guard(session, lease), reason=reason, message=message, max_failures=max_failures
    )


def expire(session: Session, *, max_failures: int, limit: int = 100) -> Sequence[UUID]:
    """Takes back searches whose lease ran out.

    Args:
        session: The caller's session.
        max_failures: A search that failed more often than this ends.
        limit: Most searches to take back in this transaction.

    Returns:
        Their ids.
    """
    searches = session.scalars(
        select(Search)
        .where(
            Search.status == SearchStatus.RUNNING,
            Search.lease_expires_at < func.clock_timestamp(),
        )
        .order_by(Search.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for search in searches:
        _take_back(
            session,
            search,
            reason=Reason.LEASE_EXPIRED,
            message="Its runner was not heard of for a whole lease.",
            max_failures=max_failures,
        )
    return [search.id for search in searches]


def _take_back(
    session: Session, search: Search, *, reason: Reason, message: str, max_failures: int
) -> SearchStatus:
    if search.cancel_requested_at is not None:
        lifecycle.transition(
            session,
            search,
            SearchStatus.CANCELLED,
            reason=Reason.CANCELLED_BY_USER,
            message="Cancelled while it ran.",
        )
        return SearchStatus.CANCELLED
    if search.pause_requested_at is not None:
        lifecycle.transition(
            session,
            search,
            SearchStatus.PAUSED,
            reason=Reason.PAUSED_BY_USER,
            message=f"Paused while it ran. {message}",
        )
        return SearchStatus.PAUSED
    if reason not in UNCOUNTED:
        search.failures += 1
    if search.failures > max_failures:
        lifecycle.transition(
            session,
            search,
            SearchStatus.FAILED,
            reason=Reason.ATTEMPTS_EXHAUSTED,
            message=f"Crashed {search.failures} times without completing an epoch in between, "
            f"the last time like this: {message} The logs of its runners say more.",
        )
        return SearchStatus.FAILED
    if reason not in UNCOUNTED:
        # Whatever made it crash may take a while to go; others can run meanwhile.
        pause = timedelta(seconds=min(2**search.failures, _LONGEST_PAUSE_SECONDS))
        with session.no_autoflush:
            search.not_before = session.scalar(select(func.clock_timestamp() + pause))
    lifecycle.transition(session, search, SearchStatus.QUEUED, reason=reason, message=message)
    return SearchStatus.QUEUED
