"""Content of a sequence diagram of a recorded run: participants, messages and notes, in order; and its Mermaid form."""

from enum import Enum

import attrs

from lifecycle.diagrams.mermaid import single_line

__all__ = ["Arrow", "Message", "Note", "Participant", "Sequence", "sequence_mermaid"]


class Arrow(Enum):
    """Kind of a message; the value is Mermaid's arrow."""

    CALL = "->>"
    """Synchronous: the sender waits."""
    SEND = "-)"
    """Asynchronous: the sender does not wait."""
    KILL = "-x"
    """The receiver ends."""


@attrs.frozen
class Participant:
    """Participant of a run."""

    name: str
    """One word, the identifier in the source of the diagram."""
    label: str
    late: bool = False
    """True if the first message creates the participant."""
    person: bool = False


@attrs.frozen
class Message:
    """Message from one participant to another."""

    source: str
    target: str
    text: str
    arrow: Arrow = Arrow.CALL
    shade: str | None = None
    """Shade of the state that the text is about: see `lifecycle.diagrams.palette`."""


@attrs.frozen
class Note:
    """Note at some participants; with an empty `over`, across all that exist then."""

    over: tuple[str, ...]
    text: str
    shade: str | None = None
    """Shade of the state that the text is about: see `lifecycle.diagrams.palette`."""


@attrs.frozen
class Sequence:
    """Recorded run."""

    title: str
    about: str
    participants: tuple[Participant, ...]
    steps: tuple[Message | Note, ...]


def sequence_mermaid(picture: Sequence) -> str:
    """Return a Mermaid sequence diagram."""
    by_name = {one.name: one for one in picture.participants}
    lines = [
        "sequenceDiagram",
        f"    accTitle: {single_line(picture.title)}",
        f"    accDescr: {single_line(picture.about)}",
    ]
    lines += [f"    {_declared(one)}" for one in picture.participants if not one.late]
    existing = [one.name for one in picture.participants if not one.late]
    for step in picture.steps:
        if isinstance(step, Note):
            over = step.over or tuple(dict.fromkeys((existing[0], existing[-1])))
            lines.append(f"    Note over {','.join(over)}: {escaped(step.text)}")
            continue
        if step.target not in existing:
            lines.append(f"    create {_declared(by_name[step.target])}")
            existing.append(step.target)
        if step.arrow is Arrow.KILL:
            lines.append(f"    destroy {step.target}")
        lines.append(f"    {step.source}{step.arrow.value}{step.target}: {escaped(step.text)}")
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return a text as one line, escaped for Mermaid."""
    return " ".join(text.replace("#", "#35;").replace(";", "#59;").replace("#35#59;", "#35;").split())


def _declared(one: Participant) -> str:
    return f"{'actor' if one.person else 'participant'} {one.name} as {escaped(one.label)}"
