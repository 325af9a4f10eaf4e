"""Positions of all parts of a diagram of a table: columns of states, and between them columns of labels."""

import itertools
import unicodedata
from typing import Final

import attrs

from lifecycle.core.table import Kind, State
from lifecycle.diagrams.drawing.layout import Slot, assign_heights, reduce_crossings
from lifecycle.diagrams.graph import COLUMNS, Edge, Graph

__all__ = [
    "BOX_MARGIN_PX", "KIND_NAME_HEIGHT_PX", "LINE_HEIGHT_PX", "MARGIN_PX", "Box", "Line", "Placement", "text_width",
]  # fmt: skip

LETTER_WIDTH_PX: Final = 7.3
"""Width of a letter of 12 px in the fonts of the drawings and in their usual substitutes."""
LINE_HEIGHT_PX: Final = 15.0
RANK_GAP_PX: Final = 38.0
"""Distance of two ranks; lines change their height there."""
MARGIN_PX: Final = 14.0
BOX_MARGIN_PX: Final = 9.0
"""Distance of a box from its states."""
SLOT_GAP_PX: Final = 5.0
BLOCK_GAP_PX: Final = 24.0
"""Additional distance around a box."""
KIND_NAME_HEIGHT_PX: Final = 15.0
"""Space for a kind's name above its states."""
MAIN_PATH_WEIGHT: Final = 5
"""Weight of a crossing with the main path: other lines lead around the path rather."""
PORT_GAP_PX: Final = 7.0
"""Distance of two lines at a state or at a box."""


def text_width(text: str) -> float:
    """Return the width of a text in pixels."""
    return LETTER_WIDTH_PX * sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@attrs.define(eq=False)
class Line:
    """Path of one or several edges: the slots from left to right, the label's slot among them, and the direction."""

    edges: tuple[Edge, ...]
    """More than one: the line leaves the box of their sources' kind, and `slots` begins with the first source."""
    slots: list[Slot]
    back: bool = False
    """True from right to left; then `slots` ends with the source."""
    turns: bool = False
    """True if both ends are in one column: the line leaves to the right and comes back."""
    label: Slot = attrs.field(kw_only=True)

    @property
    def edge(self) -> Edge:
        """The first edge: all have its trigger and its target."""
        return self.edges[0]

    @property
    def texts(self) -> list[str]:
        """Lines of the label."""
        return [self.edge.trigger, *self.edge.visits]

    @property
    def from_box(self) -> bool:
        """True if the line leaves the box of a kind, not one state."""
        return len(self.edges) > 1


@attrs.frozen
class Box:
    """Box around the states of a kind."""

    kind: Kind
    left: float
    top: float
    right: float
    bottom: float


