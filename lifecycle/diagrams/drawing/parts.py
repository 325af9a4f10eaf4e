"""Parts that the drawings share: the frame, the style rules, a box, a state, an arrow, the legend."""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from lifecycle.core.table import State
from lifecycle.diagrams.drawing.placement import LINE_HEIGHT_PX, Box, text_width
from lifecycle.diagrams.graph import Edge, Graph
from lifecycle.diagrams.palette import DARK, INK, LIGHT

__all__ = [
    "DARK_PAGES", "HEAD_LENGTH_PX", "arrow", "box", "diagram_style", "escaped", "for_theme", "head", "legend",
    "opening", "px", "state_box",
]  # fmt: skip

HEAD_LENGTH_PX: Final = 7.0
"""Length of an arrow's head."""
DARK_PAGES: Final = "@media (prefers-color-scheme: dark)"
"""Condition of the style rules for dark pages, which follow the rules for light pages."""
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def opening(title: str, about: str, width: float, height: float, style: Iterable[str]) -> list[str]:
    """Return the first lines of a diagram: size, title, description and style."""
    size = f"{width:.0f}", f"{height:.0f}"
    box = f'width="{size[0]}" height="{size[1]}" viewBox="0 0 {size[0]} {size[1]}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {box}>',
        f"<title>{escaped(title)}</title>",
        f"<desc>{escaped(about)}</desc>",
        "<style>",
        "text { font: 12px ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; }",
        *style,
        "</style>",
    ]


def diagram_style() -> list[str]:
    """Return the style rules for light pages, and the rules that replace them on dark pages."""
    lines = [
        "text { text-anchor: middle; }",
        ".title { text-anchor: start; font-weight: 600; }",
        ".kind { text-anchor: start; font-size: 11px; }",
        ".box { fill: none; stroke-dasharray: 3 4; opacity: 0.55; }",
        ".line { fill: none; stroke-width: 1.4; }",
        ".state rect { stroke-width: 1.5; }",
        ".passed .line { stroke-width: 2.6; }",
        ".main .line { stroke-width: 3; }",
        ".main text { font-weight: 600; }",
        ".passed text, .visited text { font-weight: 600; }",
        ".dim { opacity: 0.28; }",
        ".legend text { text-anchor: start; font-size: 11px; } .legend path { stroke-width: 1.4; }",
        ".legend.main path { stroke-width: 3; } .group path { stroke-dasharray: none; }",
    ]
    for tones, ink, indent in ((LIGHT, INK[0], ""), (DARK, INK[1], "  ")):
        if indent:
            lines.append(f"{DARK_PAGES} {{")
        lines += [
            f"{indent}.title, .edge text, .legend text, .birth {{ fill: {ink}; }}",
            f"{indent}.legend path {{ fill: {ink}; stroke: {ink}; }}",
        ]
        for kind, tone in tones.items():
            lines += [
                f"{indent}.state.{kind} rect {{ fill: {tone.fill}; stroke: {tone.line}; }}",
                f"{indent}.state.{kind} text {{ fill: {tone.text}; }}",
                f"{indent}.box.{kind}, .edge.{kind} .line {{ stroke: {tone.line}; }}",
                f"{indent}.kind.{kind}, .edge.{kind} .head {{ fill: {tone.line}; }}",
            ]
    return [*lines, "}"]


def for_theme(drawing: str, theme: str) -> str:
    """Return a drawing in the colours of one theme only, for pages whose theme is not the reader's system's.

    `theme`: ``"light"`` or ``"dark"``.
    """
    before, opened, after = drawing.partition(f"{DARK_PAGES} {{\n")
    dark, closed, rest = after.partition("\n}\n")
    if not opened or not closed:
        raise AssertionError("the drawing has no colours for dark pages")
    return before + (dark + "\n" if theme == "dark" else "") + rest


