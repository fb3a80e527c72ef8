"""From the DOT language to SVG, by Graphviz."""

import asyncio
import threading
from functools import lru_cache

import pygraphviz

# Graphviz keeps its state in global variables. The binding holds the interpreter's lock while it
# draws today; this lock says what is needed should that change.
_graphviz = threading.Lock()


async def to_svg(dot: str) -> bytes:
    """A picture as an SVG document on white, which reads well on light and dark pages.

    Args:
        dot: The picture. It may name its layout; `dot` lays out the others.
    """
    return await asyncio.to_thread(_render, dot)


@lru_cache(maxsize=512)
def _render(dot: str) -> bytes:
    with _graphviz:
        graph = pygraphviz.AGraph(string=dot)
        try:
            # A picture that names its layout has a place for everything, and is drawn as it is.
            graph.has_layout = "layout" in dict(graph.graph_attr)
            svg: bytes = graph.draw(format="svg", prog=None if graph.has_layout else "dot")
        finally:
            graph.close()
    return svg
