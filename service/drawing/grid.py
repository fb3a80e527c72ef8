"""The grid of a hypercuboid in the DOT language: what its paths and its weights are drawn on.

From left to right stand the image, a column of states before and after each position, and the
head. A row is a number of channels, the fewest at the top. Everything has its place (Graphviz's
layout `nop2`), because the grid is the message: a layout of Graphviz's own would move it.

Lengths are points; y goes up, as in the DOT language.
"""

from collections.abc import Sequence
from typing import Final

from search_core.spec.axes import Choice
from search_core.spec.hypercuboid import Position
from service.drawing.palette import FAINT, FONT, GREY, INK

Point = tuple[float, float]

COLUMN: Final = 172.0
ROW: Final = 84.0
_END: Final = 104.0
_BEND: Final = 0.42
_LINE: Final = 13.0
_WIDEST_FAN: Final = 46.0
_WIDEST_GAP: Final = 13.0

_COLORS: Final = {
    "sharp_sep_conv": "#1f6fc4",
    "resizable_pool": "#0b7350",
    "resizable_avg_pool": "#7a6a00",
    "conv": "#7a3fc1",
    "skip_connect": "#6b7280",
}


def color_of(operation: str) -> str:
    """The colour of an operation, dark enough to read on white."""
    return _COLORS.get(operation, INK)


