"""Printing results: for people with colours and columns, for programs as JSON."""

import json
import math
import re
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from lifecycle.escaping import printable

__all__ = [
    "console", "is_unicode", "local_time", "print_json", "print_json_line", "print_line", "short_duration",
    "shown", "state_colour", "write",
]  # fmt: skip

SECONDS_PER_YEAR: Final = 31_556_952.0
"""Mean year of the calendar, for moments that `datetime` cannot show."""
UNITS: Final = ((86_400 * 365.25, "y"), (86_400.0, "d"), (3_600.0, "h"), (60.0, "m"), (1.0, "s"))
"""Units of `short_duration` in seconds, the longest first."""
NOT_PRINTED_IN_JSON: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON may contain as they are, but that command a terminal or reorder its text."""


def console() -> Console:
    """Return the console for results. In a file or a pipe, lines are not folded to the width of a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=10_000)


def is_unicode() -> bool:
    """Return whether the output can have any character."""
    return (sys.stdout.encoding or "utf-8").lower().startswith("utf")


def shown(text: str) -> str:
    """Return a text of a user on one line, without characters that command a terminal or that the output lacks."""
    return printable(text if is_unicode() else text.encode("ascii", "backslashreplace").decode())


def state_colour(name: str) -> str:
    """Return the colour of a state of tasks on a terminal; ``""`` in a pipe or a file."""
    if not sys.stdout.isatty():
        return ""
    from lifecycle.diagrams.palette import terminal_colour

    return terminal_colour(name)


def write(text: str) -> None:
    """Write to the standard output."""
    sys.stdout.write(text)


def print_line(out: Console, line: Text | str) -> None:
    """Print a line with its own colours only; the terminal folds it, if it is too long."""
    out.print(line, soft_wrap=True, highlight=False, markup=False)


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    _write_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_json_line(value: object) -> None:
    """Print a value as one line of JSON."""
    _write_json(msgspec.json.encode(value).decode())


def _write_json(text: str) -> None:
    text = NOT_PRINTED_IN_JSON.sub(_escaped, text)
    if not text.isascii() and not is_unicode():
        text = re.sub("[^\x00-\x7f]", _escaped, text)
    write(text + "\n")


def _escaped(found: re.Match[str]) -> str:
    """Return the escape of a character within a string of JSON."""
    return json.dumps(found[0])[1:-1]


def local_time(moment: float) -> str:
    """Return a moment (UTC seconds) in the time zone of this machine, with milliseconds.

    A moment for which Python has no date is returned as its year.
    """
    try:
        return datetime.fromtimestamp(moment, UTC).astimezone().isoformat(sep=" ", timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"year {1970 + moment / SECONDS_PER_YEAR:.0f}" if math.isfinite(moment) else str(moment)


def short_duration(seconds: float) -> str:
    """Return a duration in its largest unit, without spaces: ``250ms``, ``12s``, ``3m``, ``2h``, ``5d``, ``7y``."""
    if not math.isfinite(seconds):
        return str(seconds)
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f}ms" if seconds else "0s"
    length, unit = next((size, unit) for size, unit in UNITS if abs(seconds) >= size)
    return f"{int(seconds / length)}{unit}"
