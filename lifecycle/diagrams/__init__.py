"""Diagrams of tables, of the route of a task through its table, and of recorded runs.

``graph(table, title)`` and ``route(table, title, records)`` make the content of a diagram; `mermaid`, `dot` and `svg`
draw the content, with the same bytes every time.
"""

from lifecycle.diagrams.dot import dot
from lifecycle.diagrams.drawing.graph import svg
from lifecycle.diagrams.drawing.narrow import svg_narrow
from lifecycle.diagrams.drawing.sequence import sequence_svg
from lifecycle.diagrams.graph import Graph, graph, route
from lifecycle.diagrams.mermaid import mermaid
from lifecycle.diagrams.sequence import Sequence, sequence_mermaid

__all__ = [
    "Graph",
    "Sequence",
    "dot",
    "graph",
    "mermaid",
    "route",
    "sequence_mermaid",
    "sequence_svg",
    "svg",
    "svg_narrow",
]
