"""Ways through a table, for the strategies that walk it."""

from collections.abc import Iterable, Sequence
from typing import Final

from lifecycle.core.table import Kind, Lifecycle

__all__ = ["Paths"]

Leg = tuple[str, ...]
"""The states that are entered, one after the other."""
FAR: Final = 10**9


class Paths:
    """What can be reached from where in a table, and how. States go by their names; ``None``: there is no task yet."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        """Ways are computed once."""
        self.lifecycle = lifecycle
        self.places: list[str | None] = [None, *(state.name for state in lifecycle.states)]
        self.states: frozenset[str | None] = frozenset(state.name for state in lifecycle.states)
        self.resting: frozenset[str | None] = frozenset(
            state.name for state in lifecycle.of_kind(Kind.OUTCOME, Kind.FINAL)
        )
        self._next = {place: [target.name for target in lifecycle.targets(place)] for place in self.places}
        self._legs: dict[tuple[str | None, frozenset[str | None], int], tuple[list[Leg], list[Leg]]] = {}
        self._ways = {place: self._shortest(place) for place in self.places}

    def following(self, place: str | None) -> Sequence[str]:
        """The states that may be entered from there, in the table's order."""
        return self._next[place]

    def signals(self, states: Iterable[str]) -> list[str]:
        """Those that are sent on entering these states."""
        return [self.lifecycle.state(state).signal for state in states]

    def distance(self, place: str | None, goals: frozenset[str | None]) -> int:
        """How many steps it takes from there to one of `goals`; `FAR` if no way leads there."""
        ways = self._ways[place]
        return min((len(ways[goal]) for goal in goals if goal in ways), default=FAR)

    def way(self, place: str | None, goals: frozenset[str | None]) -> list[str]:
        """A shortest way from there to one of `goals`."""
        shortest: Leg = min((way for state, way in self._ways[place].items() if state in goals), key=len)
        return list(shortest)

    def near(self, place: str | None, goals: frozenset[str | None], room: int) -> list[Leg]:
        """The single steps from there after which one of `goals` can still be reached, in `room` steps altogether."""
        return [(state,) for state in self._next[place] if 1 + self.distance(state, goals) <= room]

    def legs(self, place: str | None, goals: frozenset[str | None], room: int) -> tuple[list[Leg], list[Leg]]:
        """The same, and the shortest ways from there to and over each row of the table."""
        asked = place, goals, room
        if asked not in self._legs:
            far = [
                (*way, state)
                for source, way in self._ways[place].items()
                for state in self._next[source]
                if len(way) + 1 + self.distance(state, goals) <= room
            ]
            self._legs[asked] = self.near(place, goals, room), far
        return self._legs[asked]

    def _shortest(self, start: str | None) -> dict[str | None, Leg]:
        ways: dict[str | None, Leg] = {start: ()}
        todo = [start]
        for place in todo:
            for state in self._next[place]:
                if state not in ways:
                    ways[state] = (*ways[place], state)
                    todo.append(state)
        return ways
