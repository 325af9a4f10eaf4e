"""Rows in columns: on a terminal fitted to its width and coloured, in a pipe or a file complete and printed at once.

Rows come in pages and are printed page by page, so that output begins at once and `head` ends the command. The first
page decides the widths.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

import attrs
from rich.cells import cell_len
from rich.text import Text

from lifecycle.consumer.cli.output import console, is_unicode, shown, write

__all__ = ["PAGE_LIMIT", "Column", "print_columns", "print_fields"]

PAGE_LIMIT: Final = 500
"""Rows that are read and printed at a time."""
GAP: Final = 2
"""Spaces between two columns."""
EMPTY: Final = "-"
"""An empty cell in a pipe, so that every line has the same number of columns."""
HEAD_STYLE: Final = "bold"

Row = TypeVar("Row")


@attrs.frozen
class Column(Generic[Row]):
    """A column of rows."""

    head: str
    cell: Callable[[Row], str]
    """Return the text of a row's cell; ``""``: empty."""
    importance: int
    """On a narrow terminal, columns of a small importance are left out first."""
    style: Callable[[Row], str] = lambda _: ""
    """Return the colour of a row's cell, as `rich` names colours."""
    least_width: int | None = None
    """Width to which the column may be cut on a narrow terminal; ``None``: it is not cut."""
    cut: str = "right"
    """``"right"`` or ``"left"``: the end of a text that is left out."""


def print_columns(columns: Sequence[Column[Row]], pages: Iterable[Sequence[Row]]) -> None:
    """Print rows under the heads of their columns, each page as soon as it is there."""
    if sys.stdout.isatty():
        _print_for_people(columns, pages)
    else:
        _print_for_programs(columns, pages)


def print_fields(fields: Sequence[tuple[str, str, str]]) -> None:
    """Print names with their texts, uncut; the third of each field is the colour of its text."""
    out, width = console(), max(len(name) for name, _, _ in fields) + GAP
    for name, text, style in fields:
        out.print(Text.assemble((name.ljust(width), HEAD_STYLE), (shown(text), style)), soft_wrap=True, highlight=False)


def _print_for_programs(columns: Sequence[Column[Row]], pages: Iterable[Sequence[Row]]) -> None:
    """Print all columns, uncut, and flush after each page."""
    widths: list[int] = []
    for page in pages:
        lines = [[shown(column.cell(row)) or EMPTY for column in columns] for row in page]
        if not widths:
            lines.insert(0, [column.head for column in columns])
            widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
        write("".join(_joined(cells, widths) for cells in lines))
        sys.stdout.flush()
    if not widths:
        write(_joined([column.head for column in columns], [len(column.head) for column in columns]))


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [_padded(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return (" " * GAP).join(padded).rstrip() + "\n"


def _print_for_people(columns: Sequence[Column[Row]], pages: Iterable[Sequence[Row]]) -> None:
    """Print the columns that fit, with colours."""
    out = console()
    widths: dict[int, int] = {}
    for page in pages:
        cells = [[shown(column.cell(row)) for column in columns] for row in page]
        if not widths:
            widths = _fit(columns, cells, out.width, complete=len(page) < PAGE_LIMIT)
            heads = [(columns[n].head, HEAD_STYLE) for n in widths]
            out.print(_line(heads, columns, widths), soft_wrap=True, highlight=False)
        lines = [
            _line([(texts[n], columns[n].style(row)) for n in widths], columns, widths)
            for texts, row in zip(cells, page, strict=True)
        ]
        out.print(Text("\n").join(lines), soft_wrap=True, highlight=False)
    if not widths:
        write(_joined([column.head for column in columns], [len(column.head) for column in columns]))


def _fit(
    columns: Sequence[Column[Row]], cells: Sequence[Sequence[str]], width: int, *, complete: bool
) -> dict[int, int]:
    """Return number → width of the columns that fit. A column without any text is left out if the page is complete."""
    natural = [
        max([len(column.head), *(cell_len(row[number]) for row in cells)]) for number, column in enumerate(columns)
    ]
    least = [min(size, column.least_width or size) for size, column in zip(natural, columns, strict=True)]
    by_importance = sorted(range(len(columns)), key=lambda number: -columns[number].importance)
    chosen: dict[int, int] = {}
    free = width + GAP
    for number in by_importance:
        has_text = any(row[number] for row in cells)
        if (has_text or not complete) and (least[number] + GAP <= free or not chosen):
            chosen[number] = least[number]
            free -= least[number] + GAP
    while free > 0 and (cut := [number for number in chosen if chosen[number] < natural[number]]):
        for number in cut[:free]:  # shared equally
            chosen[number] += 1
        free -= len(cut)
    return dict(sorted(chosen.items()))


def _line(cells: Sequence[tuple[str, str]], columns: Sequence[Column[Row]], widths: dict[int, int]) -> Text:
    line = Text(end="")
    last = max(widths)
    for (text, style), (number, width) in zip(cells, widths.items(), strict=True):
        cut = _cut(text, width, columns[number].cut)
        line.append(cut if number == last else _padded(cut, width), style)
        if number != last:
            line.append(" " * GAP)
    return line


def _cut(text: str, width: int, end: str) -> str:
    """Return the text without its left or right end, with a mark there, if it is wider than `width` cells."""
    if cell_len(text) <= width:
        return text
    mark = "…" if is_unicode() else "~"
    kept = text[-width:] if end == "left" else text[:width]
    while cell_len(kept) + 1 > width and kept:
        kept = kept[1:] if end == "left" else kept[:-1]
    return mark + kept if end == "left" else kept + mark


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
