"""Colours of all diagrams and of the terminal: by the kind of a state, and for an end also by good and bad.

A diagram always names the kind in words as well.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from lifecycle.core.table import ERROR, LIFECYCLE, TIMEOUT, Kind, Lifecycle, State

__all__ = ["DARK", "FAILED", "INK", "LIGHT", "NEVER_RUN", "SHADES", "TERMINAL", "Tone", "shade", "terminal_colour"]

FAILED: Final = "failed"
"""Shade of the outcomes for which the function is to blame."""
NEVER_RUN: Final = "never-run"
"""Shade of the final states that a task enters without an attempt."""
SHADES: Final = (*(str(kind) for kind in Kind), FAILED, NEVER_RUN)
"""The shade of a state is its kind, or one of the two above."""


@attrs.frozen
class Tone:
    """Colours of the states of one shade on one background."""

    fill: str
    line: str
    """Colour of the state's border and of the edges into the state."""
    text: str


LIGHT: Final[Mapping[str, Tone]] = {
    Kind.WAITING: Tone("#cffafe", "#0891b2", "#164e63"),
    Kind.RUNNING: Tone("#dbeafe", "#2563eb", "#1e3a8a"),
    Kind.PASSING: Tone("#fae8ff", "#c026d3", "#701a75"),
    Kind.OUTCOME: Tone("#fef3c7", "#d97706", "#78350f"),
    Kind.FINAL: Tone("#dcfce7", "#16a34a", "#14532d"),
    FAILED: Tone("#fee2e2", "#dc2626", "#7f1d1d"),
    NEVER_RUN: Tone("#f1f5f9", "#64748b", "#334155"),
}
DARK: Final[Mapping[str, Tone]] = {
    Kind.WAITING: Tone("#083344", "#22d3ee", "#cffafe"),
    Kind.RUNNING: Tone("#172554", "#60a5fa", "#dbeafe"),
    Kind.PASSING: Tone("#4a044e", "#e879f9", "#fae8ff"),
    Kind.OUTCOME: Tone("#451a03", "#fbbf24", "#fef3c7"),
    Kind.FINAL: Tone("#052e16", "#4ade80", "#dcfce7"),
    FAILED: Tone("#450a0a", "#f87171", "#fee2e2"),
    NEVER_RUN: Tone("#1e293b", "#8fa1b8", "#e2e8f0"),
}
INK: Final = ("#475569", "#94a3b8")
"""Colours of parts without a kind, on a light and on a dark background."""
TERMINAL: Final[Mapping[str, str]] = {
    Kind.WAITING: "cyan",
    Kind.RUNNING: "blue",
    Kind.PASSING: "magenta",
    Kind.OUTCOME: "yellow",
    Kind.FINAL: "green",
    FAILED: "red",
    NEVER_RUN: "bright_black",
}
"""Colours of the shades among the sixteen colours of a terminal."""


def shade(table: Lifecycle, state: State) -> str:
    """Return the shade of a state of a table."""
    if state in (ERROR, TIMEOUT):
        return FAILED
    if state.kind is Kind.FINAL and not any(
        target == state and source is not None and source.kind is Kind.RUNNING
        for _, source, target, _ in table.transitions
    ):
        return NEVER_RUN
    return str(state.kind)


def terminal_colour(name: str) -> str:
    """Return the colour of a task's state on a terminal."""
    return TERMINAL[shade(LIFECYCLE, LIFECYCLE.state(name))]
