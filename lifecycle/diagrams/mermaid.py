"""Diagrams as Mermaid, which code hosts draw."""

import re
from collections.abc import Iterable
from typing import Final

from lifecycle.core.table import Kind
from lifecycle.diagrams.graph import KINDS, Edge, Graph
from lifecycle.diagrams.palette import INK, LIGHT, SHADES

__all__ = ["identifiers", "mermaid", "quoted", "single_line"]

NEW_TASK_ID: Final = "new"
RESERVED_WORDS: Final = {
    "call", "class", "classdef", "click", "default", "direction", "end", "flowchart", "graph", "href", "interpolate",
    "linkstyle", "style", "subgraph", NEW_TASK_ID, *(kind.value for kind in Kind),
}  # fmt: skip
"""Identifiers with a meaning of their own in Mermaid, or in our diagrams."""


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """Return a unique Mermaid identifier for each name."""
    made: dict[str, str] = {}
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not word[:1].isalpha() or word.lower() in RESERVED_WORDS or word[0] in "ox":  # o and x can end an arrow
            word = f"s_{word}"
        while word in made.values():
            word += "_"
        made[name] = word
    return made


def quoted(text: str) -> str:
    """Return any text in quotes."""
    if not text:
        return '"#160;"'  # Mermaid has no empty quoted text
    return '"' + re.sub(r"[^\w .,:;()+/=…→-]|(?<=#)\w", lambda found: f"#{ord(found[0])};", text) + '"'


def single_line(text: str) -> str:
    """Return a text for a title or a description: one line, without characters that would end it."""
    return re.sub(r"[\s;#{}]+", " ", text).strip()


def mermaid(picture: Graph) -> str:
    """Return a flowchart: a box for each kind, an arrow for each row, in the colour of the arrow's target."""
    ids = identifiers(state.name for state in picture.states)
    lines = [
        "flowchart LR",
        f"    accTitle: {single_line(picture.title)}",
        f"    accDescr: {single_line(picture.about)}",
        f'    {NEW_TASK_ID}(("&nbsp;"))',
    ]
    kinds = [kind for kind in KINDS if picture.of_kind(kind)]
    for kind in kinds:
        lines.append(f"    subgraph {kind}")
        lines += [f"        {ids[state.name]}({quoted(state.name)})" for state in picture.of_kind(kind)]
        lines.append("    end")
    for edge in picture.edges:
        source = NEW_TASK_ID if edge.row.source is None else ids[edge.row.source.name]
        lines.append(f"    {source} -->|{quoted(edge.label)}| {ids[edge.row.target.name]}")
    shades = [one for one in SHADES if one in picture.shades.values()]
    for one in shades:
        tone = LIGHT[one]
        lines.append(f"    classDef {one} fill:{tone.fill},stroke:{tone.line},color:{tone.text}")
    for one in shades:
        names = [ids[state.name] for state in picture.states if picture.shades[state.name] == one]
        lines.append(f"    class {','.join(names)} {one}")
    if dim := [ids[state.name] for state in picture.states if picture.is_dim(state)]:
        lines += [f"    classDef dim fill:none,stroke:{INK[1]},color:{INK[1]}", f"    class {','.join(dim)} dim"]
    lines += [f"    style {kind} fill:none,stroke:{LIGHT[kind].line},stroke-dasharray:3 3" for kind in kinds]
    lines.append(f"    style {NEW_TASK_ID} fill:{INK[0]},stroke:{INK[1]}")
    lines += _links(picture)
    return "\n".join(lines) + "\n"


def _links(picture: Graph) -> list[str]:
    """Return the styles of the arrows, which Mermaid identifies by their numbers."""
    styles: dict[str, list[str]] = {}
    for number, edge in enumerate(picture.edges):
        styles.setdefault(_link_style(picture, edge), []).append(str(number))
    return [f"    linkStyle {','.join(numbers)} {style}" for style, numbers in styles.items()]


def _link_style(picture: Graph, edge: Edge) -> str:
    style = f"stroke:{LIGHT[picture.shades[edge.row.target.name]].line}"
    return f"{style},opacity:0.25" if picture.is_dim(edge) else f"{style},stroke-width:3px" if picture.traced else style
