"""Diagrams as SVG with a layout of our own: the same bytes on every machine."""

import json
import re
from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from lifecycle.core.table import State
from lifecycle.diagrams.drawing.placement import (
    KIND_NAME_HEIGHT_PX,
    LINE_HEIGHT_PX,
    MARGIN_PX,
    Line,
    Placement,
    text_width,
)
from lifecycle.diagrams.graph import Graph
from lifecycle.diagrams.palette import DARK, INK, LIGHT

__all__ = ["escaped", "opening", "px", "svg"]

_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEAD_LENGTH_PX: Final = 7.0


def svg(picture: Graph) -> str:
    """Return a diagram for light and dark pages: a box for each kind, with its states, and an arrow for each row."""
    placement = Placement(picture)
    above = max(KIND_NAME_HEIGHT_PX + 7.0 - slot.y + slot.height / 2 for slot in placement.nodes.values())
    top = MARGIN_PX + 20.0 * picture.traced + max(0.0, above)
    lines = opening(picture.title, picture.about, placement.width, placement.height + top + MARGIN_PX, _style())
    if picture.traced:
        lines.append(f'<text class="title" x="{MARGIN_PX:g}" y="20">{escaped(picture.title)}</text>')
    lines.append(f'<g transform="translate(0 {top:g})">')
    lines += _boxes(placement)
    lines += [_arrow(placement, line) for line in placement.lines]
    x, y = (placement.left[0] + placement.right[0]) / 2, placement.start.y
    lines.append(f'<circle class="birth" cx="{px(x)}" cy="{px(y)}" r="7"/>')
    lines += [_state(placement, state) for state in picture.states]
    return "\n".join([*lines, "</g>", "</svg>"]) + "\n"


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


def _style() -> list[str]:
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
    ]
    for tones, ink, indent in ((LIGHT, INK[0], ""), (DARK, INK[1], "  ")):
        if indent:
            lines.append("@media (prefers-color-scheme: dark) {")
        lines.append(f"{indent}.title, .edge text {{ fill: {ink}; }} .birth {{ fill: {ink}; }}")
        for kind, tone in tones.items():
            lines += [
                f"{indent}.state.{kind} rect {{ fill: {tone.fill}; stroke: {tone.line}; }}",
                f"{indent}.state.{kind} text {{ fill: {tone.text}; }}",
                f"{indent}.box.{kind}, .edge.{kind} .line {{ stroke: {tone.line}; }}",
                f"{indent}.kind.{kind}, .edge.{kind} .head {{ fill: {tone.line}; }}",
            ]
    return [*lines, "}"]


def _boxes(placement: Placement) -> list[str]:
    """Return a box for each kind."""
    names = {state.name for state in placement.picture.states}
    lines = []
    for box in placement.boxes:
        size = f'width="{px(box.right - box.left)}" height="{px(box.bottom - box.top)}"'
        lines.append(f'<rect class="box {box.kind}" x="{px(box.left)}" y="{px(box.top)}" {size} rx="10"/>')
        if box.kind not in names:  # a state of the same name says it
            x, y = px(box.left + 9), px(box.top + 14)
            lines.append(f'<text class="kind {box.kind}" x="{x}" y="{y}">{box.kind}</text>')
    return lines


def _state(placement: Placement, state: State) -> str:
    slot = placement.nodes[state.name]
    left, right = placement.left[slot.rank], placement.right[slot.rank]
    height = slot.height - 6.0
    look = " dim" if placement.picture.is_dim(state) else " visited" if placement.picture.traced else ""
    return (
        f'<g class="state {state.kind}{look}" data-state={_attribute(state.name)}>'
        f"<title>{escaped(f'signal: {state.signal}; moved on by: {state.moved_by}')}</title>"
        f'<rect x="{px(left)}" y="{px(slot.y - height / 2)}" width="{px(right - left)}" height="{px(height)}" rx="8"/>'
        f'<text x="{px((left + right) / 2)}" y="{px(slot.y + 4)}">{escaped(state.name)}</text></g>'
    )


def _arrow(placement: Placement, line: Line) -> str:
    """Return a line with a gap for the label, the head, and the label."""
    row, label = line.edge.row, line.label
    if not line.turns:
        ways, x, head = _across(placement, line)
    elif label.rank == line.slots[0].rank:
        ways, x, head = _down(placement, line)
    else:
        ways, x, head = _turn(placement, line)
    y = label.y + 4.0 - LINE_HEIGHT_PX * (len(line.texts) - 1) / 2
    words = "".join(
        f'<text x="{px(x)}" y="{px(y + LINE_HEIGHT_PX * number)}">{escaped(text)}</text>'
        for number, text in enumerate(line.texts)
    )
    traced = placement.picture.traced
    look = " dim" if placement.picture.is_dim(line.edge) else " passed" if traced else ""
    look += " main" * (id(line.edge) in placement.main and not traced)
    sources = [edge.row.source.name for edge in line.edges if edge.row.source is not None]
    data = f" data-sources={_attribute(json.dumps(sources))}"
    whys = "; ".join(dict.fromkeys(edge.row.why for edge in line.edges))
    return (
        f'<g class="edge {row.target.kind}{look}" data-trigger={_attribute(row.trigger)}{data} '
        f"data-target={_attribute(row.target.name)}><title>{escaped(whys)}</title>"
        f'<path class="line" d="{" ".join(ways)}"/><path class="head" d="{head}"/>{words}</g>'
    )


