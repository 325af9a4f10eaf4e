"""What a picture of a run shows: who took part, and what they said to one another, in order. And how it looks."""

from enum import Enum

import attrs

from lifecycle.core.table import Kind
from lifecycle.diagrams.mermaid import spoken

__all__ = ["Arrow", "Note", "Participant", "Say", "Sequence", "sequence_mermaid"]


class Arrow(Enum):
    """What kind of message it is; its value is Mermaid's arrow."""

    CALL = "->>"
    """The caller waits for it."""
    TELL = "-)"
    """Nobody waits."""
    KILL = "-x"
    """The receiver is no more."""


@attrs.frozen
class Participant:
    """Who takes part."""

    name: str
    """One word, for the picture's source."""
    label: str
    late: bool = False
    """Not there from the start: the first message to it creates it."""
    person: bool = False


@attrs.frozen
class Say:
    """A message."""

    source: str
    target: str
    text: str
    arrow: Arrow = Arrow.CALL
    kind: Kind | None = None
    """Of the state that it is about."""


@attrs.frozen
class Note:
    """What happens at a participant, or to all that are there if none is named."""

    over: tuple[str, ...]
    text: str
    kind: Kind | None = None
    """Of the state that it is about."""


@attrs.frozen
class Sequence:
    """A recorded run."""

    title: str
    about: str
    participants: tuple[Participant, ...]
    steps: tuple[Say | Note, ...]


def sequence_mermaid(picture: Sequence) -> str:
    """A Mermaid sequence diagram."""
    who = {one.name: one for one in picture.participants}
    lines = ["sequenceDiagram", f"    accTitle: {spoken(picture.title)}", f"    accDescr: {spoken(picture.about)}"]
    lines += [f"    {_declared(one)}" for one in picture.participants if not one.late]
    there = [one.name for one in picture.participants if not one.late]
    for step in picture.steps:
        if isinstance(step, Note):
            over = step.over or tuple(dict.fromkeys((there[0], there[-1])))
            lines.append(f"    Note over {','.join(over)}: {spelt(step.text)}")
            continue
        if step.target not in there:
            lines.append(f"    create {_declared(who[step.target])}")
            there.append(step.target)
        if step.arrow is Arrow.KILL:
            lines.append(f"    destroy {step.target}")
        lines.append(f"    {step.source}{step.arrow.value}{step.target}: {spelt(step.text)}")
    return "\n".join(lines) + "\n"


def spelt(text: str) -> str:
    """A text that ends where its line does, whatever is in it."""
    return " ".join(text.replace("#", "#35;").replace(";", "#59;").replace("#35#59;", "#35;").split())


def _declared(one: Participant) -> str:
    return f"{'actor' if one.person else 'participant'} {one.name} as {spelt(one.label)}"
