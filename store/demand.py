"""What the running searches hold of the cluster, whose it is, and what a queued one would need."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Double, and_, case, cast, false, func, literal, or_, select
from sqlalchemy.orm import Session

from search_core.spec.resources import total
from store.models import Owner, Search, Trial
from store.room import Capacity, Node
from store.states import TRIAL_ENDED, SearchStatus


@dataclass(frozen=True)
class Held:
    """What a running search needs for the trials that it still has to run.

    Attributes:
        search_id: The search.
        owner: Whose it is.
        need: What each of its processes needs of a node.
        count: Processes that may run at once.
        priority: The search's.
        preemptible: Whether one of a higher priority may take its place.
        claimed_at: When its present attempt began.
        lets_go: Whether it was asked to let go of all of this: to pause, to make room, to end.
    """

    search_id: UUID
    owner: str
    need: Node
    count: int
    priority: int
    preemptible: bool
    claimed_at: datetime
    lets_go: bool


@dataclass
class Share:
    """An owner's part of the cluster, and how much of it they may have.

    Attributes:
        weight: Their part relative to others'.
        max_running: Most running searches; None for no limit.
        max_gpus: Most GPUs; None for no limit.
        num_running: Running searches.
        gpus: GPUs that these hold.
        part: Of the cluster's CPUs or GPUs, whichever they hold the larger part of; from 0.
    """

    weight: float = 1.0
    max_running: int | None = None
    max_gpus: float | None = None
    num_running: int = 0
    gpus: float = 0.0
    part: float = 0.0

    @property
    def weighted(self) -> float:
        """What decides between owners: who has the least goes first.

        In thousand millionths: a sum of thirds is not to decide what age should.
        """
        return round(self.part / self.weight * 1e9)

    @property
    def is_full(self) -> bool:
        """Whether no further search may run, however small."""
        return self.max_running is not None and self.num_running >= self.max_running

    def num_allowed(self, need: Node, count: int) -> int:
        """How many of a search's processes may run at once, as far as the quota of GPUs goes."""
        if self.max_gpus is None or not need.gpus:
            return count
        left = total([self.max_gpus, -self.gpus])
        return max(0, min(count, int(round(left / need.gpus, 6))))

    def add(self, need: Node, count: int, capacity: Capacity) -> None:
        """Counts a search that runs."""
        self.num_running += 1
        self.gpus = total([self.gpus, need.gpus * count])
        self.part += part_of(need, capacity) * count


@dataclass(frozen=True)
class Demand:
    """What is held at one moment.

    Attributes:
        held: By each running search.
        shares: By owner; an owner who holds nothing and has no quota may be missing.
    """

    held: Sequence[Held]
    shares: dict[str, Share] = field(default_factory=dict)

    def needs(self, *, without: Iterable[UUID] = ()) -> Counter[Node]:
        """How many processes of each kind the cluster owes, without those of some searches."""
        left_out = set(without)
        counts: Counter[Node] = Counter()
        for each in self.held:
            if each.search_id not in left_out:
                counts[each.need] += each.count
        return counts

    def share(self, owner: str) -> Share:
        """An owner's part."""
        return self.shares.setdefault(owner, Share())


def look(session: Session, capacity: Capacity) -> Demand:
    """What is held now.

    Args:
        session: The caller's session.
        capacity: What the cluster holds, which parts are of.
    """
    # Trials that are stacked run in one process.
    is_open = Trial.status.not_in(TRIAL_ENDED)
    # Columns, and not rows: one that the session has seen while it was queued may run by now, and
    # would be told as it was.
    rows = session.execute(
        select(
            Search.id,
            Search.owner,
            Search.trial_cpus,
            Search.trial_gpus,
            Search.trial_custom,
            Search.priority,
            Search.preemptible,
            Search.claimed_at,
            Search.max_live,
            func.num_nonnulls(
                Search.cancel_requested_at,
                Search.pause_requested_at,
                Search.preempt_requested_at,
            ).label("num_asked"),
            func.count(Trial.stack.distinct()).filter(is_open).label("num_open"),
        )
        .join(Trial, Trial.search_id == Search.id, isouter=True)
        .where(Search.status == SearchStatus.RUNNING)
        .group_by(Search.id)
    )
    held = [
        Held(
            row.id,
            row.owner,
            Node(row.trial_cpus, row.trial_gpus, custom=row.trial_custom),
            row.num_open if row.max_live is None else min(row.num_open, row.max_live),
            row.priority,
            row.preemptible,
            row.claimed_at,
            row.num_asked > 0,
        )
        for row in rows
    ]
    shares = {
        owner.name: Share(owner.weight, owner.max_running, owner.max_gpus)
        for owner in session.scalars(select(Owner))
    }
    for each in held:
        shares[each.owner].add(each.need, each.count, capacity)
    return Demand(held, shares)


def need_of(search: Search) -> Node:
    """What each trial of a search needs of its node."""
    return Node(search.trial_cpus, search.trial_gpus, custom=search.trial_custom)


def part_of(need: Node, capacity: Capacity) -> float:
    """A need's part of the cluster: of its CPUs or of its GPUs, whichever is larger."""
    parts = [
        wanted / there
        for wanted, there in ((need.cpus, capacity.cpus), (need.gpus, capacity.gpus))
        if there
    ]
    return max(parts, default=0.0)


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
    amounts: Mapping[str, float] = dict(held)
    available = case(amounts, value=need.c.key, else_=0.0) if held else literal(0.0)
    more_than_held = (
        select(1).select_from(need).where(cast(need.c.value, Double) > available).exists()
    )
    return or_(Search.trial_custom == {}, ~more_than_held)
