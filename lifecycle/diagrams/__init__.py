"""Diagrams of tables, of the route of a task through its table, of workflows, and of recorded runs.

``graph(table, title)``, ``route(table, title, records)`` and ``workflow(title, tasks)`` make the content of a diagram;
`mermaid`, `dot` and `svg`, or the functions of the same names with a prefix, draw the content, with the same bytes
every time.
"""

from lifecycle.diagrams.dot import dot
from lifecycle.diagrams.drawing.graph import svg
from lifecycle.diagrams.drawing.narrow import svg_narrow
from lifecycle.diagrams.drawing.sequence import sequence_svg
from lifecycle.diagrams.drawing.workflow import workflow_svg
from lifecycle.diagrams.graph import Graph, graph, route
from lifecycle.diagrams.mermaid import mermaid
from lifecycle.diagrams.sequence import Sequence, sequence_mermaid
from lifecycle.diagrams.workflow import Workflow, workflow
from lifecycle.diagrams.workflow_text import workflow_dot, workflow_mermaid

__all__ = [
    "Graph",
    "Sequence",
    "Workflow",
    "dot",
    "graph",
    "mermaid",
    "route",
    "sequence_mermaid",
    "sequence_svg",
    "svg",
    "svg_narrow",
    "workflow",
    "workflow_dot",
    "workflow_mermaid",
    "workflow_svg",
]
