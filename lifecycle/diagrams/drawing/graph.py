"""Diagrams as SVG with a layout of our own: the same bytes on every machine."""

import itertools
import re
import unicodedata
from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape, quoteattr

import attrs

from lifecycle.core.table import Kind, State
from lifecycle.diagrams.drawing.layout import Slot, assign_heights, reduce_crossings
from lifecycle.diagrams.graph import COLUMNS, Edge, Graph
from lifecycle.diagrams.palette import DARK, INK, LIGHT

__all__ = ["escaped", "opening", "px", "svg", "text_width"]

LETTER_WIDTH_PX: Final = 7.3
"""Width of a letter of 12 px in the fonts of `opening` and in their usual substitutes."""
LINE_HEIGHT_PX: Final = 15.0
RANK_GAP_PX: Final = 38.0
"""Distance of two ranks; lines change their height there."""
MARGIN_PX: Final = 14.0
SLOT_GAP_PX: Final = 5.0
BLOCK_GAP_PX: Final = 24.0
"""Additional distance around a box."""
KIND_NAME_HEIGHT_PX: Final = 15.0
"""Space for a kind's name above its states."""

_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEAD_LENGTH_PX: Final = 7.0


def text_width(text: str) -> float:
    """Return the width of a text in pixels."""
    return LETTER_WIDTH_PX * sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@attrs.define(eq=False)
class _Line:
    """Path of an edge: the slots from left to right, the label's slot among them, and the direction."""

    edge: Edge
    slots: list[Slot]
    back: bool = False
    turns: bool = False
    """True if both ends are in one column: the line leaves to the right and comes back."""
    label: Slot | None = None


class _Drawing:
    """Positions of all parts of a diagram."""

    def __init__(self, picture: Graph) -> None:
        self.picture = picture
        columns = [[s for kind in column for s in picture.of_kind(kind)] for column in COLUMNS]
        self.columns = [column for column in columns if column]
        self.start = Slot(0, 14.0)
        self.nodes: dict[str, Slot] = {}
        for number, column in enumerate(self.columns, 1):
            for state in column:
                self.nodes[state.name] = Slot(2 * number, 0.0, 1 + list(Kind).index(state.kind))
        self.ranks: list[list[Slot]] = [[] for _ in range(2 * len(self.columns) + 2)]
        for slot in self.start, *self.nodes.values():
            self.ranks[slot.rank].append(slot)
        self.lines = [self._line(edge) for edge in picture.edges]
        self.ranks = reduce_crossings(self.ranks)
        self._stack()
        for slot in self.nodes.values():
            slot.height = max(30.0, 12.0 + 7.0 * max(len(slot.left) - 1, len(slot.right) - 1)) + 6.0
        self.height = assign_heights(self.ranks, SLOT_GAP_PX, BLOCK_GAP_PX)
        self._widths()

    def end(self, state: State | None) -> Slot:
        """Return the slot of a state, or of the start for None."""
        return self.start if state is None else self.nodes[state.name]

    def _line(self, edge: Edge) -> _Line:
        """Create the slots of an edge; its label is in the rank next to its source."""
        source, target = self.end(edge.row.source), self.end(edge.row.target)
        height = LINE_HEIGHT_PX * (1 + len(edge.visits)) + 3.0
        if source.rank == target.rank:
            label = self._slot(source.rank + 1, height)
            for slot in dict.fromkeys((source, target)):
                _join(slot, label)
            return _Line(edge, [source, label, target], turns=True, label=label)
        back = source.rank > target.rank
        first, last = (target, source) if back else (source, target)
        beside = source.rank + (-1 if back else 1)
        between = range(first.rank + 1, last.rank)
        way = [first, *(self._slot(rank, height if rank == beside else 6.0) for rank in between), last]
        for one, other in itertools.pairwise(way):
            _join(one, other)
        return _Line(edge, way, back, label=next(slot for slot in way if slot.rank == beside))

    def _slot(self, rank: int, height: float) -> Slot:
        slot = Slot(rank, height, bends=False)
        self.ranks[rank].append(slot)
        return slot

    def _stack(self) -> None:
        """Draw the only edge between two states that are one above the other as a straight line."""
        for line in self.lines:
            one, _, other = line.slots if line.turns else (None, None, None)
            if line.label is None or one is None or other is None or one is other or one.block != other.block:
                continue
            column = self.ranks[one.rank]
            upper = min(column.index(one), column.index(other))
            beside = {column[upper], column[min(upper + 1, len(column) - 1)]} == {one, other}
            rivals = sum(rival.turns and {rival.slots[0], rival.slots[-1]} == {one, other} for rival in self.lines)
            if beside and rivals == 1:
                self.ranks[line.label.rank].remove(line.label)
                for slot in (one, other):
                    slot.right.remove(line.label)
                line.label = Slot(one.rank, line.label.height + 26.0, one.block)
                column.insert(upper + 1, line.label)
                line.slots = [one, line.label, other]

    def _widths(self) -> None:
        """Compute the left and right end of each rank."""
        labels = {line.label: line.edge for line in self.lines}
        names = {slot: name for name, slot in self.nodes.items()}
        self.left: list[float] = []
        self.right: list[float] = []
        x = MARGIN_PX
        for number, rank in enumerate(self.ranks):
            widths = [0.0]
            for slot in rank:
                if slot in names:
                    widths.append(text_width(names[slot]) + 22.0)
                elif slot is self.start:
                    widths.append(14.0)
                elif slot in labels:
                    widths.append(max(map(text_width, _texts(labels[slot]))) + 10.0)
            if number and rank:
                x += RANK_GAP_PX
            self.left.append(x)
            x += max(widths)
            self.right.append(x)
        self.width = x + MARGIN_PX

    def port(self, node: Slot, towards: Slot) -> float:
        """Return the height at which the line to a neighbour leaves a state."""
        beside = node.right if towards.rank > node.rank else node.left
        sorted_ends = sorted(beside, key=lambda slot: slot.y)
        room = min(node.height - 16.0, 7.0 * (len(beside) - 1))
        step = room / (len(beside) - 1) if len(beside) > 1 else 0.0
        return node.y - room / 2 + step * sorted_ends.index(towards)


