"""Diagrams of workflows as SVG, from left to right: the same bytes on every machine."""

import itertools
from typing import Final

from lifecycle.diagrams.drawing.layout import Slot, assign_heights, reduce_crossings
from lifecycle.diagrams.drawing.parts import HEAD_LENGTH_PX, diagram_style, escaped, head, opening, px
from lifecycle.diagrams.drawing.placement import LINE_HEIGHT_PX, MARGIN_PX, text_width
from lifecycle.diagrams.palette import INK
from lifecycle.diagrams.workflow import Link, Workflow
from lifecycle.diagrams.workflow_text import ON_FAILURE

__all__ = ["workflow_svg"]

RANK_GAP_PX: Final = 56.0
NODE_GAP_PX: Final = 12.0
PADDING_PX: Final = 12.0
"""Distance of a node's border from its text."""
NODE_HEIGHT_PX: Final = 2 * LINE_HEIGHT_PX + 10.0
TITLE_HEIGHT_PX: Final = 24.0
LEGEND_HEIGHT_PX: Final = 26.0
LONGEST_NAME: Final = 32
"""Letters of a function's name that are shown: its end."""


def workflow_svg(picture: Workflow) -> str:
    """Return a diagram for light and dark pages; dashed arrows lead to error callbacks."""
    placement = _Placement(picture)
    is_dashed = any(map(picture.is_on_failure, picture.links))
    top = MARGIN_PX + TITLE_HEIGHT_PX
    height = top + placement.height + MARGIN_PX + LEGEND_HEIGHT_PX * is_dashed
    width = max(placement.width, 2 * MARGIN_PX + text_width(picture.title))
    lines = opening(picture.title, picture.about, width, height, _style())
    lines.append(f'<text class="title" x="{MARGIN_PX:g}" y="22">{escaped(picture.title)}</text>')
    lines.append(f'<g transform="translate(0 {top:g})">')
    lines += [placement.arrow(link) for link in picture.links]
    lines += [placement.box(number) for number in range(len(picture.nodes))]
    if is_dashed:
        y = placement.height + LEGEND_HEIGHT_PX - 6.0
        lines.append(
            f'<g class="legend" transform="translate({px(MARGIN_PX)} {px(y)})"><path class="failure" fill="none"'
            f' d="M0 0 H26"/><path d="{head(32, 0, 1)}"/><text x="40" y="4">{ON_FAILURE}</text></g>'
        )
    return "\n".join([*lines, "</g>", "</svg>"]) + "\n"


def _style() -> list[str]:
    """Return the style rules: those of all diagrams, and those of links and of the texts of nodes."""
    light, dark = (f".link .line {{ stroke: {ink}; }} .link .head {{ fill: {ink}; }}" for ink in INK)
    *rules, end = diagram_style()  # the last rules are those for dark pages
    return [".node .name { font-weight: 600; } .failure { stroke-dasharray: 5 4; }", light, *rules, f"  {dark}", end]


class _Placement:
    """Positions of the nodes and links of a workflow."""

    def __init__(self, picture: Workflow) -> None:
        self._picture = picture
        ranks = picture.ranks
        self._names = [_shortened(node.label) for node in picture.nodes]
        self._slots = [Slot(rank, NODE_HEIGHT_PX) for rank in ranks]
        columns: list[list[Slot]] = [[] for _ in range(max(ranks, default=-1) + 1)]
        for slot in self._slots:
            columns[slot.rank].append(slot)
        self._ways: dict[Link, list[Slot]] = {}
        for link in picture.links:
            first, last = self._slots[link.source], self._slots[link.target]
            inner = [Slot(rank, LINE_HEIGHT_PX) for rank in range(first.rank + 1, last.rank)]
            for slot in inner:
                columns[slot.rank].append(slot)
            way = self._ways[link] = [first, *inner, last]
            for left, right in itertools.pairwise(way):
                left.right.append(right)
                right.left.append(left)
        columns = reduce_crossings(columns)
        straight = [way[1:-1] for way in self._ways.values() if len(way) > 3]  # noqa: PLR2004 -- two inner slots
        self.height = assign_heights(columns, straight, NODE_GAP_PX, 0.0)
        self._left: list[float] = []
        self._right: list[float] = []
        x = MARGIN_PX
        for rank in range(len(columns)):
            texts = [
                text
                for number, slot in enumerate(self._slots)
                if slot.rank == rank
                for text in (self._names[number], str(picture.nodes[number].state))
            ]
            self._left.append(x)
            x += max(map(text_width, texts), default=0.0) + 2 * PADDING_PX
            self._right.append(x)
            x += RANK_GAP_PX
        self.width = x - RANK_GAP_PX + MARGIN_PX

    def box(self, number: int) -> str:
        """Return a node: a box with the name of the function and the state."""
        node, slot = self._picture.nodes[number], self._slots[number]
        left, right, top = self._left[slot.rank], self._right[slot.rank], slot.y - NODE_HEIGHT_PX / 2
        look = node.state.kind if node.shade == node.state.kind else f"{node.state.kind} {node.shade}"
        middle = px((left + right) / 2)
        return (
            f'<g class="node state {look}"><title>{escaped(", ".join(node.ids[:3]))}{", …" * (len(node.ids) > 3)}'  # noqa: PLR2004
            f'</title><rect x="{px(left)}" y="{px(top)}" width="{px(right - left)}" height="{px(NODE_HEIGHT_PX)}"'
            f' rx="8"/><text class="name" x="{middle}" y="{px(slot.y - 4)}">{escaped(self._names[number])}</text>'
            f'<text x="{middle}" y="{px(slot.y + LINE_HEIGHT_PX - 2)}">{escaped(node.state)}</text></g>'
        )

    def arrow(self, link: Link) -> str:
        """Return the line of a link, with its head."""
        first, *inner, last = self._ways[link]
        x, y = self._right[first.rank], first.y
        path = f"M{px(x)} {px(y)}"
        for slot in inner:
            path += _curve(x, y, self._left[slot.rank], slot.y) + f" H{px(self._right[slot.rank])}"
            x, y = self._right[slot.rank], slot.y
        end = self._left[last.rank]
        path += _curve(x, y, end - HEAD_LENGTH_PX + 1, last.y)
        dashed = " failure" * self._picture.is_on_failure(link)
        line = f'<path class="line{dashed}" d="{path}"/>'
        return f'<g class="link">{line}<path class="head" d="{head(end, last.y, 1)}"/></g>'


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (x + to_x) / 2
    return f" C{px(middle)} {px(y)} {px(middle)} {px(to_y)} {px(to_x)} {px(to_y)}"


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"…{name[-LONGEST_NAME:]}"
