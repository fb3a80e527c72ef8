"""How large what a spec searches is, and whether it fits the nodes that are known."""

from typing import Self

from search_core import cell_size
from search_core.cuboid_size import searched_size
from search_core.spec import SearchSpec
from search_core.spec.spaces import CellSpace
from service.problems import FieldProblem
from service.schema_base import Answer
from service.spec_body import invalid_spec

_GIB = 2**30


class SpaceSize(Answer):
    """How large a space is, counted before anything is built."""

    positions: int | None
    """Operations of one path through a hypercuboid; null for cells."""
    operations: int
    """Operations that are weighted against others: the number of alphas."""
    architectures: int
    """Architectures that can be derived: paths through a hypercuboid, or pairs of cells. Exact, and
    so often more than 64 bits hold."""
    parameters: int | None
    """Weights of the network that contains them all; null for cells, whose network is not counted
    beforehand."""
    multiply_adds: int | None
    """Multiply-adds of that network for one image, of convolutions and linear layers; null for
    cells."""
    training_bytes: int | None
    """Memory that training it takes with this batch size and order, and with so many seeds stacked:
    an estimate from above. Null for cells."""

    @classmethod
    def of(cls, spec: SearchSpec) -> Self:
        """The size of a spec's space, on its images."""
        size = searched_size(spec)
        if size is None:
            return cls._of_cells(spec)
        return cls(
            positions=size.num_positions,
            operations=size.num_operations,
            architectures=size.num_paths,
            parameters=size.parameters,
            multiply_adds=size.multiply_adds,
            training_bytes=size.training_bytes,
        )

    @classmethod
    def _of_cells(cls, spec: SearchSpec) -> Self:
        assert isinstance(spec.space, CellSpace)
        exclude_none = spec.algorithm.exclude_none
        return cls(
            positions=None,
            operations=cell_size.num_operations(spec.space),
            architectures=cell_size.num_architectures(spec.space, exclude_none=exclude_none),
            parameters=None,
            multiply_adds=None,
            training_bytes=None,
        )


def refuse_too_large(spec: SearchSpec, size: SpaceSize, largest_node: float | None) -> None:
    """Refuses a search that no node has the memory for.

    Args:
        spec: The search. Of a GPU's memory nothing is known before a trial is on it.
        size: Its size.
        largest_node: Bytes of the node with the most memory; None where that is not known.

    Raises:
        ProblemError: It does not fit.
    """
    needed = size.training_bytes
    if needed is None or largest_node is None or spec.resources.gpus or needed <= largest_node:
        return
    stack = spec.trials.stack
    stacked = "" if stack == 1 else f", {stack} seeds stacked"
    lower = "training.batch_size" if stack == 1 else "training.batch_size or trials.stack"
    message = (
        f"training this cuboid takes an estimated {_gib(needed)} of memory ({size.operations:,} "
        f"operations, {size.parameters:,} weights, batches of {spec.training.batch_size}{stacked}),"
        f" and the largest node has {_gib(largest_node)}: lower {lower}, leave out choices or "
        "levels, or add a larger node"
    )
    raise invalid_spec([FieldProblem(pointer="/space", message=message)])


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / _GIB:,.1f} GiB"