class Placement:
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
        self.lines = [self._line(edges) for edges in picture.bundles]
        self.main = {id(edge) for edge in picture.main_path}
        for line in self.lines:
            if id(line.edge) in self.main:
                for slot in line.slots:
                    slot.weight = MAIN_PATH_WEIGHT
        self.ranks = reduce_crossings(self.ranks)
        self._stack()
        for slot in self.nodes.values():
            ports = max(len(self._ports(slot, slot.left)) - 1, len(self._ports(slot, slot.right)) - 1)
            slot.height = max(30.0, 12.0 + PORT_GAP_PX * ports) + 6.0
        self.height = assign_heights(self.ranks, self._straight(), SLOT_GAP_PX, BLOCK_GAP_PX)
        self._widths()
        self.boxes = [self._box(kind) for kind in Kind if picture.of_kind(kind)]

    def end(self, state: State | None) -> Slot:
        """Return the slot of a state, or of the start for None."""
        return self.start if state is None else self.nodes[state.name]

    def box(self, kind: Kind) -> Box:
        """Return the box of a kind."""
        return next(box for box in self.boxes if box.kind is kind)

    def _line(self, edges: tuple[Edge, ...]) -> Line:
        """Create the slots of a line; its label is in the rank next to its source."""
        edge = edges[0]
        sources, target = [self.end(edge.row.source) for edge in edges], self.end(edge.row.target)
        source = sources[0]
        height = LINE_HEIGHT_PX * (1 + len(edge.visits)) + 3.0
        if source.rank == target.rank:
            label = self._slot(source.rank + 1, height)
            for slot in dict.fromkeys((source, target)):
                _join(slot, label)
            return Line(edges, [source, label, target], turns=True, label=label)
        back = source.rank > target.rank
        first, last = (target, source) if back else (source, target)
        beside = source.rank + (-1 if back else 1)
        way = [first]
        way += [self._slot(rank, height if rank == beside else 6.0) for rank in range(first.rank + 1, last.rank)]
        way.append(last)
        for one, other in itertools.pairwise(way):
            _join(one, other)
        label = next(slot for slot in way if slot.rank == beside)
        for other in sources[1:]:
            _join(*((label, other) if back else (other, label)))
        return Line(edges, way, back, label=label)

    def _slot(self, rank: int, height: float) -> Slot:
        slot = Slot(rank, height)
        self.ranks[rank].append(slot)
        return slot

    def _straight(self) -> list[list[Slot]]:
        """Return the slots that should have one height: the main path, then the inner slots of each line."""
        main = [line for line in self.lines if id(line.edge) in self.main and not line.turns and not line.back]
        return [[slot for line in main for slot in line.slots], *(line.slots[1:-1] for line in self.lines)]

    def _stack(self) -> None:
        """Draw the only edge between two states that are one above the other as a straight line."""
        for line in self.lines:
            one, _, other = line.slots if line.turns else (None, None, None)
            if one is None or other is None or one is other or one.block != other.block:
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
        labels = {line.label: line for line in self.lines}
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
                    widths.append(max(map(text_width, labels[slot].texts)) + 10.0)
            if number and rank:
                x += RANK_GAP_PX
            self.left.append(x)
            x += max(widths)
            self.right.append(x)
        self.width = x + MARGIN_PX

    def _box(self, kind: Kind) -> Box:
        slots = [self.nodes[state.name] for state in self.picture.of_kind(kind)]
        return Box(
            kind,
            self.left[slots[0].rank] - BOX_MARGIN_PX,
            min(slot.y - slot.height / 2 for slot in slots) - KIND_NAME_HEIGHT_PX - 3.0,
            self.right[slots[0].rank] + BOX_MARGIN_PX,
            max(slot.y + slot.height / 2 for slot in slots) + 5.0,
        )

    def _ports(self, node: Slot, beside: list[Slot]) -> list[Slot]:
        """Return the slots beside a state to which a line of its own leads, from top to bottom."""
        of_boxes = {
            line.label for line in self.lines if line.from_box and line.slots[-1 if not line.back else 0] is not node
        }
        return sorted((slot for slot in beside if slot not in of_boxes), key=lambda slot: slot.y)

    def port(self, node: Slot, towards: Slot) -> float:
        """Return the height at which the line to a neighbour leaves a state."""
        beside = self._ports(node, node.right if towards.rank > node.rank else node.left)
        straight = [number for number, slot in enumerate(beside) if slot.y == node.y]
        middle = straight[0] if straight else (len(beside) - 1) / 2
        farthest = max(middle, len(beside) - 1 - middle, 1.0)
        return node.y + min(PORT_GAP_PX, (node.height / 2 - 8.0) / farthest) * (beside.index(towards) - middle)

    def box_port(self, line: Line) -> tuple[float, float]:
        """Return the point at which a line leaves the box of its sources."""
        source = line.edge.row.source
        if source is None:
            raise AssertionError(line)
        box = self.box(source.kind)
        return box.left if line.back else box.right, min(max(line.label.y, box.top + 10.0), box.bottom - 10.0)


def _join(left: Slot, right: Slot) -> None:
    left.right.append(right)
    right.left.append(left)
