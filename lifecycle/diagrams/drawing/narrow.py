"""Diagrams of tables as SVG for narrow pages: the states one below the other, lines beside them.

A line down runs on the left, a line up on the right. All lines of one source share a vertical track; each turns off at
its target, where its label is. So labels lie between the tracks and the states, and no line crosses a label.
"""

from functools import partial
from typing import Final

import attrs

from lifecycle.core.table import Kind, State
from lifecycle.diagrams.drawing.parts import (
    HEAD_LENGTH_PX,
    arrow,
    box,
    diagram_style,
    head,
    legend,
    opening,
    px,
    state_box,
)
from lifecycle.diagrams.drawing.placement import (
    BOX_MARGIN_PX,
    KIND_NAME_HEIGHT_PX,
    LINE_HEIGHT_PX,
    MARGIN_PX,
    Box,
    text_width,
)
from lifecycle.diagrams.graph import KINDS, Edge, Graph

__all__ = ["svg_narrow"]

TRACK_GAP_PX: Final = 9.0
STATE_HEIGHT_PX: Final = 28.0
STATE_GAP_PX: Final = 9.0
BOX_GAP_PX: Final = 16.0
MAIN_GAP_PX: Final = 34.0
"""Distance of two boxes with the label of the main path between them."""
PORT_HEIGHT_PX: Final = LINE_HEIGHT_PX + 3.0
LABEL_MARGIN_PX: Final = 14.0

LEFT: Final = -1
RIGHT: Final = 1


@attrs.define(eq=False)
class _Row:
    """A state, with the ends of the lines on each side from top to bottom."""

    state: State
    top: float = 0.0
    ports: dict[int, list[object]] = attrs.field(factory=lambda: {LEFT: [], RIGHT: []})
    """Side → the track that leaves, and the lines that arrive."""

    @property
    def height(self) -> float:
        return max(STATE_HEIGHT_PX, *(PORT_HEIGHT_PX * len(ports) + 6.0 for ports in self.ports.values()))

    @property
    def y(self) -> float:
        return self.top + self.height / 2

    def port(self, side: int, end: object) -> float:
        """Return the height of an end."""
        ports = self.ports[side]
        return self.y + PORT_HEIGHT_PX * (ports.index(end) - (len(ports) - 1) / 2)


@attrs.define(eq=False)
class _Track:
    """The vertical part of all lines of one source on one side."""

    side: int
    source: State | Kind | None
    lines: list[tuple[Edge, ...]] = attrs.field(factory=list)
    number: int = 0
    """From inside to outside."""


