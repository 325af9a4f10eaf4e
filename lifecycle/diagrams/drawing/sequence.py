"""Recorded runs as SVG: a line for each who takes part, time going down."""

from collections.abc import Iterator
from typing import Final

from lifecycle.core.table import Kind
from lifecycle.diagrams.drawing.graph import n, opening, spelt, text_width
from lifecycle.diagrams.palette import DARK, INK, LIGHT
from lifecycle.diagrams.sequence import Arrow, Note, Participant, Say, Sequence

__all__ = ["sequence_svg"]

MARGIN: Final = 14.0
BOX: Final = 28.0
"""The height of a participant's box."""
MESSAGE: Final = 32.0
NOTE: Final = 27.0
"""From one step to the next."""


class _Sheet:
    """Where everybody stands, and who is there."""

    def __init__(self, picture: Sequence) -> None:
        self.picture = picture
        self.names = [one.name for one in picture.participants]
        self.label = {one.name: one.label for one in picture.participants}
        needs = dict(self._needs())
        self.x: dict[str, float] = {}
        for place, name in enumerate(self.names):
            before = (self.x[other] + needs.get((other, name), 0.0) for other in self.names[:place])
            self.x[name] = max([MARGIN + needs.get((name, name), 0.0) / 2, *before])
        last = self.names[-1]
        self.width = self.x[last] + needs[last, last] / 2 + MARGIN

    def _needs(self) -> Iterator[tuple[tuple[str, str], float]]:
        """How far two must be apart; and, of one with itself, how much room it takes."""
        wide = {name: text_width(self.label[name]) + 24.0 for name in self.names}
        texts: dict[tuple[str, str], float] = {}
        for step in self.picture.steps:
            if isinstance(step, Say):
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
    """A picture for light and for dark pages, in the colours of the states that it tells of."""
    sheet = _Sheet(picture)
    who = {one.name: one for one in picture.participants}
    born = {one.name: MARGIN + BOX / 2 for one in picture.participants if not one.late}
    dead: dict[str, float] = {}
    drawn: list[str] = []
    y = MARGIN + BOX + 4.0
    for step in picture.steps:
        if isinstance(step, Note):
            y += NOTE
            drawn += _note(sheet, step, y, born, dead)
            continue
        late = step.target not in born
        y += MESSAGE + (8.0 if late else 0.0)
        drawn += _say(sheet, step, y, text_width(who[step.target].label) / 2 + 12.0 if late else 0.0)
        if late:
            born[step.target] = y
            y += BOX / 2
        if step.arrow is Arrow.KILL:
            dead[step.target] = y
            x = sheet.x[step.target]
            drawn.append(f'<path class="cross" d="M{n(x - 6)} {n(y - 6)} l12 12 m0 -12 l-12 12"/>')
    end = y + 22.0
    lines = opening(picture.title, picture.about, sheet.width, end + MARGIN, _style())
    for one in picture.participants:
        x, top = sheet.x[one.name], born.get(one.name, y)
        lines.append(f'<path class="life" d="M{n(x)} {n(top)} V{n(dead.get(one.name, end))}"/>')
    lines += [line for one in picture.participants for line in _box(sheet, one, born.get(one.name, y))]
    return "\n".join([*lines, *drawn, "</svg>"]) + "\n"


def _box(sheet: _Sheet, one: Participant, y: float) -> list[str]:
    width, x = text_width(one.label) + 24.0, sheet.x[one.name]
    round_off = BOX / 2 if one.person else 5
    return [
        f'<rect class="who" x="{n(x - width / 2)}" y="{n(y - BOX / 2)}" '  # noqa: ISC004 -- one element
        f'width="{n(width)}" height="{n(BOX)}" rx="{n(round_off)}"/>',
        f'<text class="who" x="{n(x)}" y="{n(y + 4)}">{spelt(one.label)}</text>',
    ]


def _note(sheet: _Sheet, note: Note, y: float, born: dict[str, float], dead: dict[str, float]) -> list[str]:
    if not note.over:
        there = [sheet.x[name] for name in born if name not in dead]
        middle, half = (min(there) + max(there)) / 2, text_width(note.text) / 2 + 8.0
        return [
            f'<path class="later" d="M{n(min(there))} {n(y - 8)} H{n(middle - half)} '  # noqa: ISC004
            f'M{n(middle + half)} {n(y - 8)} H{n(max(there))}"/>',
            f'<text class="later" x="{n(middle)}" y="{n(y - 4)}">{spelt(note.text)}</text>',
        ]
    x, width = sheet.x[note.over[0]], text_width(note.text) + 14.0
    return [
        f'<g class="note{_of(note.kind)}"><rect x="{n(x - width / 2)}" y="{n(y - 19)}" '  # noqa: ISC004
        f'width="{n(width)}" height="21" rx="6"/>'
        f'<text x="{n(x)}" y="{n(y - 4)}">{spelt(note.text)}</text></g>',
    ]


def _say(sheet: _Sheet, say: Say, y: float, short: float) -> list[str]:
    """`short`: so much before the target's line the arrow ends."""
    start, end = sheet.x[say.source], sheet.x[say.target]
    way = 1 if end > start else -1
    tip = end - way * (short + (8.0 if say.arrow is Arrow.KILL else 1.0))
    head = f"M{n(tip)} {n(y)} l{-way * 7} -4 v8 z" if say.arrow is Arrow.CALL else ""
    open_head = "" if say.arrow is Arrow.CALL else f" M{n(tip - way * 7)} {n(y - 4)} L{n(tip)} {n(y)} l{-way * 7} 4"
    dashed = " told" if say.arrow is Arrow.TELL else ""
    line_end = tip - way * 6 if head else tip
    return [
        f'<g class="say{dashed}{_of(say.kind)}"><path class="line" d="M{n(start)} {n(y)} H{n(line_end)}"/>'  # noqa: ISC004
        f'<path class="tip" d="{(head or open_head).strip()}"/>'
        f'<text x="{n((start + end - way * short) / 2)}" y="{n(y - 5)}">{spelt(say.text)}</text></g>',
    ]


def _of(kind: Kind | None) -> str:
    return f" {kind}" if kind is not None else ""


def _style() -> list[str]:
    lines = [
        "text { text-anchor: middle; }",
        "path { fill: none; stroke-width: 1.4; }",
        ".life { stroke-dasharray: 2 4; opacity: 0.6; }",
        ".later { stroke-dasharray: 6 4; font-style: italic; }",
        ".told .line { stroke-dasharray: 5 3; }",
        ".cross { stroke-width: 2.4; }",
        "text.who { font-weight: 600; }",
    ]
    for tones, ink, paper, indent in ((LIGHT, INK[0], "#f1f5f9", ""), (DARK, INK[1], "#1e293b", "  ")):
        if indent:
            lines.append("@media (prefers-color-scheme: dark) {")
        lines += [
            f"{indent}text {{ fill: {ink}; }} path, rect {{ stroke: {ink}; }} rect {{ fill: {paper}; }}",
            f"{indent}.tip {{ fill: {ink}; }} .told .tip {{ fill: none; }}",
        ]
        for kind, tone in tones.items():
            lines += [
                f"{indent}.note.{kind} rect {{ fill: {tone.fill}; stroke: {tone.line}; }}",
                f"{indent}.note.{kind} text {{ fill: {tone.text}; }}",
                f"{indent}.say.{kind} path {{ stroke: {tone.line}; }} .say.{kind} text {{ fill: {tone.line}; }}",
            ]
    return [*lines, "}"]
