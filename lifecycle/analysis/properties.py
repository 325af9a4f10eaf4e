"""What a table promises, computed from what it answers, and not from how it was checked when it was built."""

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from lifecycle.core.table import LIFECYCLE, Kind, Lifecycle

__all__ = ["Property", "properties"]


@attrs.frozen
class Property:
    """Something that holds for a table, or does not."""

    claim: str
    faults: tuple[str, ...]
    """Where it does not hold; empty: it holds."""

    @property
    def holds(self) -> bool:
        """Is there no fault?"""
        return not self.faults


def properties(lifecycle: Lifecycle = LIFECYCLE) -> list[Property]:
    """The properties of a table. For one that could be built all of them hold; see `Lifecycle`."""
    names = [state.name for state in lifecycle.states]
    ways: dict[str | None, list[str]] = {
        place: [target.name for target in lifecycle.targets(place)] for place in (None, *names)
    }
    final: set[str | None] = {state.name for state in lifecycle.of_kind(Kind.FINAL)}
    backwards: dict[str | None, list[str | None]] = {
        end: [start for start, targets in ways.items() if end in targets] for end in names
    }
    born = _closure(ways, [None])
    ending = _closure(backwards, final)
    rows = Counter((row.source and row.source.name, row.trigger) for row in lifecycle.transitions)
    signals = Counter(state.signal for state in lifecycle.states)
    found = {
        "every state can be reached": [name for name in names if name not in born],
        "no state is a trap: those without a way out are final": [
            name for name in names if not ways[name] and name not in final
        ],
        "an end can be reached from every state": [name for name in names if name not in ending],
        "final states have no way out": [name for name in names if name in final and ways[name]],
        "each state and trigger have one target": [
            f"{trigger} from {source or '(new)'}" for (source, trigger), times in rows.items() if times > 1
        ],
        "tasks are created in one state": [] if len(ways[None]) == 1 else (ways[None] or ["(none)"]),
        "each signal is that of one state": [signal for signal, times in signals.items() if times > 1],
    }
    return [Property(claim, tuple(faults)) for claim, faults in found.items()]


def _closure(ways: Mapping[str | None, Iterable[str | None]], starts: Iterable[str | None]) -> set[str | None]:
    """All that can be reached from these, themselves included."""
    reached = set(starts)
    todo = list(reached)
    while todo:
        for end in ways.get(todo.pop(), ()):
            if end not in reached:
                reached.add(end)
                todo.append(end)
    return reached
