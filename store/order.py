"""Who of the queue goes first: by priority, then by what their owners hold, then by age.

Among searches of one priority, that one goes first whose owner holds least of the cluster relative
to their weight; what an owner would hold once their earlier ones run counts too, so that owners who
wait side by side take turns.
"""

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Float, case, cast, func, literal, or_, select, true
from sqlalchemy.orm import Session, load_only

from store.demand import Demand, Share, fits_some_node, need_of
from store.models import Owner, Search
from store.room import Capacity
from store.states import SearchStatus

_LOOKED_AT = (
    Search.owner,
    Search.priority,
    Search.queued_at,
    Search.trial_cpus,
    Search.trial_gpus,
    Search.trial_custom,
    Search.num_processes,
)
_OWN_ORDER = (Search.priority.desc(), Search.queued_at, Search.id)


@dataclass(frozen=True)
class Place:
    """Where a queued search stands.

    Attributes:
        position: From 1.
        num_fitting_ahead: Those before it that some node could hold; others keep nobody waiting.
    """

    position: int
    num_fitting_ahead: int


def candidates(
    session: Session, capacity: Capacity, demand: Demand, *, per_owner: int
) -> Iterator[Search]:
    """Queued searches that may run now as far as nodes and quotas go, in the order of the queue.

    Whoever takes one counts it in the owner's share before asking for the next.

    Args:
        session: The caller's session.
        capacity: What the cluster holds.
        demand: What is held of it; read again for each next one.
        per_owner: Most of each owner.
    """
    own = (
        select(Search.id)
        .where(
            Search.owner == Owner.name,
            Search.status == SearchStatus.QUEUED,
            fits_some_node(capacity),
            _within_quota(demand),
            or_(Search.not_before.is_(None), Search.not_before <= func.clock_timestamp()),
        )
        .order_by(*_OWN_ORDER)
        .limit(per_owner)
        .correlate(Owner)
        .lateral()
    )
    full = [name for name, share in demand.shares.items() if share.is_full]
    rows = session.scalars(
        select(Search)
        .select_from(Owner)
        .join(own, true())
        .join(Search, Search.id == own.c.id)
        .where(Owner.name.not_in(full))
        .order_by(*_OWN_ORDER)
        # Specs may be long, and are of no matter here; rows that are chosen are read again.
        .options(load_only(*_LOOKED_AT, raiseload=True))
        .execution_options(populate_existing=True)
    ).all()
    waiting: dict[str, deque[Search]] = {}
    for search in rows:
        waiting.setdefault(search.owner, deque()).append(search)
    line = [_key(own_line[0], demand.share(owner)) for owner, own_line in waiting.items()]
    heapq.heapify(line)
    while line:
        search = waiting[heapq.heappop(line)[-1]].popleft()
        share = demand.share(search.owner)
        if not share.is_full and share.num_allowed(need_of(search), 1):
            yield search
        if waiting[search.owner]:
            heapq.heappush(line, _key(waiting[search.owner][0], share))


def _key(search: Search, share: Share) -> tuple[Any, ...]:
    return -search.priority, share.weighted, search.queued_at, search.id, search.owner


def _within_quota(demand: Demand) -> Any:
    """The condition that a trial takes no more GPUs than are left of its owner's quota."""
    left = {
        name: max(0.0, share.max_gpus - share.gpus)
        for name, share in demand.shares.items()
        if share.max_gpus is not None
    }
    if not left:
        return true()
    return or_(
        Search.trial_gpus == 0,
        Search.owner.not_in(left),
        Search.trial_gpus <= case(left, value=Search.owner, else_=literal(0.0)) + 1e-9,
    )


def places(
    session: Session,
    capacity: Capacity,
    demand: Demand,
    *,
    search_ids: Sequence[UUID] = (),
    first: int = 0,
) -> dict[UUID, Place]:
    """Where queued searches stand, in the order of the queue.

    Args:
        session: The caller's session.
        capacity: What the cluster holds.
        demand: What is held of it.
        search_ids: These; of those that are not queued there is no place.
        first: And so many from the head of the queue.
    """
    ranked = _ranked(capacity, demand).subquery()
    rows = session.execute(
        select(ranked)
        .where(or_(ranked.c.id.in_(search_ids), ranked.c.position <= first))
        .order_by(ranked.c.position)
    )
    return {row.id: Place(row.position, row.num_fitting_ahead) for row in rows}


def first_seen(
    session: Session, capacity: Capacity, demand: Demand, seen: ColumnElement[bool], limit: int
) -> Sequence[UUID]:
    """The first queued searches that meet a condition, in the order of the queue."""
    ranked = _ranked(capacity, demand).subquery()
    return session.scalars(
        select(Search.id)
        .join(ranked, ranked.c.id == Search.id)
        .where(seen)
        .order_by(ranked.c.position)
        .limit(limit)
    ).all()


def _ranked(capacity: Capacity, demand: Demand) -> Any:
    """Every queued search with its place: id, position, fitting ones ahead."""
    wanted = cast(_part_of_cluster(capacity) * Search.num_processes, Float)
    earlier = func.coalesce(
        func.sum(wanted).over(partition_by=Search.owner, order_by=_OWN_ORDER, rows=(None, -1)), 0.0
    )
    held = {name: share.part for name, share in demand.shares.items() if share.part}
    weights = {name: share.weight for name, share in demand.shares.items() if share.weight != 1}
    own = case(held, value=Search.owner, else_=literal(0.0)) if held else literal(0.0)
    weight = case(weights, value=Search.owner, else_=literal(1.0)) if weights else literal(1.0)
    # As `Share.weighted`.
    share = func.round(cast((own + earlier) / weight * 1e9, Float))
    keyed = (
        select(
            Search.id,
            Search.priority,
            Search.queued_at,
            fits_some_node(capacity).label("fits"),
            share.label("share"),
        )
        .where(Search.status == SearchStatus.QUEUED)
        .subquery()
    )
    order = (keyed.c.priority.desc(), keyed.c.share, keyed.c.queued_at, keyed.c.id)
    return select(
        keyed.c.id,
        func.row_number().over(order_by=order).label("position"),
        func.count()
        .filter(keyed.c.fits)
        .over(order_by=order, rows=(None, -1))
        .label("num_fitting_ahead"),
    )


def _part_of_cluster(capacity: Capacity) -> Any:
    pairs = ((Search.trial_cpus, capacity.cpus), (Search.trial_gpus, capacity.gpus))
    parts = [column / there for column, there in pairs if there]
    if not parts:
        return literal(0.0)
    return parts[0] if len(parts) == 1 else func.greatest(*parts)
