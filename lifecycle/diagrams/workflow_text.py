"""Diagrams of workflows as Mermaid and as DOT."""

from lifecycle.diagrams.dot import attributes, quoted_for_dot
from lifecycle.diagrams.mermaid import quoted, single_line
from lifecycle.diagrams.palette import INK, LIGHT, SHADES
from lifecycle.diagrams.workflow import Workflow

__all__ = ["ON_FAILURE", "workflow_dot", "workflow_mermaid"]

ON_FAILURE = "on failure"
"""Label of the links to error callbacks."""


def workflow_mermaid(picture: Workflow) -> str:
    """Return a flowchart: a node for each task, in the colour of its state; dashed links lead to error callbacks."""
    lines = [
        "flowchart LR",
        f"    accTitle: {single_line(picture.title)}",
        f"    accDescr: {single_line(picture.about)}",
    ]
    for number, node in enumerate(picture.nodes):
        lines.append(f"    t{number}({quoted(f'{node.label}: {node.state}')})")
    for link in picture.links:
        arrow = f"-. {quoted(ON_FAILURE)} .->" if picture.is_on_failure(link) else "-->"
        lines.append(f"    t{link.source} {arrow} t{link.target}")
    for shade in SHADES:
        if numbers := [f"t{number}" for number, node in enumerate(picture.nodes) if node.shade == shade]:
            tone = LIGHT[shade]
            lines.append(f"    classDef {shade} fill:{tone.fill},stroke:{tone.line},color:{tone.text}")
            lines.append(f"    class {','.join(numbers)} {shade}")
    return "\n".join(lines) + "\n"


def workflow_dot(picture: Workflow) -> str:
    """Return a directed graph: a node for each task, in the colour of its state; dashed: to error callbacks."""
    title, about, ink = quoted_for_dot(picture.title), quoted_for_dot(picture.about), quoted_for_dot(INK[0])
    font = '[fontname="Helvetica"'
    lines = [
        "digraph workflow {",
        f"    graph {font}, fontcolor={ink}, label={title}, labelloc=t, tooltip={about}]",
        "    graph [rankdir=LR, bgcolor=transparent]",
        f'    node {font}, fontsize=12, shape=box, style="rounded,filled"]',
        f"    edge {font}, fontsize=10, fontcolor={ink}, color={quoted_for_dot(INK[1])}, arrowsize=0.7]",
    ]
    for number, node in enumerate(picture.nodes):
        tone = LIGHT[node.shade]
        look = {"label": f"{node.label}\n{node.state}", "tooltip": node.ids[0]}
        look |= {"fillcolor": tone.fill, "color": tone.line, "fontcolor": tone.text}
        lines.append(f"    t{number} [{attributes(look)}]")
    for link in picture.links:
        look = {"label": ON_FAILURE, "style": "dashed"} if picture.is_on_failure(link) else {}
        lines.append(f"    t{link.source} -> t{link.target} [{attributes(look)}]")
    return "\n".join([*lines, "}"]) + "\n"
