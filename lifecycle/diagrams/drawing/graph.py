"""Pictures as SVG, laid out here: the same bytes on every machine, whatever is installed there."""

import itertools
import re
import unicodedata
from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape, quoteattr

import attrs

from lifecycle.core.table import Kind, State
from lifecycle.diagrams.drawing.layout import Slot, order, place
from lifecycle.diagrams.graph import COLUMNS, Edge, Graph
from lifecycle.diagrams.palette import DARK, INK, LIGHT

__all__ = ["n", "opening", "spelt", "svg", "text_width"]

LETTER: Final = 7.3
"""How wide a letter of 12 px is, in the fonts named below and those that stand in for them."""
LINE: Final = 15.0
"""From one line of a text to the next."""
STRIP: Final = 38.0
"""Between two ranks, where lines change their height."""
MARGIN: Final = 14.0
GAP: Final = 5.0
BLOCKS: Final = 24.0
"""Around what stands in a box, on top of it."""
TITLE: Final = 15.0
"""Room for a kind's name above its states."""

_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEAD: Final = 7.0
"""The length of an arrow's head."""


def text_width(text: str) -> float:
    """In pixels."""
    return LETTER * sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@attrs.define(eq=False)
class _Line:
    """An edge's way: the slots from left to right, its label's among them, and whether it goes the other way."""

    edge: Edge
    slots: list[Slot]
    back: bool = False
    turns: bool = False
    """Both ends are in one column: it leaves to the right, and comes back."""
    label: Slot | None = None


class _Drawing:
    """Where everything is."""

    def __init__(self, picture: Graph) -> None:
        self.picture = picture
        columns = [[s for kind in column for s in picture.of_kind(kind)] for column in COLUMNS]
        self.columns = [column for column in columns if column]
        self.birth = Slot(0, 14.0)
        self.nodes: dict[str, Slot] = {}
        for number, column in enumerate(self.columns, 1):
            for state in column:
                self.nodes[state.name] = Slot(2 * number, 0.0, 1 + list(Kind).index(state.kind))
        self.ranks: list[list[Slot]] = [[] for _ in range(2 * len(self.columns) + 2)]
        for slot in self.birth, *self.nodes.values():
            self.ranks[slot.rank].append(slot)
        self.lines = [self._line(edge) for edge in picture.edges]
        self.ranks = order(self.ranks)
        self._stack()
        for slot in self.nodes.values():
            slot.height = max(30.0, 12.0 + 7.0 * max(len(slot.left) - 1, len(slot.right) - 1)) + 6.0
        self.height = place(self.ranks, GAP, BLOCKS)
        self._widths()

    def end(self, state: State | None) -> Slot:
        """The slot of a state, or of where lives begin."""
        return self.birth if state is None else self.nodes[state.name]

    def _line(self, edge: Edge) -> _Line:
        """Give an edge its slots, the one of its label in the rank next to where it begins."""
        source, target = self.end(edge.row.source), self.end(edge.row.target)
        height = LINE * (1 + len(edge.passed)) + 3.0
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
        """Of two states that stand one upon the other, and have one way between them: let it go straight."""
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
        """Where each rank begins and ends."""
        labels = {line.label: line.edge for line in self.lines}
        names = {slot: name for name, slot in self.nodes.items()}
        self.left: list[float] = []
        self.right: list[float] = []
        x = MARGIN
        for number, rank in enumerate(self.ranks):
            widths = [0.0]
            for slot in rank:
                if slot in names:
                    widths.append(text_width(names[slot]) + 22.0)
                elif slot is self.birth:
                    widths.append(14.0)
                elif slot in labels:
                    widths.append(max(map(text_width, _texts(labels[slot]))) + 10.0)
            if number and rank:
                x += STRIP
            self.left.append(x)
            x += max(widths)
            self.right.append(x)
        self.width = x + MARGIN

    def port(self, node: Slot, towards: Slot) -> float:
        """At which height the line to a neighbour leaves a state."""
        beside = node.right if towards.rank > node.rank else node.left
        sorted_ends = sorted(beside, key=lambda slot: slot.y)
        room = min(node.height - 16.0, 7.0 * (len(beside) - 1))
        step = room / (len(beside) - 1) if len(beside) > 1 else 0.0
        return node.y - room / 2 + step * sorted_ends.index(towards)


