"""What nodes hold, what trials need of one, and whether there is room. No SQL.

Amounts are summed in ten-thousandths, as Ray sums them: ten tenths of a GPU are one GPU. A share of
a GPU is on one GPU: two that are half taken have no room for 0.6.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from search_core.spec.resources import in_units, total

_ONE: Final = in_units(1)
_MANY: Final = 1_000_000


@dataclass(frozen=True)
class Node:
    """What one node of a cluster holds, or what a trial needs of one.

    Attributes:
        cpus: Logical CPUs.
        gpus: Logical GPUs; of a trial maybe a share of one.
        memory: Bytes that trials may use; None where nobody knows. Claims do not count them.
        custom: Amounts of other resources, by name.
    """

    cpus: float
    gpus: float = 0.0
    memory: float | None = None
    custom: Mapping[str, float] = field(default_factory=dict)

    def __hash__(self) -> int:
        """Of equal needs there is one count, though a mapping of resources has no hash itself."""
        return hash((self.cpus, self.gpus, self.memory, *sorted(self.custom.items())))

    def lacks(self, need: "Node") -> list[str]:
        """The resources of which the node has less than a trial needs, even while it is empty.

        Returns:
            `cpus`, `gpus` and names of custom resources; empty where the node could hold it.
        """
        return [
            name
            for name, amount in need.amounts()
            if in_units(amount) > in_units(dict(self.amounts()).get(name, 0))
        ]

    def holds(self, need: "Node") -> bool:
        """Whether the node is large enough for a trial, while nothing else runs on it."""
        return not self.lacks(need)

    def amounts(self) -> Iterator[tuple[str, float]]:
        """What there is of each resource but memory, in the order in which people name them."""
        yield "cpus", self.cpus
        yield "gpus", self.gpus
        yield from sorted(self.custom.items())


@dataclass(frozen=True)
class Capacity:
    """What a cluster holds, node by node: a trial needs all of its resources on one node."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> float:
        """Logical CPUs of all nodes."""
        return total(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """Logical GPUs of all nodes."""
        return total(node.gpus for node in self.nodes)

    @property
    def custom(self) -> dict[str, float]:
        """Custom resources of all nodes, by name."""
        return total_custom(self.nodes)

    def holds(self, need: Node) -> bool:
        """Whether some node is large enough for a trial."""
        return any(node.holds(need) for node in self.nodes)


def total_custom(nodes: Sequence[Node]) -> dict[str, float]:
    """The custom resources of several nodes, or needs, together, by name."""
    names = sorted({name for node in nodes for name in node.custom})
    return {name: total(node.custom.get(name, 0) for node in nodes) for name in names}


class Packing:
    """The nodes of a cluster with what it owes placed on them.

    Places the largest first, each on the first node that holds it, as a cluster would roughly do.

    Args:
        capacity: What the cluster holds.
        held: How many of each kind of trial it owes. One that no node is large enough for, such as
            after its node has left, takes nobody's room.

    Attributes:
        owes: Whether something that it owes found no room: that comes before anything new.
    """

    def __init__(self, capacity: Capacity, held: Mapping[Node, int]) -> None:
        """Places what is held."""
        self._capacity = capacity
        self._free = [_Free.of(node) for node in capacity.nodes]
        self.owes = False
        for need in sorted(held, key=_size, reverse=True):
            self.place(need, held[need])

    def has_room(self, need: Node) -> bool:
        """Whether one more trial finds room now."""
        return not self.owes and any(node.has(need) for node in self._free)

    def place(self, need: Node, count: int) -> None:
        """Places trials of one kind that the cluster owes from now on."""
        if not self._capacity.holds(need):
            return
        for node in self._free:
            count -= node.take(need, count)
            if not count:
                return
        self.owes = True


def has_room(capacity: Capacity, held: Sequence[Node], wanted: Node) -> bool:
    """Whether a trial finds room on one node beside the trials that the cluster already owes.

    Args:
        capacity: What the cluster holds.
        held: What the open trials need, each on one node.
        wanted: What the next one needs.
    """
    return Packing(capacity, Counter(held)).has_room(wanted)


def num_places(node: Node, need: Node) -> int:
    """How many trials of one kind an empty node runs side by side."""
    return _Free.of(node).take(need, _MANY)


def _size(need: Node) -> tuple[int, int, int]:
    return in_units(need.gpus), sum(map(in_units, need.custom.values())), in_units(need.cpus)


@dataclass
class _Free:
    """What is left of a node, in ten-thousandths; of GPUs, what is left of each."""

    cpus: int
    gpus: list[int]
    custom: dict[str, int]

    @classmethod
    def of(cls, node: Node) -> Self:
        whole, rest = divmod(in_units(node.gpus), _ONE)
        return cls(
            in_units(node.cpus),
            [_ONE] * whole + [rest] * (rest > 0),
            {name: in_units(amount) for name, amount in node.custom.items()},
        )

    def has(self, need: Node) -> bool:
        """Whether all that a trial needs is there."""
        copy = type(self)(self.cpus, [*self.gpus], dict(self.custom))
        return copy.take(need, 1) == 1

    def take(self, need: Node, count: int) -> int:
        """Takes what trials of one kind need, as many of them as there is room for.

        Returns:
            For how many.
        """
        custom = {name: in_units(amount) for name, amount in need.custom.items()}
        rooms = [self.custom.get(name, 0) // units for name, units in custom.items() if units]
        cpus, gpus = in_units(need.cpus), in_units(need.gpus)
        taken = min([count, *rooms, *([self.cpus // cpus] if cpus else [])])
        if gpus:
            taken = next((done for done in range(taken) if not self._take_gpus(gpus)), taken)
        self.cpus -= taken * cpus
        for name, units in custom.items():
            self.custom[name] = self.custom.get(name, 0) - taken * units
        return taken

    def _take_gpus(self, units: int) -> bool:
        if units >= _ONE:
            untouched = [index for index, left in enumerate(self.gpus) if left == _ONE]
            wanted = -(-units // _ONE)
            if len(untouched) < wanted:
                return False
            for index in untouched[:wanted]:
                self.gpus[index] = 0
        elif units:
            # On the GPU with the least left that suffices, as Ray does.
            enough = [(left, index) for index, left in enumerate(self.gpus) if left >= units]
            if not enough:
                return False
            self.gpus[min(enough)[1]] -= units
        return True


def missing(capacity: Capacity, need: Node) -> str:
    """Which resources keep a trial from every node, as in `no node has 1 GPU and 1 a100`."""
    if not capacity.nodes:
        return "there is no node"
    lacking = [set(node.lacks(need)) for node in capacity.nodes]
    nowhere, together = set.intersection(*lacking), ""
    if not nowhere:
        # Each of them is somewhere, but not all on one node.
        nowhere, together = set.union(*lacking), " together"
    *first, last = (_counted(name, amount) for name, amount in need.amounts() if name in nowhere)
    return f"no node has {', '.join(first)}{' and ' if first else ''}{last}{together}"


def _counted(name: str, amount: float) -> str:
    """An amount of a resource as people say it: `1 CPU`, `0.5 GPUs`, `2 a100`."""
    if name in ("cpus", "gpus"):
        name = name[:3].upper() + ("" if amount == 1 else "s")
    return f"{amount:.10g} {name}"
