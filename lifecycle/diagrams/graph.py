"""What a picture of a table shows: its states, its rows, and, of a real life, the way it took. Knows no format."""

import itertools
from collections.abc import Iterable
from typing import Final

import attrs

from lifecycle.core.table import Kind, Lifecycle, State, Transition
from lifecycle.core.task import Record
from lifecycle.errors import ConfigurationError

__all__ = ["COLUMNS", "KINDS", "Edge", "Graph", "column", "graph", "route"]

COLUMNS: Final = ((Kind.WAITING,), (Kind.RUNNING,), (Kind.FINAL, Kind.OUTCOME), (Kind.PASSING,))
"""Which kinds stand where, from left to right: as a life goes, and round again."""
KINDS: Final = tuple(kind for kinds in COLUMNS for kind in kinds)


@attrs.frozen
class Edge:
    """A row of the table, and when a life went that way."""

    row: Transition
    passed: tuple[str, ...] = ()
    """For each time: its number in the order of the life, and the seconds since its beginning."""

    @property
    def trigger(self) -> str:
        """Its trigger."""
        return self.row.trigger

    @property
    def label(self) -> str:
        """The trigger, with its times if there are any."""
        return " ".join([self.trigger, *(f"({time})" for time in self.passed)])


@attrs.frozen
class Graph:
    """A picture's content, in the order of the table."""

    title: str
    about: str
    """One or two sentences, for whoever cannot see it."""
    states: tuple[State, ...]
    edges: tuple[Edge, ...]
    traced: bool = False
    """It shows one life: what is not on its way is dim."""

    @property
    def visited(self) -> frozenset[str]:
        """The names of the states on the way."""
        return frozenset(edge.row.target.name for edge in self.edges if edge.passed)

    def dim(self, what: State | Edge) -> bool:
        """Is that beside the way?"""
        on = what.name in self.visited if isinstance(what, State) else bool(what.passed)
        return self.traced and not on

    def of_kind(self, kind: Kind) -> tuple[State, ...]:
        """The states of a kind."""
        return tuple(state for state in self.states if state.kind is kind)


def column(kind: Kind) -> int:
    """The number of a kind's column."""
    return next(number for number, kinds in enumerate(COLUMNS) if kind in kinds)


def graph(table: Lifecycle, title: str) -> Graph:
    """All of a table."""
    kinds = [f"{kind.value}: {', '.join(states)}" for kind in KINDS if (states := table.of_kind(kind))]
    about = f"{len(table.states)} states and {len(table.transitions)} transitions. {'; '.join(kinds)}."
    return Graph(title, about, table.states, tuple(map(Edge, table.transitions)))


def route(table: Lifecycle, title: str, records: Iterable[Record]) -> Graph:
    """The same, with the way that a life took, from its history: each step numbered, with the seconds since its begin.

    Raises `ConfigurationError` for a step that is no row of the table.
    """
    history = list(records)
    rows = {(row.source and row.source.name, row.target.name): row for row in reversed(table.transitions)}
    passed: dict[Transition, list[str]] = {row: [] for row in table.transitions}
    states = [None, *(record.state for record in history)]
    for number, (record, step) in enumerate(zip(history, itertools.pairwise(states), strict=True), 1):
        if step not in rows:
            raise ConfigurationError(f"{title}: from {step[0] or '(new)'} to {step[1]} is no row of the table")
        passed[rows[step]].append(f"{number}: {record.at - history[0].at:+.2f} s")
    way = " → ".join(record.state for record in history)
    edges = tuple(Edge(row, tuple(times)) for row, times in passed.items())
    return Graph(title, f"The way of one task: {way}.", table.states, edges, traced=True)
