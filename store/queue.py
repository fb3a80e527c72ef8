"""The queue as people see it: counts, who waits and why, who runs, what the cluster holds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from search_core.spec.resources import total
from store import access, leases
from store.access import Principal
from store.leases import Capacity, Node
from store.models import Dispatcher, Search
from store.room import missing, total_custom
from store.states import SearchStatus

SEEN_LATELY = timedelta(seconds=15)
"""A dispatcher, which shows itself every five seconds, counts as gone when silent for longer."""

_FORGOTTEN = timedelta(days=1)


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
        reserved_custom: Custom resources that the running searches' open trials need, by name.
    """

    counts: dict[SearchStatus, int]
    waiting: Sequence[Waiting]
    running: Sequence[Search]
    dispatchers: Sequence[Dispatcher]
    capacity: Capacity
    reserved_cpus: int
    reserved_gpus: float
    reserved_custom: dict[str, float]


def heartbeat(
    session: Session, dispatcher_id: str, *, host: str, pid: int, capacity: Capacity
) -> None:
    """Records that a dispatcher is alive and what its cluster holds."""
    nodes = [asdict(node) for node in capacity.nodes]
    statement = insert(Dispatcher).values(id=dispatcher_id, host=host, pid=pid, nodes=nodes)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Dispatcher.id],
            set_={"nodes": statement.excluded.nodes, "seen_at": func.clock_timestamp()},
        )
    )
    # Rows of those that crashed.
    session.execute(
        delete(Dispatcher).where(Dispatcher.seen_at < func.clock_timestamp() - _FORGOTTEN)
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


def largest_memory(session: Session) -> float | None:
    """The memory of the cluster's largest node in bytes; None where it is not known of all."""
    memories = [node.memory for node in _capacity(dispatchers_seen(session)).nodes]
    known = [memory for memory in memories if memory is not None]
    return max(known) if known and len(known) == len(memories) else None


def overview(session: Session, *, seen_by: Principal | None = None, limit: int = 100) -> Overview:
    """The queue now.

    Args:
        session: The caller's session.
        seen_by: Only searches that they see are listed; None lists all. Counts, places and the
            cluster are everybody's.
        limit: Most waiting and most running searches to list.
    """
    counts = dict.fromkeys(SearchStatus, 0)
    for status, count in session.execute(
        select(Search.status, func.count()).group_by(Search.status)
    ):
        counts[SearchStatus(status)] = count
    seen = true() if seen_by is None else access.sees(seen_by)
    queued = session.scalars(
        select(Search)
        .where(Search.status == SearchStatus.QUEUED, seen)
        .order_by(Search.priority.desc(), Search.queued_at, Search.id)
        .limit(limit)
    ).all()
    running = session.scalars(
        select(Search)
        .where(Search.status == SearchStatus.RUNNING, seen)
        .order_by(Search.started_at)
        .limit(limit)
    ).all()
    cluster = _see(session)
    places = waiting_of(session, queued)
    return Overview(
        counts,
        [places[search.id] for search in queued],
        running,
        cluster.dispatchers,
        cluster.capacity,
        int(sum(trial.cpus for trial in cluster.open_trials)),
        total(trial.gpus for trial in cluster.open_trials),
        total_custom(cluster.open_trials),
    )


def waiting(session: Session, search: Search) -> Waiting | None:
    """A search's place in the queue and why it waits; None when it is not queued."""
    return waiting_of(session, [search]).get(search.id)


def waiting_of(session: Session, searches: Sequence[Search]) -> dict[UUID, Waiting]:
    """The places of several searches, by id, without those that are not queued."""
    queued = {search.id: search for search in searches if search.status == SearchStatus.QUEUED}
    if not queued:
        return {}
    cluster = _see(session)
    order = (Search.priority.desc(), Search.queued_at, Search.id)
    places = (
        select(
            Search.id,
            func.row_number().over(order_by=order).label("position"),
            func.count()
            .filter(leases.fits_some_node(cluster.capacity))
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
        found[search_id] = Waiting(search, position, cluster.why(search, position, num_ahead))
    return found


@dataclass(frozen=True)
class _Cluster:
    """What a waiting search has to do with: who dispatches, what there is, what is taken."""

    dispatchers: Sequence[Dispatcher]
    capacity: Capacity
    open_trials: Sequence[Node]
    now: datetime

    def could_hold(self, search: Search) -> bool:
        """Whether some node is large enough for one of the search's trials."""
        return self.capacity.holds(leases.need_of(search))

    def why(self, search: Search, position: int, num_ahead: int) -> str:
        """Why a search in this place, with so many before it that fit, has not started."""
        if not self.dispatchers:
            return "no dispatcher is running"
        if not self.capacity.nodes:
            return "the cluster has no node yet"
        if not self.could_hold(search):
            needed = missing(self.capacity, leases.need_of(search))
            return f"{needed}, which each of its trials needs"
        num_too_large = position - 1 - num_ahead
        if num_ahead:
            fitting = " that some node can hold" if num_too_large else ""
            return (
                f"1{fitting} is ahead of it"
                if num_ahead == 1
                else f"{num_ahead}{fitting} are ahead of it"
            )
        if search.not_before is not None and search.not_before > self.now:
            moment = search.not_before.astimezone(UTC).strftime("%H:%M:%S")
            return f"it crashed and is tried again after {moment} UTC"
        if not leases.has_room(self.capacity, self.open_trials, leases.need_of(search)):
            return "the cluster is full"
        if num_too_large:
            return "no node can hold what is ahead of it, so it is about to start"
        return "it is about to start"


def _see(session: Session) -> _Cluster:
    dispatchers = dispatchers_seen(session)
    now = session.scalar(select(func.clock_timestamp()))
    assert isinstance(now, datetime)
    return _Cluster(dispatchers, _capacity(dispatchers), leases.open_trials(session), now)


def _capacity(dispatchers: Sequence[Dispatcher]) -> Capacity:
    if not dispatchers:
        return Capacity(())
    # Dispatchers of one deployment share one cluster; the latest report stands for all.
    latest = max(dispatchers, key=lambda dispatcher: dispatcher.seen_at)
    return Capacity(
        tuple(
            Node(node["cpus"], node["gpus"], node["memory"], node["custom"])
            for node in latest.nodes
        )
    )