def _join(left: Slot, right: Slot) -> None:
    left.right.append(right)
    right.left.append(left)


def _texts(edge: Edge) -> list[str]:
    return [edge.trigger, *edge.visits]


def svg(picture: Graph) -> str:
    """Return a diagram for light and dark pages: a box for each kind, with its states, and an arrow for each row."""
    drawing = _Drawing(picture)
    above = max(KIND_NAME_HEIGHT_PX + 7.0 - slot.y + slot.height / 2 for slot in drawing.nodes.values())
    top = MARGIN_PX + 20.0 * picture.traced + max(0.0, above)
    lines = opening(picture.title, picture.about, drawing.width, drawing.height + top + MARGIN_PX, _style())
    if picture.traced:
        lines.append(f'<text class="title" x="{MARGIN_PX:g}" y="20">{escaped(picture.title)}</text>')
    lines.append(f'<g transform="translate(0 {top:g})">')
    lines += _boxes(drawing)
    lines += [_arrow(drawing, line) for line in drawing.lines]
    x, y = (drawing.left[0] + drawing.right[0]) / 2, drawing.start.y
    lines.append(f'<circle class="birth" cx="{px(x)}" cy="{px(y)}" r="7"/>')
    lines += [_state(drawing, state) for state in picture.states]
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


def _boxes(drawing: _Drawing) -> list[str]:
    """Return a box for each kind."""
    lines = []
    for column in drawing.columns:
        for kind in dict.fromkeys(state.kind for state in column):
            slots = [drawing.nodes[state.name] for state in column if state.kind is kind]
            left, right = drawing.left[slots[0].rank] - 9.0, drawing.right[slots[0].rank] + 9.0
            upper = min(slot.y - slot.height / 2 for slot in slots) - KIND_NAME_HEIGHT_PX - 3.0
            lower = max(slot.y + slot.height / 2 for slot in slots) + 5.0
            size = f'width="{px(right - left)}" height="{px(lower - upper)}"'
            lines += [
                f'<rect class="box {kind}" x="{px(left)}" y="{px(upper)}" {size} rx="10"/>',
                f'<text class="kind {kind}" x="{px(left + 9)}" y="{px(upper + 14)}">{kind}</text>',
            ]
    return lines


def _state(drawing: _Drawing, state: State) -> str:
    slot = drawing.nodes[state.name]
    left, right = drawing.left[slot.rank], drawing.right[slot.rank]
    height = slot.height - 6.0
    look = " dim" if drawing.picture.is_dim(state) else " visited" if drawing.picture.traced else ""
    return (
        f'<g class="state {state.kind}{look}" data-state={_attribute(state.name)}>'
        f"<title>{escaped(f'signal: {state.signal}; moved on by: {state.moved_by}')}</title>"
        f'<rect x="{px(left)}" y="{px(slot.y - height / 2)}" width="{px(right - left)}" height="{px(height)}" rx="8"/>'
        f'<text x="{px((left + right) / 2)}" y="{px(slot.y + 4)}">{escaped(state.name)}</text></g>'
    )


