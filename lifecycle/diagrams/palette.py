"""Colours of all diagrams. Colours show the kind of a state, and a diagram always names the kind in words as well."""

from collections.abc import Mapping
from typing import Final

import attrs

from lifecycle.core.table import ERROR, LIFECYCLE, TIMEOUT, Kind

__all__ = ["DARK", "INK", "LIGHT", "TERMINAL", "Tone", "terminal_colour"]


@attrs.frozen
class Tone:
    """Colours of the states of one kind on one background."""

    fill: str
    line: str
    """Colour of the state's border and of the edges into the state."""
    text: str


LIGHT: Final[Mapping[Kind, Tone]] = {
    Kind.WAITING: Tone("#cffafe", "#0891b2", "#164e63"),
    Kind.RUNNING: Tone("#dbeafe", "#2563eb", "#1e3a8a"),
    Kind.PASSING: Tone("#fae8ff", "#c026d3", "#701a75"),
    Kind.OUTCOME: Tone("#fef3c7", "#d97706", "#78350f"),
    Kind.FINAL: Tone("#dcfce7", "#16a34a", "#14532d"),
}
DARK: Final[Mapping[Kind, Tone]] = {
    Kind.WAITING: Tone("#083344", "#22d3ee", "#cffafe"),
    Kind.RUNNING: Tone("#172554", "#60a5fa", "#dbeafe"),
    Kind.PASSING: Tone("#4a044e", "#e879f9", "#fae8ff"),
    Kind.OUTCOME: Tone("#451a03", "#fbbf24", "#fef3c7"),
    Kind.FINAL: Tone("#052e16", "#4ade80", "#dcfce7"),
}
INK: Final = ("#475569", "#94a3b8")
"""Colours of parts without a kind, on a light and on a dark background."""
TERMINAL: Final[Mapping[Kind, str]] = {
    Kind.WAITING: "cyan",
    Kind.RUNNING: "blue",
    Kind.PASSING: "magenta",
    Kind.OUTCOME: "yellow",
    Kind.FINAL: "green",
}
"""Colours of the kinds among the sixteen colours of a terminal."""
BAD: Final = ("red", (ERROR, TIMEOUT))
"""Colour of the outcomes for which the function is to blame."""
NEVER_RUN: Final = "bright_black"
"""Colour of the final states that a task enters without an attempt."""
_AFTER_AN_ATTEMPT: Final = frozenset(
    target.name for _, source, target, _ in LIFECYCLE.transitions if source is not None and source.kind is Kind.RUNNING
)


def terminal_colour(name: str) -> str:
    """Return the colour of a task's state on a terminal: by its kind, and for an end also by good and bad."""
    state = LIFECYCLE.state(name)
    if state.kind is Kind.FINAL and state.name not in _AFTER_AN_ATTEMPT:
        return NEVER_RUN
    colour, states = BAD
    return colour if state in states else TERMINAL[state.kind]