Drawn = tuple[list[str], float, str]
"""Parts of a line, middle of its label, head."""


def _across(placement: Placement, line: Line) -> Drawn:
    """Return the parts of a line from rank to rank."""
    first, *inner, last = line.slots
    from_box = placement.box_port(line) if line.from_box else None
    start = (line.back is False and from_box) or (placement.right[first.rank], placement.port(first, inner[0]))
    end = (line.back and from_box) or (placement.left[last.rank], placement.port(last, inner[-1]))
    ways, middle = [], 0.0
    x, y = start
    if line.back:
        head = _head(x, y, -1)
        x += _HEAD_LENGTH_PX - 1
    ways.append(f"M{px(x)} {px(y)}")
    for slot in inner:
        left, right = placement.left[slot.rank], placement.right[slot.rank]
        ways.append(_curve(x, y, left, slot.y))
        x, y = right, slot.y
        if slot is line.label:
            middle = (left + right) / 2
            half = max(map(text_width, line.texts)) / 2 + 3.0
            ways += [f"H{px(middle - half)}"] * (middle - half > left) + [f"M{px(middle + half)} {px(y)}"]
        ways.append(f"H{px(right)}")
    to_x, to_y = end
    if not line.back:
        head = _head(to_x, to_y, 1)
        to_x -= _HEAD_LENGTH_PX - 1
    ways.append(_curve(x, y, to_x, to_y))
    return ways, middle, head


def _down(placement: Placement, line: Line) -> Drawn:
    """Return the parts of a line to the state above or below."""
    source, label, target = line.slots
    sign = 1 if target.y > source.y else -1
    x = (placement.left[source.rank] + placement.right[source.rank]) / 2
    half = LINE_HEIGHT_PX * len(line.texts) / 2 + 1.0
    start, end = (slot.y + sign * way * (slot.height / 2 - 3.0) for slot, way in ((source, 1), (target, -1)))
    ways = [
        f"M{px(x)} {px(start)} V{px(label.y - sign * half)}",
        f"M{px(x)} {px(label.y + sign * half)} V{px(end - sign * (_HEAD_LENGTH_PX - 1))}",
    ]
    head = f"M{px(x)} {px(end)} l-4 {-sign * _HEAD_LENGTH_PX:g} h8 z"
    return ways, x, head


def _turn(placement: Placement, line: Line) -> Drawn:
    """Return the parts of a line to its label on the right and back to the column, beside similar lines of the rank."""
    source, label, target = line.slots
    x, edge = placement.right[source.rank], placement.left[label.rank]
    alike = [other.label for other in placement.lines if other.turns and other.label in placement.ranks[label.rank]]
    far = edge - 3.0 - 6.0 * (alike.index(label) % 5)
    out, back = placement.port(source, label), placement.port(target, label)
    if source is target:
        out, back = out - 5.0, back + 5.0
    peak = min(max(label.y, min(out, back) + 2.0), max(out, back) - 2.0)
    ways = [
        f"M{px(x)} {px(out)} C{px(far)} {px(out)} {px(far)} {px(out)} {px(far)} {px(peak)}",
        f"C{px(far)} {px(back)} {px(far)} {px(back)} {px(x + _HEAD_LENGTH_PX - 1)} {px(back)}",
        f"M{px(far)} {px(peak)} L{px(edge)} {px(label.y)}",
    ]
    return ways, edge + max(map(text_width, line.texts)) / 2 + 3.0, _head(x, back, -1)


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    if y == to_y:
        return f"H{px(to_x)}"
    bend = (x + to_x) / 2
    return f"C{px(bend)} {px(y)} {px(bend)} {px(to_y)} {px(to_x)} {px(to_y)}"


def _head(x: float, y: float, way: int) -> str:
    return f"M{px(x)} {px(y)} l{-way * _HEAD_LENGTH_PX:g} -4 v8 z"


def escaped(text: str) -> str:
    """Return a text escaped for XML, without the characters that XML forbids."""
    return escape(_FORBIDDEN.sub("\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("\ufffd", text))


def px(value: float) -> str:
    """Return a coordinate as text, to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:g}"