def box(place: Box, names: Collection[str]) -> list[str]:
    """Return the box of a kind, with the kind's name, unless a state has this name (`names`)."""
    size = f'width="{px(place.right - place.left)}" height="{px(place.bottom - place.top)}"'
    lines = [f'<rect class="box {place.kind}" x="{px(place.left)}" y="{px(place.top)}" {size} rx="10"/>']
    if place.kind not in names:
        at = f'x="{px(place.left + 9)}" y="{px(place.top + 14)}"'
        lines.append(f'<text class="kind {place.kind}" {at}>{place.kind}</text>')
    return lines


def state_box(picture: Graph, state: State, left: float, top: float, right: float, bottom: float) -> str:
    """Return a state: a box with its name."""
    look = " dim" if picture.is_dim(state) else " visited" if picture.traced else ""
    return (
        f'<g class="state {state.kind}{_shade(picture, state)}{look}" data-state={_attribute(state.name)}>'
        f"<title>{escaped(f'signal: {state.signal}; moved on by: {state.moved_by}')}</title>"
        f'<rect x="{px(left)}" y="{px(top)}" width="{px(right - left)}" height="{px(bottom - top)}" rx="8"/>'
        f'<text x="{px((left + right) / 2)}" y="{px((top + bottom) / 2 + 4)}">{escaped(state.name)}</text></g>'
    )


def _shade(picture: Graph, state: State) -> str:
    """Return the further class of a state whose shade is not its kind."""
    shade = picture.shades[state.name]
    return "" if shade == state.kind else f" {shade}"


def arrow(
    picture: Graph,
    edges: Sequence[Edge],
    ways: Iterable[str],
    tip: str,
    label: tuple[float, float],
    texts: Sequence[str],
    *,
    main: bool,
) -> str:
    """Return the arrow of edges with the same trigger and target.

    `ways`: the parts of the line; `tip`: its head; `label`: middle and base line of the first text; `main`: the edge is
    on the main path.
    """
    row, (x, y) = edges[0].row, label
    words = "".join(
        f'<text x="{px(x)}" y="{px(y + LINE_HEIGHT_PX * number)}">{escaped(text)}</text>'
        for number, text in enumerate(texts)
    )
    look = " dim" if picture.is_dim(edges[0]) else " passed" if picture.traced else " main" if main else ""
    sources = json.dumps([None if edge.row.source is None else edge.row.source.name for edge in edges])
    whys = "; ".join(dict.fromkeys(edge.row.why for edge in edges))
    return (
        f'<g class="edge {row.target.kind}{_shade(picture, row.target)}{look}" data-trigger={_attribute(row.trigger)} '
        f"data-sources={_attribute(sources)} data-target={_attribute(row.target.name)}><title>{escaped(whys)}</title>"
        f'<path class="line" d="{" ".join(ways)}"/><path class="head" d="{tip}"/>{words}</g>'
    )


def legend(picture: Graph, left: float, top: float, *, narrow: bool = False) -> list[str]:
    """Return what the lines of a whole table's diagram mean; nothing for the route of a task."""
    if picture.traced:
        return []
    entries = [("main", f"M0 0 H26 {head(32, 0, 1)}", "the usual way")] * bool(picture.main_path)
    if any(len(edges) > 1 for edges in picture.bundles):
        entries.append(("group", f"M0 -7 V7 M2 0 H26 {head(32, 0, 1)}", "from each state of the box"))
    lines, x, y = [], left, top
    for look, path, text in entries:
        lines.append(
            f'<g class="legend {look}" transform="translate({px(x)} {px(y)})">'
            f'<path d="{path}"/><text x="40" y="4">{text}</text></g>'
        )
        if narrow:
            y += 18.0
        else:
            x += 40.0 + text_width(text) + 30.0
    return lines


def head(x: float, y: float, way: int) -> str:
    """Return the head of an arrow whose tip is at a point; `way`: 1 to the right, -1 to the left."""
    return f"M{px(x)} {px(y)} l{-way * HEAD_LENGTH_PX:g} -4 v8 z"


def escaped(text: str) -> str:
    """Return a text escaped for XML, without the characters that XML forbids."""
    return escape(_FORBIDDEN.sub("\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("\ufffd", text))


def px(value: float) -> str:
    """Return a coordinate as text, to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:g}"
