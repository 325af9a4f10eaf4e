"""Pictures as DOT, for Graphviz and what reads it."""

import re
from collections.abc import Mapping
from typing import Final

from lifecycle.diagrams.graph import KINDS, Graph, column
from lifecycle.diagrams.palette import INK, LIGHT

__all__ = ["dot"]

PALE: Final = "40"
"""How much of a colour is left of what is dim: the last two digits of a colour in DOT."""


def dot(picture: Graph) -> str:
    """A directed graph: a cluster for each kind, an edge for each row; reasons are tooltips."""
    title, about, ink = _quoted(picture.title), _quoted(picture.about), _quoted(INK[0])
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
        tone = LIGHT[kind]
        lines += [
            f'    subgraph "cluster_{kind}" {{',
            f'        graph [label={_quoted(kind)}, style="rounded,dashed", color="{tone.line}"]',
        ]
        for state in states:
            pale = PALE * picture.dim(state)
            look = {"fillcolor": tone.fill + pale, "color": tone.line + pale, "fontcolor": tone.text + pale}
            lines.append(f"        {_quoted(state.name)} [{_attributes(look | {'tooltip': state.moved_by})}]")
        lines.append("    }")
    for edge in picture.edges:
        row, pale = edge.row, PALE * picture.dim(edge)
        look = {"label": edge.label, "color": LIGHT[row.target.kind].line + pale, "tooltip": row.why}
        if row.source is not None and column(row.source.kind) > column(row.target.kind):
            look |= {"constraint": "false"}  # round again: what it leads back to stays where it is
        if picture.traced:
            look |= {"fontcolor": INK[0] + pale} if pale else {"penwidth": "2.5"}
        lines.append(
            f"    {_quoted('' if row.source is None else row.source.name)} -> {_quoted(row.target.name)}"
            f" [{_attributes(look)}]"
        )
    return "\n".join([*lines, "}"]) + "\n"


def _attributes(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={_quoted(value)}" for name, value in pairs.items())


def _quoted(text: str) -> str:
    """A text between quotes; a backslash is one, not the beginning of an escape."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text).replace("\n", "\\n") + '"'
