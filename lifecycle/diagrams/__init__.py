"""Pictures: of any table, of the way that a task took through it, of what was recorded in a run.

``graph(table, title)`` or ``route(table, title, records)`` says what is to be seen; `mermaid`, `dot` and `svg` draw it,
the same bytes every time.
"""

from lifecycle.diagrams.dot import dot
from lifecycle.diagrams.drawing.graph import svg
from lifecycle.diagrams.drawing.sequence import sequence_svg
from lifecycle.diagrams.graph import Graph, graph, route
from lifecycle.diagrams.mermaid import mermaid
from lifecycle.diagrams.sequence import Sequence, sequence_mermaid

__all__ = ["Graph", "Sequence", "dot", "graph", "mermaid", "route", "sequence_mermaid", "sequence_svg", "svg"]