class _Column:
    """Positions of all parts."""

    def __init__(self, picture: Graph) -> None:
        self.picture = picture
        self.main = {id(edge) for edge in picture.main_path}
        kinds = [kind for kind in KINDS if picture.of_kind(kind)]
        self.groups = {kind: [_Row(state) for state in self._states(kind, kind is kinds[0])] for kind in kinds}
        self.rows = {row.state.name: row for rows in self.groups.values() for row in rows}
        self.order = {name: number for number, name in enumerate(self.rows)}
        self.straight: list[Edge] = []
        self.tracks: dict[tuple[int, object], _Track] = {}
        for edges in picture.bundles:
            self._add(edges)
        self._sort_ports()
        self._stack()
        self._number_tracks()
        self._widths()

    def _states(self, kind: Kind, is_first: bool) -> list[State]:
        """Return the states of a kind: that of the main path next to the box that it leads to, or comes from."""
        on_way = [edge.row.target for edge in self.picture.main_path if edge.row.target.kind is kind]
        others = [state for state in self.picture.of_kind(kind) if state not in on_way]
        return [*others, *on_way] if is_first else [*on_way, *others]

    def _add(self, edges: tuple[Edge, ...]) -> None:
        row = edges[0].row
        target = self.rows[row.target.name]
        if row.source is None:
            source: State | Kind | None = None
            side = LEFT
        else:
            source = row.source.kind if len(edges) > 1 else row.source
            down = self.order[row.source.name] < self.order[row.target.name]
            if down and len(edges) == 1 and self._is_straight(edges[0]):
                self.straight.append(edges[0])
                return
            side = LEFT if down else RIGHT
        track = self.tracks.setdefault((side, source), _Track(side, source))
        track.lines.append(edges)
        target.ports[side].append(edges)

    def _is_straight(self, edge: Edge) -> bool:
        """Return whether nothing lies between the two states of the main path."""
        source, target = edge.row.source, edge.row.target
        return source is not None and id(edge) in self.main and self.order[target.name] == self.order[source.name] + 1

    def _sort_ports(self) -> None:
        for track in self.tracks.values():
            if isinstance(track.source, State):
                ports = self.rows[track.source.name].ports[track.side]
                if track.side == LEFT:
                    ports.append(track)
                else:
                    ports.insert(0, track)

    def _stack(self) -> None:
        """Set the heights of all states."""
        y, self.boxes, previous = 0.0, {}, None
        for kind, rows in self.groups.items():
            gap = 0.0 if previous is None else MAIN_GAP_PX if self._main_between(previous, rows[0]) else BOX_GAP_PX
            top = y + gap
            y = top + KIND_NAME_HEIGHT_PX + 5.0
            for row in rows:
                row.top = y
                y += row.height + (MAIN_GAP_PX - 6.0 if self._main_between(row, None) else STATE_GAP_PX)
            y = rows[-1].top + rows[-1].height + BOX_MARGIN_PX
            self.boxes[kind] = top, y
            previous = rows[-1]
        self.height = y

    def _main_between(self, upper: _Row, lower: _Row | None) -> bool:
        """Return whether the main path leads straight from a state to the next one, in the same box if not given."""
        return any(
            edge.row.source == upper.state
            and (edge.row.target == lower.state if lower else edge.row.target.kind is upper.state.kind)
            for edge in self.straight
        )

    def start_of(self, track: _Track) -> float:
        """Return the height at which a track leaves its source."""
        if isinstance(track.source, State):
            return self.rows[track.source.name].port(track.side, track)
        if track.source is None:
            return self.rows[track.lines[0][0].row.target.name].port(track.side, track.lines[0])
        top, bottom = self.boxes[track.source]
        return bottom - 10.0 if track.side == LEFT else top + 10.0

    def length(self, track: _Track, edges: tuple[Edge, ...]) -> float:
        """Return the length of a line on its track."""
        return abs(self.rows[edges[0].row.target.name].port(track.side, edges) - self.start_of(track))

    def _span(self, track: _Track) -> tuple[float, float]:
        ends = [self.rows[edges[0].row.target.name].port(track.side, edges) for edges in track.lines]
        return min(self.start_of(track), *ends), max(self.start_of(track), *ends)

    def _number_tracks(self) -> None:
        """Give each track the innermost number at which it meets no other track; short tracks come first."""
        self.track_count = {LEFT: 0, RIGHT: 0}
        taken: dict[int, list[tuple[int, float, float]]] = {LEFT: [], RIGHT: []}
        spans = {id(track): self._span(track) for track in self.tracks.values()}
        for track in sorted(self.tracks.values(), key=lambda one: spans[id(one)][1] - spans[id(one)][0]):
            if track.source is None:
                continue
            top, bottom = spans[id(track)]
            used = {
                number
                for number, upper, lower in taken[track.side]
                if top <= lower + TRACK_GAP_PX and upper <= bottom + TRACK_GAP_PX
            }
            track.number = next(number for number in range(len(used) + 1) if number not in used)
            taken[track.side].append((track.number, top, bottom))
            self.track_count[track.side] = max(self.track_count[track.side], track.number + 1)

    def _widths(self) -> None:
        labels = {LEFT: 0.0, RIGHT: 0.0}
        for track in self.tracks.values():
            widths = [text_width(text) + LABEL_MARGIN_PX for edges in track.lines for text in _texts(edges)]
            if track.source is None:
                widths = [width + 16.0 for width in widths]
            labels[track.side] = max(labels[track.side], *widths)
        self.label_width = labels
        state_width = max(text_width(name) for name in self.rows) + 20.0
        beside = {
            side: TRACK_GAP_PX * self.track_count[side] + labels[side] + BOX_MARGIN_PX + HEAD_LENGTH_PX
            for side in (LEFT, RIGHT)
        }
        self.left = MARGIN_PX + beside[LEFT]
        self.right = self.left + state_width
        # The labels of the main path stand to the right of its line, in the middle.
        longest = max((text_width(text) for edge in self.straight for text in _texts((edge,))), default=0.0)
        self.width = max(self.right + beside[RIGHT], (self.left + self.right) / 2 + 9.0 + longest) + MARGIN_PX

    def track_x(self, track: _Track) -> float:
        """Return the horizontal position of a track."""
        away = BOX_MARGIN_PX + HEAD_LENGTH_PX + self.label_width[track.side] + TRACK_GAP_PX * (track.number + 0.5)
        return self.left - away if track.side == LEFT else self.right + away


