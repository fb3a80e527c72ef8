"""Making room for a search of a higher priority by pausing preemptible ones of lower priority."""

from collections.abc import Callable
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store import events
from store.demand import Demand, Held, need_of
from store.models import Search
from store.room import Capacity, Packing
from store.states import SearchStatus


def make_room(session: Session, search: Search, capacity: Capacity, demand: Demand) -> None:
    """Asks running searches to let go, if that makes room for one that waits for it.

    The youngest of the lowest priority first, and no more than it takes; nobody, if even all of
    them would not do, or if what others are letting go of already does.

    Args:
        session: The caller's session, in which one claim goes on at a time.
        search: The first in line, for which there is no room.
        capacity: What the cluster holds.
        demand: What is held of it.
    """
    gone = {held.search_id for held in demand.held if held.lets_go}
    need = need_of(search)

    def would_do(without: set[UUID]) -> bool:
        return Packing(capacity, demand.needs(without=without)).has_room(need)

    if would_do(gone):
        return
    victims = []
    for held in sorted(demand.held, key=_first_to_go):
        if not held.preemptible or held.lets_go or held.priority >= search.priority:
            continue
        victims.append(held.search_id)
        if would_do({*gone, *victims}):
            # Smaller ones that were asked first may not be needed once the last one goes.
            _ask(session, _needed(victims, gone, would_do), search)
            return


def _first_to_go(held: Held) -> tuple[int, float]:
    return held.priority, -held.claimed_at.timestamp()


def _needed(
    victims: list[UUID], gone: set[UUID], would_do: Callable[[set[UUID]], bool]
) -> set[UUID]:
    needed = set(victims)
    for victim in victims:
        if would_do({*gone, *(needed - {victim})}):
            needed.discard(victim)
    return needed


def _ask(session: Session, search_ids: set[UUID], winner: Search) -> None:
    rows = session.scalars(
        select(Search)
        .where(Search.id.in_(search_ids), Search.status == SearchStatus.RUNNING)
        # One that its user steers at this moment is asked at the next try, if it still runs.
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    now = session.scalars(select(func.clock_timestamp())).one()
    for row in rows:
        row.preempt_requested_at = now
    session.flush()
    for row in rows:
        data = {"priority": winner.priority, "message": "One of a higher priority needs its place."}
        events.append(session, row.id, f"{row.kind}.preempt_requested", data)
        events.notify(session, events.QUEUE_CHANNEL, row.id)
