"""What nodes hold, what trials need of one, and whether there is room. No SQL.

Amounts are summed in ten-thousandths, as Ray sums them: ten tenths of a GPU are one GPU. A share of
a GPU is on one GPU: two that are half taken have no room for 0.6.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from search_core.spec.resources import in_units, total

_ONE: Final = in_units(1)


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


def has_room(capacity: Capacity, held: Sequence[Node], wanted: Node) -> bool:
    """Whether a trial finds room on one node beside the trials that the cluster already owes.

    Places the largest first, each on the first node that holds it, as a cluster would roughly do.
    Where one of them finds no room, it comes before any new trial; unless no node is large enough
    for it, such as after its node has left: then it takes nobody's room.

    Args:
        capacity: What the cluster holds.
        held: What the open trials need, each on one node.
        wanted: What the next one needs.
    """
    free = [_Free.of(node) for node in capacity.nodes]
    for need in sorted(filter(capacity.holds, held), key=_size, reverse=True):
        if not any(node.take(need) for node in free):
            return False
    return any(node.take(wanted) for node in free)


def num_places(node: Node, need: Node) -> int:
    """How many trials of one kind an empty node runs side by side."""
    free = _Free.of(node)
    count = 0
    while free.take(need):
        count += 1
    return count


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

    def take(self, need: Node) -> bool:
        """Takes what a trial needs, if all of it is there."""
        custom = {name: in_units(amount) for name, amount in need.custom.items()}
        if in_units(need.cpus) > self.cpus:
            return False
        if any(units > self.custom.get(name, 0) for name, units in custom.items()):
            return False
        if not self._take_gpus(in_units(need.gpus)):
            return False
        self.cpus -= in_units(need.cpus)
        for name, units in custom.items():
            self.custom[name] -= units
        return True

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
