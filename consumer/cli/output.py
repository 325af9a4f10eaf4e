"""Printing results: for people with colours and columns, for programs as JSON."""

import sys
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["console", "local_time", "print_json", "print_line", "print_table"]


def console() -> Console:
    """Return the console for results. In a file or a pipe, lines are not folded to the width of a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=10_000)


def print_line(out: Console, line: Text | str) -> None:
    """Print a line with its own colours only; the terminal folds it, if it is too long."""
    out.print(line, soft_wrap=True, highlight=False, markup=False)


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(head: list[str], rows: list[list[object]]) -> None:
    """Print rows in columns; `None` is an empty cell."""
    table = Table(*head, box=None, show_header=bool(head), header_style="bold")
    for row in rows:
        # Text, since a string would be read as markup.
        table.add_row(*[Text("" if value is None else str(value)) for value in row])
    console().print(table)


def local_time(moment: float) -> str:
    """Return a moment (UTC seconds) in the time zone of this machine, with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).astimezone().isoformat(sep=" ", timespec="milliseconds")
