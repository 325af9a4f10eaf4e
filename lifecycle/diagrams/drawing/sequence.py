"""Sequence diagrams as SVG: a vertical line for each participant, time from top to bottom."""

from collections.abc import Iterable, Iterator
from typing import Final

from lifecycle.diagrams.drawing.parts import DARK_PAGES, escaped, opening, px
from lifecycle.diagrams.drawing.placement import text_width
from lifecycle.diagrams.palette import DARK, FAILED, INK, LIGHT
from lifecycle.diagrams.sequence import Arrow, Message, Note, Participant, Sequence

__all__ = ["sequence_svg"]

MARGIN_PX: Final = 14.0
BOX_HEIGHT_PX: Final = 28.0
MESSAGE_HEIGHT_PX: Final = 32.0
NOTE_HEIGHT_PX: Final = 27.0


class _Columns:
    """Horizontal positions of the participants."""

    def __init__(self, picture: Sequence) -> None:
        self.picture = picture
        self.names = [one.name for one in picture.participants]
        self.label = {one.name: one.label for one in picture.participants}
        needs = dict(self._needs())
        self.x: dict[str, float] = {}
        for place, name in enumerate(self.names):
            before = (self.x[other] + needs.get((other, name), 0.0) for other in self.names[:place])
            self.x[name] = max([MARGIN_PX + needs.get((name, name), 0.0) / 2, *before])
        last = self.names[-1]
        self.width = self.x[last] + needs[last, last] / 2 + MARGIN_PX

    def _needs(self) -> Iterator[tuple[tuple[str, str], float]]:
        """Yield the minimal distance of each pair of participants; for a name with itself, its width."""
        wide = {name: text_width(self.label[name]) + 24.0 for name in self.names}
        texts: dict[tuple[str, str], float] = {}
        for step in self.picture.steps:
            if isinstance(step, Message):
                first, last = sorted((step.source, step.target), key=self.names.index)
                texts[first, last] = max(texts.get((first, last), 0.0), text_width(step.text) + 34.0)
            elif step.over:
                wide[step.over[0]] = max(wide[step.over[0]], text_width(step.text) + 20.0)
        for place, name in enumerate(self.names):
            yield (name, name), wide[name]
            for other in self.names[:place]:
                beside = (wide[name] + wide[other]) / 2 + 12.0 if place and other == self.names[place - 1] else 0.0
                yield (other, name), max(beside, texts.get((other, name), 0.0))


def sequence_svg(picture: Sequence) -> str:
    """Return a diagram for light and dark pages, in the colours of the states."""
    columns = _Columns(picture)
    by_name = {one.name: one for one in picture.participants}
    created_at = {one.name: MARGIN_PX + BOX_HEIGHT_PX / 2 for one in picture.participants if not one.late}
    ended_at: dict[str, float] = {}
    drawn: list[str] = []
    gaps: list[tuple[float, float, float]] = []
    y = MARGIN_PX + BOX_HEIGHT_PX + 4.0
    for step in picture.steps:
        if isinstance(step, Note):
            y += NOTE_HEIGHT_PX
            drawn += _note(columns, step, y, created_at, ended_at)
            continue
        late = step.target not in created_at
        y += MESSAGE_HEIGHT_PX + (8.0 if late else 0.0)
        gaps.append(_text_place(columns, step, y))
        drawn += _message(columns, step, y, text_width(by_name[step.target].label) / 2 + 12.0 if late else 0.0)
        if late:
            created_at[step.target] = y
            y += BOX_HEIGHT_PX / 2
        if step.arrow is Arrow.KILL:
            ended_at[step.target] = y
            x = columns.x[step.target]
            drawn.append(f'<path class="cross {FAILED}" d="M{px(x - 6)} {px(y - 6)} l12 12 m0 -12 l-12 12"/>')
    end = y + 22.0
    lines = opening(picture.title, picture.about, columns.width, end + MARGIN_PX, _style())
    for one in picture.participants:
        x, top, bottom = columns.x[one.name], created_at.get(one.name, y), ended_at.get(one.name, end)
        look = f" {FAILED}" if one.name in ended_at else ""
        lines.append(f'<path class="life{look}" d="{_life(x, top, bottom, gaps)}"/>')
    lines += [line for one in picture.participants for line in _box(columns, one, created_at.get(one.name, y))]
    return "\n".join([*lines, *drawn, "</svg>"]) + "\n"


def _text_place(columns: _Columns, message: Message, y: float) -> tuple[float, float, float]:
    """Return the left and right end of a message's text, and its height."""
    middle, half = (columns.x[message.source] + columns.x[message.target]) / 2, text_width(message.text) / 2 + 4.0
    return middle - half, middle + half, y - 9.0


