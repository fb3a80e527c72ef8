"""Pictures of cells in the DOT language.

Left to right stand the two inputs, the nodes and the output. A colour is a sort of operation, so
that the mix of a cell is seen before its labels are read. Thin grey lines are the concatenation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from search_core.genotype import CellGenotype, Edge
from service.drawing.palette import FONT, GREY, INK

CellName = Literal["normal", "reduce"]

_SORTS: Final = (
    ("skip_connect", "#6b7280"),
    ("none", "#949ca6"),
    ("max_pool", "#0b7350"),
    ("avg_pool", "#4a7a10"),
    ("sep_conv", "#1f6fc4"),
    ("dil_conv", "#7a3fc1"),
    ("flood_conv", "#a8480a"),
    ("dil_flood_conv", "#8a3606"),
    ("choke_conv", "#c02660"),
    ("dil_choke_conv", "#961b4b"),
    ("conv_7x1_1x7", "#0b7a8f"),
    ("nor_conv", "#27408b"),
)
"""Colour by the start of a primitive's name; dark enough to read on white."""

CELLS: Final[tuple[CellName, ...]] = ("normal", "reduce")
"""Both cells, in the order in which they are drawn."""

_TITLES: Final[dict[CellName, str]] = {"normal": "normal cell", "reduce": "reduction cell"}


@dataclass(frozen=True)
class Cell:
    """One cell of a genotype.

    Attributes:
        name: Which of the pair it is.
        edges: Edges 2i and 2i + 1 enter node i.
        concat: States whose concatenation is the output.
    """

    name: CellName
    edges: Sequence[Edge]
    concat: Sequence[int]


def to_dot(genotype: CellGenotype, cells: Sequence[CellName]) -> str:
    """The cells in the DOT language.

    Args:
        genotype: The architecture.
        cells: Which of its cells; several stand one above the other.
    """
    pieces = [_cell(genotype, name) for name in cells]
    body = "\n".join(_draw_cell(cell) for cell in reversed(pieces))
    return f"""digraph architecture {{
  graph [rankdir=LR, bgcolor=white, pad=0.2, nodesep=0.22, ranksep=0.38, splines=true,
         fontname="{FONT}", fontsize=15, fontcolor="{INK}"]
  node [fontname="{FONT}", fontsize=14, fontcolor="{INK}", color="{INK}", penwidth=1.1,
        style=filled, margin="0.12,0.06"]
  edge [arrowsize=0.6, penwidth=1.6]
{body}
}}
"""


def _cell(genotype: CellGenotype, name: CellName) -> Cell:
    if name == "normal":
        return Cell(name, genotype.normal, genotype.normal_concat)
    return Cell(name, genotype.reduce, genotype.reduce_concat)


def _draw_cell(cell: Cell) -> str:
    num_nodes = len(cell.edges) // 2
    states = [f"{cell.name}_{state}" for state in range(2 + num_nodes)]
    output = f"{cell.name}_output"
    lines = [
        f"subgraph cluster_{cell.name} {{",
        f'  label="{_TITLES[cell.name]}"; labeljust=l; color=none; margin=8',
        f"  {{ rank=same; {states[0]} [{_end_style('k-2')}]; {states[1]} [{_end_style('k-1')}]",
        f"    {states[1]} -> {states[0]} [style=invis] }}",
    ]
    lines += [f"  {states[2 + node]} [{_node_style(node)}]" for node in range(num_nodes)]
    lines.append(f"  {output} [{_end_style('k')}]")
    for index, edge in enumerate(cell.edges):
        # A node in the middle of the edge: Graphviz lets an edge's own label touch other edges.
        operation = f"{cell.name}_edge_{index}"
        color = color_of(edge.primitive)
        lines += [
            f"  {operation} [{_operation_style(edge.primitive, color)}]",
            f'  {states[edge.source]} -> {operation}:w [color="{color}", arrowhead=none]',
            f'  {operation}:e -> {states[2 + index // 2]} [color="{color}"]',
        ]
    lines += [
        f'  {states[state]} -> {output} [color="{GREY}", penwidth=0.9, arrowsize=0.5]'
        for state in cell.concat
    ]
    return "\n".join(f"  {line}" for line in [*lines, "}"])


def _end_style(index: str) -> str:
    index = index.replace("-", "&minus;")
    label = f'<<I>c</I><SUB><FONT POINT-SIZE="10"><I>{index}</I></FONT></SUB>>'
    return f'label={label}, shape=box, style="filled,rounded", fillcolor="#f3f4f6"'


def _node_style(number: int) -> str:
    return (
        f'label="{number}", shape=circle, fixedsize=true, width=0.4, '
        f'fillcolor="{INK}", fontcolor=white'
    )


def _operation_style(primitive: str, color: str) -> str:
    return (
        f'label="{primitive}", shape=box, style="filled,rounded", fontsize=12, height=0.26, '
        f'color="{color}", fontcolor="{color}", fillcolor="{color}12"'
    )


def color_of(primitive: str) -> str:
    """The colour of a primitive, dark enough to read on white."""
    matching = [(len(start), color) for start, color in _SORTS if primitive.startswith(start)]
    return max(matching)[1] if matching else INK