class Grid:
    """A picture that is being made.

    Args:
        positions: Each takes one operation.
        channels: Of the rows.
        final_channels: Of the head.
        box_lines: Lines of the tallest box, for which there has to be room.
    """

    def __init__(
        self,
        positions: Sequence[Position],
        channels: Sequence[int],
        final_channels: int,
        *,
        box_lines: int,
    ) -> None:
        self.positions = tuple(positions)
        self.channels = tuple(sorted(channels))
        self._rows = {each: -ROW * row for row, each in enumerate(self.channels)}
        self._lines: list[str] = []
        self._places: dict[str, Point] = {}
        self._margin = max(ROW / 2, _LINE * (box_lines + 1) / 2 + _WIDEST_FAN / 2)
        self.bottom = -ROW * (len(self.channels) - 1) - self._margin
        """Where the grid ends, with room for its boxes."""
        self.right = len(self.positions) * COLUMN
        self._draw_frame()
        middle = -ROW * (len(self.channels) - 1) / 2
        ends = 'shape=box, style="filled,rounded", fillcolor="#f3f4f6"'
        self.image = self.node("image", (-_END, middle), "image", ends)
        self.head = self.node(
            "head", (self.right + _END, middle), f"head\n{final_channels} channels", ends
        )

    def state(self, column: int, channels: int, *, chosen: bool) -> str:
        """Adds the state of so many channels before the position `column`.

        Returns:
            Its name.
        """
        colors = (
            f'fillcolor="{INK}", fontcolor=white'
            if chosen
            else f'fillcolor=white, color="{GREY}", fontcolor="{GREY}"'
        )
        return self.node(
            f"{'path' if chosen else 'state'}_{column}_{channels}",
            (column * COLUMN, self._rows[channels]),
            str(channels),
            f"shape=circle, fixedsize=true, width=0.5, fontsize=11, style=filled, {colors}",
        )

    def dot(self) -> str:
        """The whole picture."""
        body = "\n".join(f"  {line}" for line in self._lines)
        return f"""digraph architecture {{
  graph [layout=nop2, bgcolor=white, pad=0.2, outputorder=edgesfirst]
  node [fontname="{FONT}", fontsize=12, fontcolor="{INK}", color="{INK}", margin="0.08,0.04"]
  edge [arrowhead=none, color="{INK}"]
{body}
}}
"""

    def node(self, name: str, place: Point, label: str, style: str) -> str:
        """Adds a node.

        Returns:
            Its name.
        """
        self._places[name] = place
        self._lines.append(
            f'{name} [pos="{_point(place)}", label="{_escaped(label)}", tooltip=" ", {style}]'
        )
        return name

    def line(self, tail: str, head: str, style: str, *, offset: float = 0.0) -> None:
        """Adds a line that leaves and arrives horizontally.

        Lines are drawn below the nodes, in the order of the nodes that they leave: those that shall
        be on top leave nodes that were added later.

        Args:
            tail: The node where it begins.
            head: The node where it ends.
            style: Its attributes.
            offset: By how much it is bent upwards, to tell lines between the same ends apart.
        """
        start, end = self._places[tail], self._places[head]
        reach = _BEND * (end[0] - start[0])
        knots = (
            start,
            (start[0] + reach, start[1] + offset),
            (end[0] - reach, end[1] + offset),
            end,
        )
        self._lines.append(f'{tail} -> {head} [pos="{" ".join(map(_point, knots))}", {style}]')

    def text(self, place: Point, text: str, *, size: float = 11, color: str = INK) -> None:
        """Adds text around a place."""
        style = f'shape=plaintext, fontsize={size:g}, fontcolor="{color}"'
        self.node(self._new("text"), place, text, style)

    def point(self, place: Point) -> str:
        """Adds an end of a line that is no state, and is not seen.

        Returns:
            Its name.
        """
        return self.node(self._new("point"), place, "", "shape=none, width=0, height=0")

    def box(self, tail: str, head: str, label: str, color: str, *, offset: float = 0.0) -> None:
        """Adds what stands in the middle of a line: its operation."""
        (x0, y0), (x1, y1) = self._places[tail], self._places[head]
        # In its middle a cubic curve has gone three quarters of the way to its handles.
        place = ((x0 + x1) / 2, (y0 + y1) / 2 + 0.75 * offset)
        self.node(
            self._new("operation"),
            place,
            label,
            f'shape=box, style="filled,rounded", fontsize=11, height=0.26, color="{color}", '
            f'fontcolor="{color}", fillcolor="{_on_white(color)}"',
        )

    def _new(self, kind: str) -> str:
        return f"{kind}_{len(self._places)}"

    def _draw_frame(self) -> None:
        for y in self._rows.values():
            left, right = self.point((0, y)), self.point((self.right, y))
            self.line(left, right, f'color="{FAINT}", penwidth=1')
        top = self._margin + 10
        levels = [position.level for position in self.positions]
        for index, position in enumerate(self.positions):
            middle = (index + 0.5) * COLUMN
            self.text((middle, top), f"stride {position.stride}", color="#52606d")
            if index and position.level != levels[index - 1]:
                border = index * COLUMN
                self._vertical(border, top + 34, self.bottom)
        for level in dict.fromkeys(levels):
            own = [index for index, each in enumerate(levels) if each == level]
            self.text(((own[0] + own[-1] + 1) / 2 * COLUMN, top + 20), f"level {level}", size=13)

    def _vertical(self, x: float, top: float, bottom: float) -> None:
        ends = ((x, top), (x, (2 * top + bottom) / 3), (x, (top + 2 * bottom) / 3), (x, bottom))
        tail, head = self.point(ends[0]), self.point(ends[-1])
        self._lines.append(
            f'{tail} -> {head} [pos="{" ".join(map(_point, ends))}", style=dashed, color="{FAINT}"]'
        )


def fan(number: int, count: int) -> float:
    """By how much one of several lines between the same states is bent."""
    return ((count - 1) / 2 - number) * min(_WIDEST_GAP, _WIDEST_FAN / count)


def operation_text(operation: str, settings: Sequence[tuple[str, Choice]]) -> str:
    """An operation with its settings, as its box shows it."""
    return "\n".join([operation, *(f"{axis} {choice}" for axis, choice in settings)])


def _point(place: Point) -> str:
    return f"{place[0]:.1f},{place[1]:.1f}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _on_white(color: str) -> str:
    """A colour at a tenth of its strength: what is under a box must not show through."""
    parts = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - part) * 0.1):02x}" for part in parts)