def _life(x: float, top: float, bottom: float, gaps: Iterable[tuple[float, float, float]]) -> str:
    """Return the vertical line of a participant, with a gap for each text that lies across."""
    ways, y = [], top
    for left, right, middle in gaps:
        if left < x < right and top < middle < bottom:
            ways.append(f"M{px(x)} {px(y)} V{px(middle - 8)}")
            y = middle + 6.0
    return " ".join([*ways, f"M{px(x)} {px(y)} V{px(bottom)}"])


def _box(columns: _Columns, one: Participant, y: float) -> list[str]:
    width, x = text_width(one.label) + 24.0, columns.x[one.name]
    round_off = BOX_HEIGHT_PX / 2 if one.person else 5
    return [
        f'<rect class="who" x="{px(x - width / 2)}" y="{px(y - BOX_HEIGHT_PX / 2)}" '  # noqa: ISC004 -- one element
        f'width="{px(width)}" height="{px(BOX_HEIGHT_PX)}" rx="{px(round_off)}"/>',
        f'<text class="who" x="{px(x)}" y="{px(y + 4)}">{escaped(one.label)}</text>',
    ]


def _note(
    columns: _Columns, note: Note, y: float, created_at: dict[str, float], ended_at: dict[str, float]
) -> list[str]:
    if not note.over:
        there = [columns.x[name] for name in created_at if name not in ended_at]
        middle, half = (min(there) + max(there)) / 2, text_width(note.text) / 2 + 8.0
        return [
            f'<path class="later" d="M{px(min(there))} {px(y - 8)} H{px(middle - half)} '  # noqa: ISC004
            f'M{px(middle + half)} {px(y - 8)} H{px(max(there))}"/>',
            f'<text class="later" x="{px(middle)}" y="{px(y - 4)}">{escaped(note.text)}</text>',
        ]
    x, width = columns.x[note.over[0]], text_width(note.text) + 14.0
    return [
        f'<g class="note{_shade_class(note.shade)}"><rect x="{px(x - width / 2)}" y="{px(y - 19)}" '  # noqa: ISC004
        f'width="{px(width)}" height="21" rx="6"/>'
        f'<text x="{px(x)}" y="{px(y - 4)}">{escaped(note.text)}</text></g>',
    ]


def _message(columns: _Columns, message: Message, y: float, short: float) -> list[str]:
    """Return the parts of a message; the arrow ends `short` pixels before the target's line."""
    start, end = columns.x[message.source], columns.x[message.target]
    way = 1 if end > start else -1
    tip = end - way * (short + (8.0 if message.arrow is Arrow.KILL else 1.0))
    head = f"M{px(tip)} {px(y)} l{-way * 7} -4 v8 z" if message.arrow is Arrow.CALL else ""
    open_head = f"M{px(tip - way * 7)} {px(y - 4)} L{px(tip)} {px(y)} l{-way * 7} 4"
    kinds = {Arrow.CALL: "", Arrow.SEND: " sent", Arrow.KILL: f" {FAILED}"}
    look = kinds[message.arrow] + _shade_class(message.shade)
    line_end = tip - way * 6 if head else tip
    return [
        f'<g class="say{look}"><path class="line" d="M{px(start)} {px(y)} H{px(line_end)}"/>'  # noqa: ISC004
        f'<path class="tip" d="{head or open_head}"/>'
        f'<text x="{px((start + end - way * short) / 2)}" y="{px(y - 5)}">{escaped(message.text)}</text></g>',
    ]


def _shade_class(shade: str | None) -> str:
    return f" {shade}" if shade is not None else ""


def _style() -> list[str]:
    lines = [
        "text { text-anchor: middle; }",
        "path { fill: none; stroke-width: 1.4; }",
        ".life { stroke-dasharray: 2 4; opacity: 0.6; }",
        ".later { stroke-dasharray: 6 4; font-style: italic; }",
        ".sent .line { stroke-dasharray: 5 3; }",
        ".cross { stroke-width: 2.4; }",
        "text.who { font-weight: 600; }",
    ]
    for tones, ink, paper, indent in ((LIGHT, INK[0], "#f1f5f9", ""), (DARK, INK[1], "#1e293b", "  ")):
        if indent:
            lines.append(f"{DARK_PAGES} {{")
        lines += [
            f"{indent}text {{ fill: {ink}; }} path, rect {{ stroke: {ink}; }} rect {{ fill: {paper}; }}",
            f"{indent}.tip {{ fill: {ink}; }} .sent .tip {{ fill: none; }}",
        ]
        for shade, tone in tones.items():
            lines += [
                f"{indent}.note.{shade} rect {{ fill: {tone.fill}; stroke: {tone.line}; }}",
                f"{indent}.note.{shade} text {{ fill: {tone.text}; }}",
                f"{indent}.say.{shade} path {{ stroke: {tone.line}; }} .say.{shade} text {{ fill: {tone.line}; }}",
            ]
        lines.append(f"{indent}.life.{FAILED}, .cross.{FAILED} {{ stroke: {tones[FAILED].line}; }}")
    return [*lines, "}"]
