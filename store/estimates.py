"""When queued searches will start, if the running ones go on at the pace that was measured."""

import heapq
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.demand import Demand, Share, need_of
from store.models import Search, Trial
from store.room import Capacity, Node, Packing
from store.states import TRIAL_ENDED, SearchStatus, TrialStatus

MOST_FOLLOWED: Final = 50
"""Searches at the head of the queue whose starts are worked out one by one."""

_LATEST: Final = 20


@dataclass(frozen=True)
class Running:
    """A search that holds something, and for how long it still will."""

    owner: str
    need: Node
    count: int
    seconds_left: float


@dataclass(frozen=True)
class Queued:
    """A search in line, and how long it will take once it runs."""

    search_id: UUID
    owner: str
    need: Node
    count: int
    seconds: float


def starts(
    capacity: Capacity,
    running: Sequence[Running],
    line: Sequence[Queued],
    shares: Mapping[str, Share],
) -> dict[UUID, float]:
    """In how many seconds each search of a queue will start. No SQL.

    Args:
        capacity: What the cluster holds.
        running: What holds it now.
        line: The queue in its order, without those that no node could hold.
        shares: Quotas, by owner.

    Returns:
        Seconds from now, by id; without those that nothing lets start.
    """
    ends = [(each.seconds_left, number, each) for number, each in enumerate(running)]
    heapq.heapify(ends)
    waiting, found, now = list(line), {}, 0.0
    while waiting:
        held = [each for _, _, each in ends]
        for queued in _startable(capacity, held, waiting, shares):
            found[queued.search_id] = now
            waiting.remove(queued)
            begun = Running(queued.owner, queued.need, queued.count, queued.seconds)
            heapq.heappush(ends, (now + queued.seconds, len(running) + len(found), begun))
        if not ends:
            break
        now, _, _ = heapq.heappop(ends)
    return found


def _startable(
    capacity: Capacity, held: list[Running], waiting: list[Queued], shares: Mapping[str, Share]
) -> list[Queued]:
    needs: Counter[Node] = Counter()
    for each in held:
        needs[each.need] += each.count
    packing = Packing(capacity, needs)
    num_running = Counter(each.owner for each in held)
    startable = []
    for queued in waiting:
        share = shares.get(queued.owner, Share())
        if share.max_running is not None and num_running[queued.owner] >= share.max_running:
            continue
        if not packing.has_room(queued.need):
            break
        packing.place(queued.need, queued.count)
        num_running[queued.owner] += 1
        startable.append(queued)
    return startable


def estimate(
    session: Session, capacity: Capacity, demand: Demand, line: Sequence[Search]
) -> dict[UUID, float]:
    """In how many seconds the searches at the head of the queue will start.

    Of a search that waits, it is assumed that it will take as long as those that ended last did.

    Args:
        session: The caller's session.
        capacity: What the cluster holds.
        demand: What is held of it.
        line: The head of the queue, in its order.

    Returns:
        Seconds from now, by id; empty while nothing was measured to estimate from.
    """
    typical = _typical_seconds(session)
    left = _seconds_left(session)
    if typical is None:
        typical = statistics.mean(left.values()) if left else None
    if typical is None and demand.held:
        return {}
    seconds = typical or 0.0
    running = [
        Running(held.owner, held.need, held.count, left.get(held.search_id, seconds))
        for held in demand.held
        if held.count
    ]
    queued = [
        Queued(search.id, search.owner, need_of(search), search.num_processes, seconds)
        for search in line
        if capacity.holds(need_of(search))
    ]
    return starts(capacity, running, queued, demand.shares)


def _typical_seconds(session: Session) -> float | None:
    ran = session.scalars(
        select(Search.ran_seconds)
        .where(Search.status == SearchStatus.SUCCEEDED)
        .order_by(Search.id.desc())
        .limit(_LATEST)
    ).all()
    return statistics.median(ran) if ran else None


def _seconds_left(session: Session) -> dict[UUID, float]:
    """What each running search still takes at the pace of its last epochs, where it has any."""
    rows = session.execute(
        select(
            Trial.search_id,
            Trial.status,
            Trial.epochs - Trial.epoch,
            Trial.metrics["seconds"].as_float(),
        )
        .join(Search, Search.id == Trial.search_id)
        .where(Search.status == SearchStatus.RUNNING, Trial.status.not_in(TRIAL_ENDED))
    )
    open_trials: dict[UUID, list[tuple[str, int, float | None]]] = {}
    for search_id, status, epochs, pace in rows:
        open_trials.setdefault(search_id, []).append((status, epochs, pace))
    found = {}
    for search_id, trials in open_trials.items():
        paces = [pace for _, _, pace in trials if pace]
        if not paces:
            continue
        usual = statistics.mean(paces)
        now = [epochs * (pace or usual) for status, epochs, pace in trials
               if status == TrialStatus.RUNNING]  # fmt: skip
        later = [epochs * usual for status, epochs, _ in trials if status != TrialStatus.RUNNING]
        # Those that wait for a place take turns on the places of those that run.
        found[search_id] = max(now, default=0.0) + sum(later) / max(1, len(now))
    return found