def _join(left: Slot, right: Slot) -> None:
    left.right.append(right)
    right.left.append(left)


def _texts(edge: Edge) -> list[str]:
    return [edge.trigger, *edge.passed]


def svg(picture: Graph) -> str:
    """A picture for light and for dark pages: boxes for kinds, states in them, an arrow for each row of the table."""
    drawing = _Drawing(picture)
    top = MARGIN + 20.0 * picture.traced + max(0.0, *(TITLE + 7.0 - s.y + s.height / 2 for s in drawing.nodes.values()))
    lines = opening(picture.title, picture.about, drawing.width, drawing.height + top + MARGIN, _style())
    if picture.traced:
        lines.append(f'<text class="title" x="{MARGIN:g}" y="20">{spelt(picture.title)}</text>')
    lines.append(f'<g transform="translate(0 {top:g})">')
    lines += _boxes(drawing)
    lines += [_arrow(drawing, line) for line in drawing.lines]
    x, y = (drawing.left[0] + drawing.right[0]) / 2, drawing.birth.y
    lines.append(f'<circle class="birth" cx="{n(x)}" cy="{n(y)}" r="7"/>')
    lines += [_state(drawing, state) for state in picture.states]
    return "\n".join([*lines, "</g>", "</svg>"]) + "\n"


def opening(title: str, about: str, width: float, height: float, style: Iterable[str]) -> list[str]:
    """How a picture begins: its size, what it is called, how it looks."""
    size = f"{width:.0f}", f"{height:.0f}"
    box = f'width="{size[0]}" height="{size[1]}" viewBox="0 0 {size[0]} {size[1]}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {box}>',
        f"<title>{spelt(title)}</title>",
        f"<desc>{spelt(about)}</desc>",
        "<style>",
        "text { font: 12px ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; }",
        *style,
        "</style>",
    ]


def _style() -> list[str]:
    """Colours for light pages, and those that replace them on dark ones."""
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
    """A box for each kind."""
    lines = []
    for column in drawing.columns:
        for kind in dict.fromkeys(state.kind for state in column):
            slots = [drawing.nodes[state.name] for state in column if state.kind is kind]
            left, right = drawing.left[slots[0].rank] - 9.0, drawing.right[slots[0].rank] + 9.0
            upper = min(slot.y - slot.height / 2 for slot in slots) - TITLE - 3.0
            lower = max(slot.y + slot.height / 2 for slot in slots) + 5.0
            size = f'width="{n(right - left)}" height="{n(lower - upper)}"'
            lines += [
                f'<rect class="box {kind}" x="{n(left)}" y="{n(upper)}" {size} rx="10"/>',
                f'<text class="kind {kind}" x="{n(left + 9)}" y="{n(upper + 14)}">{kind}</text>',
            ]
    return lines


def _state(drawing: _Drawing, state: State) -> str:
    slot = drawing.nodes[state.name]
    left, right = drawing.left[slot.rank], drawing.right[slot.rank]
    height = slot.height - 6.0
    look = " dim" if drawing.picture.dim(state) else " visited" if drawing.picture.traced else ""
    return (
        f'<g class="state {state.kind}{look}" data-state={_attribute(state.name)}>'
        f"<title>{spelt(f'signal: {state.signal}; moved on by: {state.moved_by}')}</title>"
        f'<rect x="{n(left)}" y="{n(slot.y - height / 2)}" width="{n(right - left)}" height="{n(height)}" rx="8"/>'
        f'<text x="{n((left + right) / 2)}" y="{n(slot.y + 4)}">{spelt(state.name)}</text></g>'
    )


def _arrow(drawing: _Drawing, line: _Line) -> str:
    """An edge: its line, broken where its label stands, its head, its label."""
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
    y = label.y + 4.0 - LINE * (len(texts) - 1) / 2
    words = "".join(
        f'<text x="{n(x)}" y="{n(y + LINE * number)}">{spelt(text)}</text>' for number, text in enumerate(texts)
    )
    look = " dim" if drawing.picture.dim(line.edge) else " passed" if drawing.picture.traced else ""
    source = "" if row.source is None else f" data-source={_attribute(row.source.name)}"
    return (
        f'<g class="edge {row.target.kind}{look}" data-trigger={_attribute(row.trigger)}{source} '
        f"data-target={_attribute(row.target.name)}><title>{spelt(row.why)}</title>"
        f'<path class="line" d="{" ".join(ways)}"/><path class="head" d="{head}"/>{words}</g>'
    )


