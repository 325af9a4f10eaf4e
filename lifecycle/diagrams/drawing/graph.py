"""Diagrams of tables as SVG with a layout of our own, from left to right: the same bytes on every machine."""

from lifecycle.diagrams.drawing.parts import (
    HEAD_LENGTH_PX,
    arrow,
    box,
    diagram_style,
    escaped,
    head,
    legend,
    opening,
    px,
    state_box,
)
from lifecycle.diagrams.drawing.placement import (
    KIND_NAME_HEIGHT_PX,
    LINE_HEIGHT_PX,
    MARGIN_PX,
    Line,
    Placement,
    text_width,
)
from lifecycle.diagrams.graph import Graph

__all__ = ["svg"]

LEGEND_HEIGHT_PX = 30.0


def svg(picture: Graph) -> str:
    """Return a diagram for light and dark pages: a box for each kind, with its states, and an arrow for each row."""
    placement = Placement(picture)
    above = max(KIND_NAME_HEIGHT_PX + 7.0 - slot.y + slot.height / 2 for slot in placement.nodes.values())
    top = MARGIN_PX + 20.0 * picture.traced + max(0.0, above)
    explained = legend(picture, MARGIN_PX, placement.height + LEGEND_HEIGHT_PX - 8.0)
    height = placement.height + top + MARGIN_PX + LEGEND_HEIGHT_PX * bool(explained)
    lines = opening(picture.title, picture.about, placement.width, height, diagram_style())
    if picture.traced:
        lines.append(f'<text class="title" x="{MARGIN_PX:g}" y="20">{escaped(picture.title)}</text>')
    lines.append(f'<g transform="translate(0 {top:g})">')
    names = {state.name for state in picture.states}
    for place in placement.boxes:
        lines += box(place, names)
    lines += [_arrow(placement, line) for line in placement.lines]
    x, y = (placement.left[0] + placement.right[0]) / 2, placement.start.y
    lines.append(f'<circle class="birth" cx="{px(x)}" cy="{px(y)}" r="7"/>')
    for state in picture.states:
        slot = placement.nodes[state.name]
        half = slot.height / 2 - 3.0
        left, right = placement.left[slot.rank], placement.right[slot.rank]
        lines.append(state_box(picture, state, left, slot.y - half, right, slot.y + half))
    return "\n".join([*lines, *explained, "</g>", "</svg>"]) + "\n"


def _arrow(placement: Placement, line: Line) -> str:
    """Return a line with a gap for the label, the head, and the label."""
    if not line.turns:
        ways, x, tip = _across(placement, line)
    elif line.label.rank == line.slots[0].rank:
        ways, x, tip = _down(placement, line)
    else:
        ways, x, tip = _turn(placement, line)
    y = line.label.y + 4.0 - LINE_HEIGHT_PX * (len(line.texts) - 1) / 2
    is_main = id(line.edge) in placement.main
    return arrow(placement.picture, line.edges, ways, tip, (x, y), line.texts, main=is_main)


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
        tip = head(x, y, -1)
        x += HEAD_LENGTH_PX - 1
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
        tip = head(to_x, to_y, 1)
        to_x -= HEAD_LENGTH_PX - 1
    ways.append(_curve(x, y, to_x, to_y))
    return ways, middle, tip


def _down(placement: Placement, line: Line) -> Drawn:
    """Return the parts of a line to the state above or below."""
    source, label, target = line.slots
    sign = 1 if target.y > source.y else -1
    x = (placement.left[source.rank] + placement.right[source.rank]) / 2
    half = LINE_HEIGHT_PX * len(line.texts) / 2 + 1.0
    start, end = (slot.y + sign * way * (slot.height / 2 - 3.0) for slot, way in ((source, 1), (target, -1)))
    ways = [
        f"M{px(x)} {px(start)} V{px(label.y - sign * half)}",
        f"M{px(x)} {px(label.y + sign * half)} V{px(end - sign * (HEAD_LENGTH_PX - 1))}",
    ]
    tip = f"M{px(x)} {px(end)} l-4 {-sign * HEAD_LENGTH_PX:g} h8 z"
    return ways, x, tip


def _turn(placement: Placement, line: Line) -> Drawn:
    """Return the parts of a line to its label on the right and back to the column, beside similar lines of the rank."""
    source, label, target = line.slots
    x, edge = placement.right[source.rank], placement.left[label.rank]
    alike = [other.label for other in placement.lines if other.turns and other.label in placement.ranks[label.rank]]
    far = edge - 3.0 - 6.0 * (alike.index(label) % 5)
    begin, out = placement.box_port(line) if line.from_box else (x, placement.port(source, label))
    back = placement.port(target, label)
    if source is target:
        out, back = out - 5.0, back + 5.0
    peak = min(max(label.y, min(out, back) + 2.0), max(out, back) - 2.0)
    ways = [
        f"M{px(begin)} {px(out)} C{px(far)} {px(out)} {px(far)} {px(out)} {px(far)} {px(peak)}",
        f"C{px(far)} {px(back)} {px(far)} {px(back)} {px(x + HEAD_LENGTH_PX - 1)} {px(back)}",
        f"M{px(far)} {px(peak)} L{px(edge)} {px(label.y)}",
    ]
    return ways, edge + max(map(text_width, line.texts)) / 2 + 3.0, head(x, back, -1)


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    if y == to_y:
        return f"H{px(to_x)}"
    bend = (x + to_x) / 2
    return f"C{px(bend)} {px(y)} {px(bend)} {px(to_y)} {px(to_x)} {px(to_y)}"
