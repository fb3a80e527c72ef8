"""The queue as people see it: counts, who waits and why, who runs, what the cluster holds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, true, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from search_core.spec.resources import times, total
from store import access, estimates, order
from store.access import Principal
from store.demand import Demand, look, need_of
from store.models import Dispatcher, EndedCount, Search
from store.room import Capacity, Node, Packing, missing, total_custom
from store.states import ENDED, Role, SearchStatus

SEEN_LATELY = timedelta(seconds=15)
"""A dispatcher, which shows itself every five seconds, counts as gone when silent for longer."""

_FORGOTTEN = timedelta(days=1)


@dataclass(frozen=True)
class Waiting:
    """A queued search, its place in the queue from 1, why it has not started, and when it may.

    `estimated_start` is None where nothing lets it start, or nothing was measured to tell from.
    """

    search: Search
    position: int
    why: str
    estimated_start: datetime | None


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
    reserved_cpus: float
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
    counts = count(session)
    seen = true() if seen_by is None else access.sees(seen_by)
    running = session.scalars(
        select(Search)
        .where(Search.status == SearchStatus.RUNNING, seen)
        .order_by(Search.started_at)
        .limit(limit)
    ).all()
    cluster = _see(session)
    ids = None
    if seen_by is not None and seen_by.role is not Role.ADMIN:
        ids = order.first_seen(session, cluster.capacity, cluster.demand, seen, limit)
    waiting = _line(session, cluster, ids, limit)
    owed = [(held.need, held.count) for held in cluster.demand.held]
    return Overview(
        counts,
        list(waiting.values())[:limit],
        running,
        cluster.dispatchers,
        cluster.capacity,
        total(times(need.cpus, count) for need, count in owed),
        total(times(need.gpus, count) for need, count in owed),
        total_custom([need for need, count in owed for _ in range(count)]),
    )


def count(session: Session) -> dict[SearchStatus, int]:
    """Searches and trainings by status; every status is there."""
    counts = dict.fromkeys(SearchStatus, 0)
    open_ones = (
        select(Search.status, func.count())
        .where(Search.status.in_(set(SearchStatus) - ENDED))
        .group_by(Search.status)
    )
    ended = select(EndedCount.status, func.sum(EndedCount.number)).group_by(EndedCount.status)
    for status, number in session.execute(union_all(open_ones, ended)):
        counts[SearchStatus(status)] = int(number)
    return counts


def fold_counts(session: Session) -> None:
    """Makes one row of all that say how many searches ended with a status. Others may count on."""
    folded = delete(EndedCount).returning(EndedCount.status, EndedCount.number).cte("folded")
    session.execute(
        insert(EndedCount).from_select(
            [EndedCount.status, EndedCount.number],
            select(folded.c.status, func.sum(folded.c.number)).group_by(folded.c.status),
        )
    )


def waiting(session: Session, search: Search) -> Waiting | None:
    """A search's place in the queue and why it waits; None when it is not queued."""
    return waiting_of(session, [search]).get(search.id)


def waiting_of(session: Session, searches: Sequence[Search]) -> dict[UUID, Waiting]:
    """The places of several searches, by id, without those that are not queued."""
    queued = [search.id for search in searches if search.status == SearchStatus.QUEUED]
    return _line(session, _see(session), queued, 0) if queued else {}


def _line(
    session: Session, cluster: "_Cluster", search_ids: Sequence[UUID] | None, first: int
) -> dict[UUID, Waiting]:
    """Certain searches of the queue, or the first ones, in its order."""
    capacity, demand = cluster.capacity, cluster.demand
    places = order.places(
        session,
        capacity,
        demand,
        search_ids=search_ids or (),
        first=max(first, estimates.MOST_FOLLOWED),
    )
    rows = {
        search.id: search for search in session.scalars(select(Search).where(Search.id.in_(places)))
    }
    line = [rows[search_id] for search_id in places if search_id in rows]
    # Of those further back a start cannot be told better than by how fast the line moves.
    head = [search for search in line if places[search.id].position <= estimates.MOST_FOLLOWED]
    seconds = estimates.estimate(session, capacity, demand, head)
    found = {}
    for search in line:
        if search_ids is not None and search.id not in search_ids:
            continue
        place = places[search.id]
        in_seconds = seconds.get(search.id)
        if in_seconds is None and place.position > len(head):
            in_seconds = _beyond(place, head, seconds)
        if not cluster.could_start(search):
            in_seconds = None
        found[search.id] = Waiting(
            search,
            place.position,
            cluster.why(search, place),
            None if in_seconds is None else cluster.now + timedelta(seconds=in_seconds),
        )
    return found


def _beyond(
    place: order.Place, head: Sequence[Search], seconds: Mapping[UUID, float]
) -> float | None:
    """When one starts that waits behind those that were followed: the line goes on as it began."""
    last = max(seconds.values(), default=0.0)
    if not last:
        return None
    return last * place.position / len(head)


@dataclass(frozen=True)
class _Cluster:
    """What a waiting search has to do with: who dispatches, what there is, what is taken."""

    dispatchers: Sequence[Dispatcher]
    capacity: Capacity
    demand: Demand
    now: datetime

    def could_start(self, search: Search) -> bool:
        """Whether it starts some time, if nothing changes but what runs now."""
        return (
            bool(self.dispatchers)
            and self.capacity.holds(need_of(search))
            and self._quota(search, if_nothing_ran=True) is None
        )

    def why(self, search: Search, place: order.Place) -> str:
        """Why a search has not started."""
        if not self.dispatchers:
            return "no dispatcher is running"
        if not self.capacity.nodes:
            return "the cluster has no node yet"
        if not self.capacity.holds(need_of(search)):
            needed = missing(self.capacity, need_of(search))
            return f"{needed}, which each of its trials needs"
        if (quota := self._quota(search)) is not None:
            return quota
        num_too_large = place.position - 1 - place.num_fitting_ahead
        if place.num_fitting_ahead:
            fitting = " that some node can hold" if num_too_large else ""
            num_ahead = place.num_fitting_ahead
            return f"{num_ahead}{fitting} {'is' if num_ahead == 1 else 'are'} ahead of it"
        if search.not_before is not None and search.not_before > self.now:
            moment = search.not_before.astimezone(UTC).strftime("%H:%M:%S")
            return f"it crashed and is tried again after {moment} UTC"
        if not Packing(self.capacity, self.demand.needs()).has_room(need_of(search)):
            if any(held.lets_go for held in self.demand.held):
                return "the cluster is full, and others are making room"
            return "the cluster is full"
        if num_too_large:
            return "no node can hold what is ahead of it, so it is about to start"
        return "it is about to start"

    def _quota(self, search: Search, *, if_nothing_ran: bool = False) -> str | None:
        """How the quota of its owner keeps it from running."""
        share, need = self.demand.share(search.owner), need_of(search)
        if if_nothing_ran:
            share = replace(share, num_running=0, gpus=0.0)
        if share.is_full:
            running = f"{share.num_running} of at most {share.max_running}"
            return f"its owner {search.owner} runs {running} searches"
        if not share.num_allowed(need, 1):
            return (
                f"its owner {search.owner} holds {share.gpus:g} of at most {share.max_gpus:g} "
                f"GPUs, and each of its trials needs {need.gpus:g}"
            )
        return None


def _see(session: Session) -> _Cluster:
    dispatchers = dispatchers_seen(session)
    now = session.scalar(select(func.clock_timestamp()))
    assert isinstance(now, datetime)
    capacity = _capacity(dispatchers)
    return _Cluster(dispatchers, capacity, look(session, capacity), now)


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
