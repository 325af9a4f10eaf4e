"""Properties of a table, computed from the table's answers, independently of the checks in its constructor."""

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from lifecycle.core.table import LIFECYCLE, Kind, Lifecycle

__all__ = ["Property", "properties"]


@attrs.frozen
class Property:
    """Claim about a table, with the faults that disprove it."""

    claim: str
    faults: tuple[str, ...]
    """States, signals or rows for which the claim is false; empty: the claim holds."""

    @property
    def holds(self) -> bool:
        """True if there is no fault."""
        return not self.faults


def properties(lifecycle: Lifecycle = LIFECYCLE) -> list[Property]:
    """Return the properties of a table. All of them hold for every table that `Lifecycle` accepts."""
    names = [state.name for state in lifecycle.states]
    targets: dict[str | None, list[str]] = {
        place: [target.name for target in lifecycle.targets(place)] for place in (None, *names)
    }
    final: set[str | None] = {state.name for state in lifecycle.of_kind(Kind.FINAL)}
    backwards: dict[str | None, list[str | None]] = {
        end: [start for start, ends in targets.items() if end in ends] for end in names
    }
    reachable = _closure(targets, [None])
    can_end = _closure(backwards, final)
    rows = Counter((row.source and row.source.name, row.trigger) for row in lifecycle.transitions)
    signals = Counter(state.signal for state in lifecycle.states)
    faults_by_claim = {
        "every state can be reached": [name for name in names if name not in reachable],
        "no state is a trap: every state that no row leaves is final": [
            name for name in names if not targets[name] and name not in final
        ],
        "a final state can be reached from every state": [name for name in names if name not in can_end],
        "no row leaves a final state": [name for name in names if name in final and targets[name]],
        "each state and trigger have one target": [
            f"{trigger} from {source or '(new)'}" for (source, trigger), number in rows.items() if number > 1
        ],
        "at least one row creates a task": [] if targets[None] else ["(none)"],
        "each signal belongs to one state": [signal for signal, number in signals.items() if number > 1],
    }
    return [Property(claim, tuple(faults)) for claim, faults in faults_by_claim.items()]


def _closure(targets: Mapping[str | None, Iterable[str | None]], starts: Iterable[str | None]) -> set[str | None]:
    """Return all places that can be reached from `starts`, including `starts`."""
    reached = set(starts)
    todo = list(reached)
    while todo:
        for end in targets.get(todo.pop(), ()):
            if end not in reached:
                reached.add(end)
                todo.append(end)
    return reached
