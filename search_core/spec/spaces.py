"""Search spaces: what a supernet is built from. Told apart by `kind`."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from search_core.spec import primitives as names
from search_core.spec.base import SpecModel, field_error
from search_core.spec.hypercuboid import HyperCuboidSpace
from search_core.spec.primitives import Family

REDUCTIONS = 2
"""Reduction cells in every cell network: at a third and at two thirds of its depth."""


class CellSpace(SpecModel):
    """A network of repeated cells whose edges choose among primitives (arXiv 1806.09055).

    A cell has two inputs and `nodes` nodes; node i sums the edges from all 2 + i earlier states.
    """

    channels: int = Field(default=16, ge=1, le=1024)
    """Channels of the first cell; each reduction doubles them."""
    cells: int = Field(default=8, ge=3, le=100)
    """Cells in the network. The ones at a third and at two thirds of the depth reduce, so fewer
    than 3 would leave no normal cell to search."""
    nodes: int = Field(default=4, ge=1, le=12)
    """Nodes in a cell."""
    choke_channels: int = Field(default=32, ge=1, le=1024)
    """Middle channels of the `choke_conv` primitives."""
    family: Family
    """Which operations the primitive names stand for."""
    primitives: tuple[str, ...] = Field(min_length=1, max_length=64, strict=False)
    """The candidate operations of an edge, in the order of alpha's columns."""

    @property
    def num_edges(self) -> int:
        """Edges of one cell: 2 + 3 + ... + (nodes + 1)."""
        return self.nodes * (self.nodes + 3) // 2

    @field_validator("primitives")
    @classmethod
    def _check_primitives(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        family = info.data.get("family")
        if family is None:  # itself invalid and reported
            return value
        allowed = names.PRIMITIVES[family]
        for index, name in enumerate(value):
            if name not in allowed:
                raise field_error(
                    f"unknown primitive {name!r} in the {family!r} family; "
                    f"choose from: {', '.join(allowed)}",
                    index,
                )
            if name in value[:index]:
                raise field_error(f"primitive {name!r} repeats", index)
        if value == (names.NONE,):
            raise ValueError("primitives need at least one that is not 'none'")
        return value


class DartsSpace(CellSpace):
    """The DARTS space: 8 primitives, original operations."""

    kind: Literal["darts"]
    family: Family = "darts"
    """Which operations the primitive names stand for."""
    primitives: tuple[str, ...] = Field(
        default=names.DARTS, min_length=1, max_length=64, strict=False
    )
    """The candidate operations of an edge, in the order of alpha's columns."""


class SharpDartsSpace(CellSpace):
    """The sharpDARTS space: 9 primitives built on SharpSepConv (arXiv 1903.09900)."""

    kind: Literal["sharp_darts"]
    family: Family = "sharp"
    """Which operations the primitive names stand for."""
    primitives: tuple[str, ...] = Field(
        default=names.SHARP_DARTS, min_length=1, max_length=64, strict=False
    )
    """The candidate operations of an edge, in the order of alpha's columns."""


class SharperDartsSpace(CellSpace):
    """The sharperDARTS space: 12 primitives built on SharpSepConv (arXiv 1903.09900)."""

    kind: Literal["sharper_darts"]
    family: Family = "sharp"
    """Which operations the primitive names stand for."""
    primitives: tuple[str, ...] = Field(
        default=names.SHARPER_DARTS, min_length=1, max_length=64, strict=False
    )
    """The candidate operations of an edge, in the order of alpha's columns."""


Space = Annotated[
    DartsSpace | SharpDartsSpace | SharperDartsSpace | HyperCuboidSpace,
    Field(discriminator="kind"),
]
"""A search space, told apart by `kind`."""
