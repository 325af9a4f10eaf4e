"""Pictures as Mermaid, which code hosts draw by themselves."""

import re
from collections.abc import Iterable
from typing import Final

from lifecycle.core.table import Kind
from lifecycle.diagrams.graph import KINDS, Edge, Graph
from lifecycle.diagrams.palette import INK, LIGHT

__all__ = ["identifiers", "mermaid", "quoted", "spoken"]

BIRTH: Final = "new"
WORDS: Final = {
    "call", "class", "classdef", "click", "default", "direction", "end", "flowchart", "graph", "href", "interpolate",
    "linkstyle", "style", "subgraph", BIRTH, *(kind.value for kind in Kind),
}  # fmt: skip
"""What Mermaid, or we, mean something else by."""


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """For each name one that Mermaid can read, and no other has."""
    made: dict[str, str] = {}
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not word[:1].isalpha() or word.lower() in WORDS or word[0] in "ox":  # an o or x could end an arrow
            word = f"s_{word}"
        while word in made.values():
            word += "_"
        made[name] = word
    return made


def quoted(text: str) -> str:
    """A text between quotes, whatever is in it."""
    if not text:
        return '"#160;"'  # nothing at all cannot be quoted
    return '"' + re.sub(r"[^\w .,:;()+/=…→-]|(?<=#)\w", lambda found: f"#{ord(found[0])};", text) + '"'


def spoken(text: str) -> str:
    """A text for a title or a description: one line, without what would end it."""
    return re.sub(r"[\s;#{}]+", " ", text).strip()


def mermaid(picture: Graph) -> str:
    """A flowchart: a box for each kind, an arrow for each row, in the colour of what it leads into."""
    ids = identifiers(state.name for state in picture.states)
    lines = [
        "flowchart LR",
        f"    accTitle: {spoken(picture.title)}",
        f"    accDescr: {spoken(picture.about)}",
        f'    {BIRTH}(("&nbsp;"))',
    ]
    kinds = [kind for kind in KINDS if picture.of_kind(kind)]
    for kind in kinds:
        lines.append(f"    subgraph {kind}")
        lines += [f"        {ids[state.name]}({quoted(state.name)})" for state in picture.of_kind(kind)]
        lines.append("    end")
    for edge in picture.edges:
        source = BIRTH if edge.row.source is None else ids[edge.row.source.name]
        lines.append(f"    {source} -->|{quoted(edge.label)}| {ids[edge.row.target.name]}")
    for kind in kinds:
        tone = LIGHT[kind]
        lines.append(f"    classDef {kind} fill:{tone.fill},stroke:{tone.line},color:{tone.text}")
    lines += [f"    class {','.join(ids[state.name] for state in picture.of_kind(kind))} {kind}" for kind in kinds]
    if dim := [ids[state.name] for state in picture.states if picture.dim(state)]:
        lines += [f"    classDef dim fill:none,stroke:{INK[1]},color:{INK[1]}", f"    class {','.join(dim)} dim"]
    lines += [f"    style {kind} fill:none,stroke:{LIGHT[kind].line},stroke-dasharray:3 3" for kind in kinds]
    lines.append(f"    style {BIRTH} fill:{INK[0]},stroke:{INK[1]}")
    lines += _links(picture)
    return "\n".join(lines) + "\n"


def _links(picture: Graph) -> list[str]:
    """The colours of the arrows: Mermaid knows those by their number only."""
    looks: dict[str, list[str]] = {}
    for number, edge in enumerate(picture.edges):
        looks.setdefault(_look(picture, edge), []).append(str(number))
    return [f"    linkStyle {','.join(numbers)} {look}" for look, numbers in looks.items()]


def _look(picture: Graph, edge: Edge) -> str:
    look = f"stroke:{LIGHT[edge.row.target.kind].line}"
    return f"{look},opacity:0.25" if picture.dim(edge) else f"{look},stroke-width:3px" if picture.traced else look
