"""Claiming a search, keeping it, and taking it back from a runner that went silent.

A lease is a random token with a time until which it holds. Every write of a runner names the token
and so fails once somebody else holds the search. All times are the database's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from store import lifecycle
from store.demand import look, need_of
from store.errors import LeaseLostError
from store.models import Search
from store.order import candidates
from store.preemption import make_room
from store.room import Capacity as Capacity
from store.room import Node as Node
from store.room import Packing
from store.states import UNCOUNTED, Reason, SearchStatus

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
    """Leases the first search of the queue, if it can start now; see `claim_all`.

    Returns:
        The lease, or None when nothing can start now.
    """
    leases = claim_all(session, capacity, holder=holder, duration=duration, limit=1)
    return leases[0] if leases else None


def claim_all(
    session: Session, capacity: Capacity, *, holder: str, duration: timedelta, limit: int
) -> list[Lease]:
    """Leases the first searches of the queue for which the cluster has room for a trial now.

    A search that no node could ever hold, and one that its owner's quota keeps from running, are
    passed over. One that only has to wait for room keeps its place, so that small searches cannot
    starve a large one; preemptible ones of lower priority are asked to make that room.

    Args:
        session: The caller's session.
        capacity: What the cluster holds in all.
        holder: Who claims, for people.
        duration: How long the leases hold unless renewed.
        limit: Most searches to claim.

    Returns:
        The leases, in the order of the queue.
    """
    # One claim at a time: two that count the same free room would both take it, and a claim that
    # skips the head of the queue because another looks at it would let a small search overtake.
    session.execute(select(func.pg_advisory_xact_lock(_CLAIMS)))
    demand = look(session, capacity)
    packing = Packing(capacity, demand.needs())
    chosen: dict[UUID, int] = {}
    for search in candidates(session, capacity, demand, per_owner=limit):
        need, share = need_of(search), demand.share(search.owner)
        if not packing.has_room(need):
            if not chosen:
                make_room(session, search, capacity, demand)
            break
        count = share.num_allowed(need, search.num_processes)
        packing.place(need, count)
        share.add(need, count, capacity)
        chosen[search.id] = count
        if len(chosen) == limit:
            break
    return _lease(session, chosen, holder, duration) if chosen else []


def _lease(
    session: Session, chosen: Mapping[UUID, int], holder: str, duration: timedelta
) -> list[Lease]:
    rows = session.scalars(
        select(Search)
        .where(Search.id.in_(chosen), Search.status == SearchStatus.QUEUED)
        # One that its user steers at this moment can be claimed at the next try.
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    found = {search.id: search for search in rows}
    now = session.scalar(select(func.clock_timestamp()))
    assert isinstance(now, datetime)
    # In the order in which they were chosen.
    searches = [found[search_id] for search_id in chosen if search_id in found]
    for search in searches:
        search.lease_token = uuid4()
        search.lease_expires_at = now + duration
        search.leased_by = holder
        search.claimed_at = now
        search.started_at = search.started_at or now
        search.attempt += 1
        search.not_before = None
        limited = chosen[search.id] < search.num_processes
        search.max_live = chosen[search.id] if limited else None
    lifecycle.transition_all(
        session, searches, SearchStatus.RUNNING, data={"holder": holder}, now=now
    )
    return [
        Lease(search.id, search.lease_token, search.attempt)
        for search in searches
        if search.lease_token is not None
    ]


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
