"""The queue as people see it: counts, who waits and why, who runs, what the cluster holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import and_, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store import leases
from store.leases import Capacity, Node
from store.models import Dispatcher, Search
from store.states import SearchStatus

SEEN_LATELY = timedelta(seconds=30)
"""A dispatcher that was not seen for longer counts as gone."""


@dataclass(frozen=True)
class Waiting:
    """A queued search, its place in the queue from 1, and why it has not started."""

    search: Search
    position: int
    why: str


@dataclass(frozen=True)
class Overview:
    """The whole queue at one moment.

    Attributes:
        counts: Searches by status; every status is there.
        waiting: The first ones in line.
        running: The running ones, the longest first.
        dispatchers: The ones seen lately.
        capacity: What the clusters of those dispatchers hold.
        reserved_cpus: CPUs that the running searches' open trials need.
        reserved_gpus: GPUs that the running searches' open trials need.
    """

    counts: dict[SearchStatus, int]
    waiting: Sequence[Waiting]
    running: Sequence[Search]
    dispatchers: Sequence[Dispatcher]
    capacity: Capacity
    reserved_cpus: int
    reserved_gpus: int


def heartbeat(
    session: Session, dispatcher_id: str, *, host: str, pid: int, capacity: Capacity
) -> None:
    """Records that a dispatcher is alive and what its cluster holds."""
    nodes = [{"cpus": node.cpus, "gpus": node.gpus} for node in capacity.nodes]
    statement = insert(Dispatcher).values(id=dispatcher_id, host=host, pid=pid, nodes=nodes)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Dispatcher.id],
            set_={"nodes": statement.excluded.nodes, "seen_at": func.clock_timestamp()},
        )
    )


def sign_off(session: Session, dispatcher_id: str) -> None:
    """Forgets a dispatcher that stops in good order."""
    dispatcher = session.get(Dispatcher, dispatcher_id)
    if dispatcher is not None:
        session.delete(dispatcher)


def dispatchers_seen(session: Session) -> Sequence[Dispatcher]:
    """The dispatchers that were seen lately."""
    return session.scalars(
        select(Dispatcher)
        .where(Dispatcher.seen_at > func.clock_timestamp() - SEEN_LATELY)
        .order_by(Dispatcher.started_at)
    ).all()


def overview(session: Session, *, limit: int = 100) -> Overview:
    """The queue now, with at most `limit` waiting and `limit` running searches."""
    counts = dict.fromkeys(SearchStatus, 0)
    for status, count in session.execute(
        select(Search.status, func.count()).group_by(Search.status)
    ):
        counts[SearchStatus(status)] = count
    queued = session.scalars(
        select(Search)
        .where(Search.status == SearchStatus.QUEUED)
        .order_by(Search.priority.desc(), Search.queued_at, Search.id)
        .limit(limit)
    ).all()
    running = session.scalars(
        select(Search)
        .where(Search.status == SearchStatus.RUNNING)
        .order_by(Search.started_at)
        .limit(limit)
    ).all()
    dispatchers = dispatchers_seen(session)
    capacity = _capacity(dispatchers)
    reserved_cpus, reserved_gpus = leases.reserved(session)
    waiting = []
    num_ahead = 0
    for position, search in enumerate(queued, start=1):
        fits = _fits(search, capacity)
        waiting.append(Waiting(search, position, _why(search, capacity, num_ahead, fits=fits)))
        # A search that no node can hold keeps nobody waiting.
        num_ahead += fits
    return Overview(counts, waiting, running, dispatchers, capacity, reserved_cpus, reserved_gpus)


def waiting(session: Session, search: Search) -> Waiting | None:
    """A search's place in the queue and why it waits; None when it is not queued."""
    if search.status != SearchStatus.QUEUED:
        return None
    is_ahead = and_(
        Search.status == SearchStatus.QUEUED,
        or_(
            Search.priority > search.priority,
            and_(
                Search.priority == search.priority,
                or_(
                    Search.queued_at < search.queued_at,
                    and_(Search.queued_at == search.queued_at, Search.id < search.id),
                ),
            ),
        ),
    )
    capacity = _capacity(dispatchers_seen(session))
    num_ahead, num_fitting_ahead = session.execute(
        select(func.count(), func.count().filter(leases.fits_some_node(capacity))).where(is_ahead)
    ).one()
    why = _why(search, capacity, num_fitting_ahead, fits=_fits(search, capacity))
    return Waiting(search, num_ahead + 1, why)


def waiting_of(session: Session, searches: Sequence[Search]) -> dict[UUID, Waiting]:
    """The same as `waiting` for several searches at once, without those that are not queued."""
    queued = {search.id: search for search in searches if search.status == SearchStatus.QUEUED}
    if not queued:
        return {}
    capacity = _capacity(dispatchers_seen(session))
    order = (Search.priority.desc(), Search.queued_at, Search.id)
    places = (
        select(
            Search.id,
            func.row_number().over(order_by=order).label("position"),
            func.count()
            .filter(leases.fits_some_node(capacity))
            .over(order_by=order, rows=(None, -1))
            .label("num_fitting_ahead"),
        )
        .where(Search.status == SearchStatus.QUEUED)
        .subquery()
    )
    found = {}
    for search_id, position, num_ahead in session.execute(
        select(places).where(places.c.id.in_(queued))
    ):
        search = queued[search_id]
        why = _why(search, capacity, num_ahead, fits=_fits(search, capacity))
        found[search_id] = Waiting(search, position, why)
    return found


def _capacity(dispatchers: Sequence[Dispatcher]) -> Capacity:
    # Dispatchers of one deployment share one cluster; the latest report stands for all.
    if not dispatchers:
        return Capacity(nodes=())
    latest = max(dispatchers, key=lambda dispatcher: dispatcher.seen_at)
    return Capacity(tuple(Node(node["cpus"], node["gpus"]) for node in latest.nodes))


def _fits(search: Search, capacity: Capacity) -> bool:
    return any(
        search.trial_cpus <= node.cpus and search.trial_gpus <= node.gpus for node in capacity.nodes
    )


def _why(search: Search, capacity: Capacity, num_ahead: int, *, fits: bool) -> str:
    if not capacity.nodes:
        return "no dispatcher is running"
    if not fits:
        return (
            f"no node has {search.trial_cpus} CPUs and {search.trial_gpus} GPUs, "
            "which each of its trials needs"
        )
    if num_ahead:
        return "1 search is ahead of it" if num_ahead == 1 else f"{num_ahead} are ahead of it"
    return "the cluster is full"
