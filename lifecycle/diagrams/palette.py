"""One colour scheme for all pictures: what kind of state it is, a picture says by colour, and always by words too."""

from collections.abc import Mapping
from typing import Final

import attrs

from lifecycle.core.table import Kind

__all__ = ["DARK", "INK", "LIGHT", "TERMINAL", "Tone"]


@attrs.frozen
class Tone:
    """How states of a kind are drawn on one background."""

    fill: str
    line: str
    """Of a state's border, and of what leads into it."""
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
"""Of what belongs to no kind: on light, on dark."""
TERMINAL: Final[Mapping[Kind, str]] = {
    Kind.WAITING: "cyan",
    Kind.RUNNING: "blue",
    Kind.PASSING: "magenta",
    Kind.OUTCOME: "yellow",
    Kind.FINAL: "green",
}
"""The same where there are only the sixteen colours of a terminal."""
