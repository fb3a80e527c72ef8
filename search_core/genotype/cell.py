"""A pair of cells as a value, as DARTS derives and prints them (arXiv 1806.09055, section 2)."""

import hashlib
import json
from collections import namedtuple
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from search_core.genotype.numbers import Version, Whole
from search_core.spec.primitives import ALL_PRIMITIVES


class Edge(NamedTuple):
    """One operation on one earlier state.

    Attributes:
        primitive: The operation's registered name.
        source: The state it reads: 0 and 1 are the cell's inputs, 2 + i is node i.
    """

    # The validation of a cell says more of what is wrong than a type could; these are for readers
    # of the schema.
    primitive: Annotated[str, Field(json_schema_extra={"enum": sorted(ALL_PRIMITIVES)})]
    source: Annotated[Whole, Field(json_schema_extra={"minimum": 0})]


def _pair(value: Any) -> Any:
    # Pydantic would take an object with the two names as well, which the schema has none of.
    if isinstance(value, dict):
        raise PydanticCustomError("edge", "Input should be a pair of a primitive and a state")
    return value


_Edge = Annotated[Edge, BeforeValidator(_pair)]


class CellGenotype(BaseModel):
    """A pair of cells, as DARTS prints them: two incoming edges for each node, in node order."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["cell"] = "cell"
    """Which kind of genotype this is."""
    version: Version = 1
    """Version of this JSON form."""
    normal: tuple[_Edge, ...] = Field(min_length=2, max_length=64)
    """Edges of the normal cell; edges 2i and 2i + 1 enter node i."""
    normal_concat: tuple[Whole, ...] = Field(min_length=1, max_length=32)
    """States whose concatenation is the normal cell's output."""
    reduce: tuple[_Edge, ...] = Field(min_length=2, max_length=64)
    """Edges of the reduction cell."""
    reduce_concat: tuple[Whole, ...] = Field(min_length=1, max_length=32)
    """States whose concatenation is the reduction cell's output."""

    @model_validator(mode="after")
    def _check_cells(self) -> Self:
        _check_cell("normal", self.normal, self.normal_concat)
        _check_cell("reduce", self.reduce, self.reduce_concat)
        return self

    @property
    def num_nodes(self) -> int:
        """Nodes of the normal cell."""
        return len(self.normal) // 2

    def to_json(self) -> str:
        """The JSON form, one line; `parse` reads it back to an equal genotype."""
        return self.model_dump_json()

    def to_text(self) -> str:
        """The text form of the DARTS papers' code; `parse` reads it back to an equal genotype."""
        # The published namedtuple's own repr, so that the text is theirs to the letter.
        published = namedtuple(  # type: ignore[name-match]
            "Genotype", ["normal", "normal_concat", "reduce", "reduce_concat"]
        )
        return repr(
            published(
                [tuple(edge) for edge in self.normal],
                list(self.normal_concat),
                [tuple(edge) for edge in self.reduce],
                list(self.reduce_concat),
            )
        )

    def canonical_json(self) -> str:
        """The JSON that the hash is taken of: sorted keys, no spaces, edges sorted in each node.

        A node sums its edges, so their order changes nothing that the network computes. The order
        of a concatenation does, and stays.
        """
        value = self.model_dump(mode="json")
        for cell in ("normal", "reduce"):
            edges = value[cell]
            value[cell] = [
                edge
                for node in range(0, len(edges), 2)
                for edge in sorted(edges[node : node + 2], key=lambda edge: (edge[1], edge[0]))
            ]
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits: the architecture's address."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def _check_cell(name: str, edges: tuple[Edge, ...], concat: tuple[int, ...]) -> None:
    if len(edges) % 2:
        raise ValueError(f"{name}: {len(edges)} edges, but every node has exactly two")
    num_nodes = len(edges) // 2
    for index, edge in enumerate(edges):
        if edge.primitive not in ALL_PRIMITIVES:
            known = ", ".join(sorted(ALL_PRIMITIVES))
            raise ValueError(
                f"{name}[{index}]: unknown primitive {edge.primitive!r}; known are: {known}"
            )
        num_states = 2 + index // 2
        if not 0 <= edge.source < num_states:
            raise ValueError(
                f"{name}[{index}]: node {index // 2} cannot read state {edge.source}; "
                f"it sees states 0 to {num_states - 1}"
            )
    for state in concat:
        if not 0 <= state < 2 + num_nodes:
            raise ValueError(
                f"{name}_concat: no state {state} in a cell with states 0 to {1 + num_nodes}"
            )
    if len(set(concat)) != len(concat):
        raise ValueError(f"{name}_concat: a state repeats")
