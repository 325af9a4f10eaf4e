"""Colours of all diagrams. Colours show the kind of a state, and a diagram always names the kind in words as well."""

from collections.abc import Mapping
from typing import Final

import attrs

from lifecycle.core.table import Kind

__all__ = ["DARK", "INK", "LIGHT", "TERMINAL", "Tone"]


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