def _texts(edges: tuple[Edge, ...]) -> list[str]:
    return [edges[0].trigger, *edges[0].visits]


def svg_narrow(picture: Graph) -> str:
    """Return a diagram for light and dark pages that is narrow enough for a telephone."""
    column = _Column(picture)
    explained = legend(picture, MARGIN_PX, column.height + 26.0, narrow=True)
    height = column.height + 30.0 + 18.0 * len(explained) + 2 * MARGIN_PX
    lines = opening(picture.title, picture.about, column.width, height, diagram_style())
    lines.append(f'<g transform="translate(0 {MARGIN_PX:g})">')
    names = {state.name for state in picture.states}
    for kind, (top, bottom) in column.boxes.items():
        lines += box(Box(kind, column.left - BOX_MARGIN_PX, top, column.right + BOX_MARGIN_PX, bottom), names)
    for edge in column.straight:
        lines.append(_straight(column, edge))
    for track in sorted(column.tracks.values(), key=lambda one: -one.number):
        # The longest first: where lines share the track, the colour is that of the next one to turn off.
        far = sorted(track.lines, key=partial(column.length, track), reverse=True)
        lines += [_turn_off(column, track, edges) for edges in far]
    for row in column.rows.values():
        lines.append(state_box(picture, row.state, column.left, row.top, column.right, row.top + row.height))
    return "\n".join([*lines, *explained, "</g>", "</svg>"]) + "\n"


def _straight(column: _Column, edge: Edge) -> str:
    """Return a line of the main path to the state below."""
    source, target = edge.row.source, edge.row.target
    if source is None:
        raise AssertionError(edge)
    x = (column.left + column.right) / 2
    top, bottom = column.rows[source.name].top + column.rows[source.name].height, column.rows[target.name].top
    path = f"M{px(x)} {px(top)} V{px(bottom - HEAD_LENGTH_PX + 1)}"
    tip = f"M{px(x)} {px(bottom)} l-5 {-HEAD_LENGTH_PX:g} h10 z"
    # Beside the line, above the box of the target.
    texts = [edge.trigger, *edge.visits]
    label = x + max(map(text_width, texts)) / 2 + 9.0
    return arrow(column.picture, (edge,), [path], tip, (label, top + 18.0), texts, main=True)


def _turn_off(column: _Column, track: _Track, edges: tuple[Edge, ...]) -> str:
    """Return a line along its track to the target."""
    side, texts = track.side, _texts(edges)
    y = column.rows[edges[0].row.target.name].port(side, edges)
    edge_x = column.left if side == LEFT else column.right
    x, start = column.track_x(track), column.start_of(track)
    label = edge_x + side * (BOX_MARGIN_PX + HEAD_LENGTH_PX + column.label_width[side] / 2)
    half = max(map(text_width, texts)) / 2 + 3.0
    if track.source is None:
        first = f"M{px(x + 12)} {px(y)} H{px(label - half)}"
        circle = f'<circle class="birth" cx="{px(x + 6)}" cy="{px(y)}" r="6"/>'
    else:
        from_x = edge_x if isinstance(track.source, State) else edge_x + side * BOX_MARGIN_PX
        bend = min(6.0, abs(y - start) / 2)
        way = 1 if y > start else -1
        first = (
            f"M{px(from_x)} {px(start)} H{px(x - side * bend)} Q{px(x)} {px(start)} {px(x)} {px(start + way * bend)} "
            f"V{px(y - way * bend)} Q{px(x)} {px(y)} {px(x - side * bend)} {px(y)} H{px(label + side * half)}"
        )
        circle = ""
    second = f"M{px(label - side * half)} {px(y)} H{px(edge_x + side * (HEAD_LENGTH_PX - 1))}"
    main = id(edges[0]) in column.main
    return circle + arrow(
        column.picture, edges, [first, second], head(edge_x, y, -side), (label, y + 4.0), texts, main=main
    )
