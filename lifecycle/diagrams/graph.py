"""Content of a diagram of a table: states, rows and, for a recorded task, its route. Independent of formats."""

import itertools
from collections.abc import Iterable
from typing import Final

import attrs

from lifecycle.core.table import Kind, Lifecycle, State, Transition
from lifecycle.core.task import Record
from lifecycle.errors import ConfigurationError

__all__ = ["COLUMNS", "KINDS", "Edge", "Graph", "column", "graph", "route"]

COLUMNS: Final = ((Kind.WAITING,), (Kind.RUNNING,), (Kind.FINAL, Kind.OUTCOME), (Kind.PASSING,))
"""Kinds of states in each column, from left to right."""
KINDS: Final = tuple(kind for kinds in COLUMNS for kind in kinds)


@attrs.frozen
class Edge:
    """Row of the table, with the visits of a recorded task."""

    row: Transition
    visits: tuple[str, ...] = ()
    """For each visit, its number in the task's history and the seconds since the first record."""

    @property
    def trigger(self) -> str:
        """Trigger of the row."""
        return self.row.trigger

    @property
    def label(self) -> str:
        """Trigger, followed by the visits if there are any."""
        return " ".join([self.trigger, *(f"({time})" for time in self.visits)])


@attrs.frozen
class Graph:
    """Content of a diagram, in the order of the table."""

    title: str
    about: str
    """One or two sentences, for readers who cannot see the diagram."""
    states: tuple[State, ...]
    edges: tuple[Edge, ...]
    traced: bool = False
    """True for the route of one task: states and edges beside the route are dim."""

    @property
    def visited(self) -> frozenset[str]:
        """Names of the states on the route."""
        return frozenset(edge.row.target.name for edge in self.edges if edge.visits)

    def is_dim(self, part: State | Edge) -> bool:
        """Return whether a state or an edge lies beside the route."""
        on_route = part.name in self.visited if isinstance(part, State) else bool(part.visits)
        return self.traced and not on_route

    def of_kind(self, kind: Kind) -> tuple[State, ...]:
        """Return the states of a kind."""
        return tuple(state for state in self.states if state.kind is kind)


def column(kind: Kind) -> int:
    """Return the number of a kind's column."""
    return next(number for number, kinds in enumerate(COLUMNS) if kind in kinds)


def graph(table: Lifecycle, title: str) -> Graph:
    """Return the content of a diagram of a whole table."""
    kinds = [f"{kind.value}: {', '.join(states)}" for kind in KINDS if (states := table.of_kind(kind))]
    about = f"{len(table.states)} states and {len(table.transitions)} transitions. {'; '.join(kinds)}."
    return Graph(title, about, table.states, tuple(map(Edge, table.transitions)))


def route(table: Lifecycle, title: str, records: Iterable[Record]) -> Graph:
    """Return the same with the route of one task: its records, numbered, with the seconds since the first record.

    Raises `ConfigurationError` for a step that is no row of the table.
    """
    history = list(records)
    rows = {(row.source and row.source.name, row.target.name): row for row in reversed(table.transitions)}
    visits: dict[Transition, list[str]] = {row: [] for row in table.transitions}
    states = [None, *(record.state for record in history)]
    for number, (record, step) in enumerate(zip(history, itertools.pairwise(states), strict=True), 1):
        if step not in rows:
            raise ConfigurationError(f"{title}: from {step[0] or '(new)'} to {step[1]} is no row of the table")
        visits[rows[step]].append(f"{number}: {record.at - history[0].at:+.2f} s")
    way = " → ".join(record.state for record in history)
    edges = tuple(Edge(row, tuple(times)) for row, times in visits.items())
    return Graph(title, f"The way of one task: {way}.", table.states, edges, traced=True)