Drawn = tuple[list[str], float, str]
"""The parts of a line, the middle of its label, its head."""


def _across(drawing: _Drawing, line: _Line) -> Drawn:
    """From rank to rank."""
    slots, label = line.slots, line.label
    first, last = slots[0], slots[-1]
    x = drawing.right[first.rank]
    y = drawing.port(first, slots[1])
    ways = []
    if line.back:
        head = _head(x, y, -1)
        x += _HEAD - 1
    ways.append(f"M{n(x)} {n(y)}")
    middle = 0.0
    for slot in slots[1:-1]:
        left, right = drawing.left[slot.rank], drawing.right[slot.rank]
        ways.append(_curve(x, y, left, slot.y))
        x, y = right, slot.y
        if slot is label:
            middle = (left + right) / 2
            half = max(map(text_width, _texts(line.edge))) / 2 + 3.0
            ways += [f"H{n(middle - half)}"] * (middle - half > left) + [f"M{n(middle + half)} {n(y)}"]
        ways.append(f"H{n(right)}")
    end = drawing.left[last.rank]
    if not line.back:
        head = _head(end, drawing.port(last, slots[-2]), 1)
        end -= _HEAD - 1
    ways.append(_curve(x, y, end, drawing.port(last, slots[-2])))
    return ways, middle, head


def _down(drawing: _Drawing, line: _Line) -> Drawn:
    """From a state to the one above or below it."""
    source, label, target = line.slots
    sign = 1 if target.y > source.y else -1
    x = (drawing.left[source.rank] + drawing.right[source.rank]) / 2
    half = LINE * len(_texts(line.edge)) / 2 + 1.0
    start, end = (slot.y + sign * way * (slot.height / 2 - 3.0) for slot, way in ((source, 1), (target, -1)))
    ways = [
        f"M{n(x)} {n(start)} V{n(label.y - sign * half)}",
        f"M{n(x)} {n(label.y + sign * half)} V{n(end - sign * (_HEAD - 1))}",
    ]
    head = f"M{n(x)} {n(end)} l-4 {-sign * _HEAD:g} h8 z"
    return ways, x, head


def _turn(drawing: _Drawing, line: _Line) -> Drawn:
    """To the right, to where its label begins, and back into the same column; beside its like in the same rank."""
    source, label, target = line.slots
    x, edge = drawing.right[source.rank], drawing.left[label.rank]
    alike = [other.label for other in drawing.lines if other.turns and other.label in drawing.ranks[label.rank]]
    far = edge - 3.0 - 6.0 * (alike.index(label) % 5)
    out, back = drawing.port(source, label), drawing.port(target, label)
    if source is target:
        out, back = out - 5.0, back + 5.0
    peak = min(max(label.y, min(out, back) + 2.0), max(out, back) - 2.0)
    ways = [
        f"M{n(x)} {n(out)} C{n(far)} {n(out)} {n(far)} {n(out)} {n(far)} {n(peak)}",
        f"C{n(far)} {n(back)} {n(far)} {n(back)} {n(x + _HEAD - 1)} {n(back)}",
        f"M{n(far)} {n(peak)} L{n(edge)} {n(label.y)}",
    ]
    return ways, edge + max(map(text_width, _texts(line.edge))) / 2 + 3.0, _head(x, back, -1)


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    if y == to_y:
        return f"H{n(to_x)}"
    bend = (x + to_x) / 2
    return f"C{n(bend)} {n(y)} {n(bend)} {n(to_y)} {n(to_x)} {n(to_y)}"


def _head(x: float, y: float, way: int) -> str:
    return f"M{n(x)} {n(y)} l{-way * _HEAD:g} -4 v8 z"


def spelt(text: str) -> str:
    """A text, without what XML does not allow, and with what it means something else by written otherwise."""
    return escape(_FORBIDDEN.sub("\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("\ufffd", text))


def n(value: float) -> str:
    """A coordinate, to a tenth."""
    return f"{round(value, 1) + 0.0:g}"
