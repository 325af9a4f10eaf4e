"""Paths through a table, for the strategies that walk through tables."""

from collections.abc import Iterable, Sequence
from typing import Final

from lifecycle.core.table import Kind, Lifecycle

__all__ = ["Paths"]

Path = tuple[str, ...]
"""The states that a path enters, in order."""
UNREACHABLE: Final = 10**9
"""The distance between two states that no path connects."""


class Paths:
    """The paths of a table. States are given by name; ``None`` is the start, before a task exists."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        """Compute the shortest path between each two states."""
        self.lifecycle = lifecycle
        self.sources: list[str | None] = [None, *(state.name for state in lifecycle.states)]
        self.states: frozenset[str | None] = frozenset(state.name for state in lifecycle.states)
        self.resting: frozenset[str | None] = frozenset(
            state.name for state in lifecycle.of_kind(Kind.OUTCOME, Kind.FINAL)
        )
        self._next = {source: [target.name for target in lifecycle.targets(source)] for source in self.sources}
        self._paths: dict[tuple[str | None, frozenset[str | None], int], tuple[list[Path], list[Path]]] = {}
        self._shortest = {source: self._shortest_from(source) for source in self.sources}

    def next_states(self, source: str | None) -> Sequence[str]:
        """Return the next states of `source`, in the table's order."""
        return self._next[source]

    def signals(self, states: Iterable[str]) -> list[str]:
        """Return the signals of the entries into these states."""
        return [self.lifecycle.state(state).signal for state in states]

    def distance(self, source: str | None, goals: frozenset[str | None]) -> int:
        """Return the number of transitions from `source` to the nearest goal; `UNREACHABLE` if there is no path."""
        paths = self._shortest[source]
        return min((len(paths[goal]) for goal in goals if goal in paths), default=UNREACHABLE)

    def shortest_path(self, source: str | None, goals: frozenset[str | None]) -> list[str]:
        """Return a shortest path from `source` to the nearest goal."""
        shortest: Path = min((path for state, path in self._shortest[source].items() if state in goals), key=len)
        return list(shortest)

    def single_steps(self, source: str | None, goals: frozenset[str | None], max_size: int) -> list[Path]:
        """Return the single transitions from `source` after which a goal is at most ``max_size - 1`` away."""
        return [(state,) for state in self._next[source] if 1 + self.distance(state, goals) <= max_size]

    def steps(self, source: str | None, goals: frozenset[str | None], max_size: int) -> tuple[list[Path], list[Path]]:
        """Return the single steps, and the shortest paths from `source` through each transition of the table."""
        key = source, goals, max_size
        if key not in self._paths:
            far = [
                (*path, state)
                for end, path in self._shortest[source].items()
                for state in self._next[end]
                if len(path) + 1 + self.distance(state, goals) <= max_size
            ]
            self._paths[key] = self.single_steps(source, goals, max_size), far
        return self._paths[key]

    def _shortest_from(self, start: str | None) -> dict[str | None, Path]:
        paths: dict[str | None, Path] = {start: ()}
        todo = [start]
        for source in todo:
            for state in self._next[source]:
                if state not in paths:
                    paths[state] = (*paths[source], state)
                    todo.append(state)
        return paths