def _arrow(drawing: _Drawing, line: _Line) -> str:
    """Return an edge: a line with a gap for the label, the head, and the label."""
    row, label = line.edge.row, line.label
    if label is None:
        raise AssertionError(line)
    if not line.turns:
        ways, x, head = _across(drawing, line)
    elif label.rank == line.slots[0].rank:
        ways, x, head = _down(drawing, line)
    else:
        ways, x, head = _turn(drawing, line)
    texts = _texts(line.edge)
    y = label.y + 4.0 - LINE_HEIGHT_PX * (len(texts) - 1) / 2
    words = "".join(
        f'<text x="{px(x)}" y="{px(y + LINE_HEIGHT_PX * number)}">{escaped(text)}</text>'
        for number, text in enumerate(texts)
    )
    look = " dim" if drawing.picture.is_dim(line.edge) else " passed" if drawing.picture.traced else ""
    source = "" if row.source is None else f" data-source={_attribute(row.source.name)}"
    return (
        f'<g class="edge {row.target.kind}{look}" data-trigger={_attribute(row.trigger)}{source} '
        f"data-target={_attribute(row.target.name)}><title>{escaped(row.why)}</title>"
        f'<path class="line" d="{" ".join(ways)}"/><path class="head" d="{head}"/>{words}</g>'
    )


Drawn = tuple[list[str], float, str]
"""Parts of a line, middle of its label, head."""


def _across(drawing: _Drawing, line: _Line) -> Drawn:
    """Return the parts of a line from rank to rank."""
    slots, label = line.slots, line.label
    first, last = slots[0], slots[-1]
    x = drawing.right[first.rank]
    y = drawing.port(first, slots[1])
    ways = []
    if line.back:
        head = _head(x, y, -1)
        x += _HEAD_LENGTH_PX - 1
    ways.append(f"M{px(x)} {px(y)}")
    middle = 0.0
    for slot in slots[1:-1]:
        left, right = drawing.left[slot.rank], drawing.right[slot.rank]
        ways.append(_curve(x, y, left, slot.y))
        x, y = right, slot.y
        if slot is label:
            middle = (left + right) / 2
            half = max(map(text_width, _texts(line.edge))) / 2 + 3.0
            ways += [f"H{px(middle - half)}"] * (middle - half > left) + [f"M{px(middle + half)} {px(y)}"]
        ways.append(f"H{px(right)}")
    end = drawing.left[last.rank]
    if not line.back:
        head = _head(end, drawing.port(last, slots[-2]), 1)
        end -= _HEAD_LENGTH_PX - 1
    ways.append(_curve(x, y, end, drawing.port(last, slots[-2])))
    return ways, middle, head


def _down(drawing: _Drawing, line: _Line) -> Drawn:
    """Return the parts of a line to the state above or below."""
    source, label, target = line.slots
    sign = 1 if target.y > source.y else -1
    x = (drawing.left[source.rank] + drawing.right[source.rank]) / 2
    half = LINE_HEIGHT_PX * len(_texts(line.edge)) / 2 + 1.0
    start, end = (slot.y + sign * way * (slot.height / 2 - 3.0) for slot, way in ((source, 1), (target, -1)))
    ways = [
        f"M{px(x)} {px(start)} V{px(label.y - sign * half)}",
        f"M{px(x)} {px(label.y + sign * half)} V{px(end - sign * (_HEAD_LENGTH_PX - 1))}",
    ]
    head = f"M{px(x)} {px(end)} l-4 {-sign * _HEAD_LENGTH_PX:g} h8 z"
    return ways, x, head


def _turn(drawing: _Drawing, line: _Line) -> Drawn:
    """Return the parts of a line to its label on the right and back to the column, beside similar lines of the rank."""
    source, label, target = line.slots
    x, edge = drawing.right[source.rank], drawing.left[label.rank]
    alike = [other.label for other in drawing.lines if other.turns and other.label in drawing.ranks[label.rank]]
    far = edge - 3.0 - 6.0 * (alike.index(label) % 5)
    out, back = drawing.port(source, label), drawing.port(target, label)
    if source is target:
        out, back = out - 5.0, back + 5.0
    peak = min(max(label.y, min(out, back) + 2.0), max(out, back) - 2.0)
    ways = [
        f"M{px(x)} {px(out)} C{px(far)} {px(out)} {px(far)} {px(out)} {px(far)} {px(peak)}",
        f"C{px(far)} {px(back)} {px(far)} {px(back)} {px(x + _HEAD_LENGTH_PX - 1)} {px(back)}",
        f"M{px(far)} {px(peak)} L{px(edge)} {px(label.y)}",
    ]
    return ways, edge + max(map(text_width, _texts(line.edge))) / 2 + 3.0, _head(x, back, -1)


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
