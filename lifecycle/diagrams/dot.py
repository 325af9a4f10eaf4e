"""Diagrams as DOT, the language of Graphviz."""

import re
from collections.abc import Mapping
from typing import Final

from lifecycle.diagrams.graph import KINDS, Graph, column
from lifecycle.diagrams.palette import INK, LIGHT

__all__ = ["attributes", "dot", "quoted_for_dot"]

DIM_ALPHA: Final = "40"
"""Opacity of dim states and edges: the last two digits of a colour in DOT."""


def dot(picture: Graph) -> str:
    """Return a directed graph: a cluster for each kind, an edge for each row, reasons as tooltips."""
    title, about, ink = quoted_for_dot(picture.title), quoted_for_dot(picture.about), quoted_for_dot(INK[0])
    font = '[fontname="Helvetica"'
    lines = [
        "digraph lifecycle {",
        f"    graph {font}, fontcolor={ink}, label={title}, labelloc=t, tooltip={about}]",
        "    graph [rankdir=LR, ranksep=0.7, bgcolor=transparent]",
        f'    node {font}, fontsize=12, shape=box, style="rounded,filled", height=0.4]',
        f"    edge {font}, fontsize=10, fontcolor={ink}, arrowsize=0.7]",
        f'    "" [shape=circle, width=0.18, height=0.18, fixedsize=true, label="", color={ink}, fillcolor={ink}]',
    ]
    for kind in KINDS:
        if not (states := picture.of_kind(kind)):
            continue
        lines += [
            f'    subgraph "cluster_{kind}" {{',
            f'        graph [label={quoted_for_dot(kind)}, style="rounded,dashed", color="{LIGHT[kind].line}"]',
        ]
        for state in states:
            tone = LIGHT[picture.shades[state.name]]
            alpha = DIM_ALPHA * picture.is_dim(state)
            look = {"fillcolor": tone.fill + alpha, "color": tone.line + alpha, "fontcolor": tone.text + alpha}
            lines.append(f"        {quoted_for_dot(state.name)} [{attributes(look | {'tooltip': state.moved_by})}]")
        lines.append("    }")
    for edge in picture.edges:
        row, alpha = edge.row, DIM_ALPHA * picture.is_dim(edge)
        look = {
            "label": edge.label,
            "color": LIGHT[picture.shades[row.target.name]].line + alpha,
            "tooltip": row.why,
        }
        if row.source is not None and column(row.source.kind) > column(row.target.kind):
            look |= {"constraint": "false"}  # an edge back to the left does not move its target
        if picture.traced:
            look |= {"fontcolor": INK[0] + alpha} if alpha else {"penwidth": "2.5"}
        lines.append(
            f"    {quoted_for_dot('' if row.source is None else row.source.name)} -> {quoted_for_dot(row.target.name)}"
            f" [{attributes(look)}]"
        )
    return "\n".join([*lines, "}"]) + "\n"


def attributes(pairs: Mapping[str, str]) -> str:
    """Return the attributes of a node or an edge."""
    return ", ".join(f"{name}={quoted_for_dot(value)}" for name, value in pairs.items())


def quoted_for_dot(text: str) -> str:
    """Return a text in quotes; a backslash stands for itself and begins no escape."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text).replace("\n", "\\n") + '"'
