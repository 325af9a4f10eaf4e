"""Content of a diagram of a table: states, rows and, for a recorded task, its route. Independent of formats."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from lifecycle.core.table import Kind, Lifecycle, State, Transition
from lifecycle.core.task import Record, numbered
from lifecycle.diagrams.palette import shade
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
    shades: Mapping[str, str]
    """Name of a state → its shade in `lifecycle.diagrams.palette`."""
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

    @property
    def main_path(self) -> tuple[Edge, ...]:
        """The shortest way of a task that runs to its end: through a running state to a final state."""
        return _shortest(self.edges, Kind.RUNNING) or _shortest(self.edges, None)

    @property
    def bundles(self) -> tuple[tuple[Edge, ...], ...]:
        """The edges in groups, each of which is drawn as one arrow.

        If all states of a kind have a row of the same trigger to the same target, one arrow leaves the box of the kind.
        Edges of the main path, and edges on the route of a task, are drawn by themselves.
        """
        apart = {id(edge) for edge in self.main_path if not self.traced}
        groups: dict[object, list[Edge]] = {}
        for edge in self.edges:
            source, target = edge.row.source, edge.row.target
            alone = source is None or source.kind is target.kind or edge.visits or id(edge) in apart
            key = id(edge) if source is None or alone else (source.kind, edge.trigger, target.name)
            groups.setdefault(key, []).append(edge)
        found: list[tuple[Edge, ...]] = []
        for group in groups.values():
            source, target = group[0].row.source, group[0].row.target
            rows = {(edge.row.source, edge.row.target, edge.trigger) for edge in self.edges}
            whole = source is not None and all(
                (state, target, group[0].trigger) in rows for state in self.of_kind(source.kind)
            )
            found += [tuple(group)] if whole else [(edge,) for edge in group]
        return tuple(found)

    def of_kind(self, kind: Kind) -> tuple[State, ...]:
        """Return the states of a kind."""
        return tuple(state for state in self.states if state.kind is kind)


def _shortest(edges: Iterable[Edge], through: Kind | None) -> tuple[Edge, ...]:
    """Return the shortest way from a new task to a final state, through a state of a kind; empty if there is none.

    Among ways of the same length, the first in the order of the table.
    """
    ways: list[tuple[Edge, ...]] = [()]
    seen: set[tuple[State | None, bool]] = set()
    while ways:
        longer = []
        for way in ways:
            at = way[-1].row.target if way else None
            passed = through is None or any(edge.row.target.kind is through for edge in way)
            if at is not None and at.kind is Kind.FINAL and passed:
                return way
            if (at, passed) not in seen:
                seen.add((at, passed))
                longer += [(*way, edge) for edge in edges if edge.row.source == at]
        ways = longer
    return ()


def column(kind: Kind) -> int:
    """Return the number of a kind's column."""
    return next(number for number, kinds in enumerate(COLUMNS) if kind in kinds)


def graph(table: Lifecycle, title: str) -> Graph:
    """Return the content of a diagram of a whole table."""
    kinds = [f"{kind.value}: {', '.join(states)}" for kind in KINDS if (states := table.of_kind(kind))]
    about = f"{len(table.states)} states and {len(table.transitions)} transitions. {'; '.join(kinds)}."
    return Graph(title, about, table.states, tuple(map(Edge, table.transitions)), _shades(table))


def route(table: Lifecycle, title: str, records: Iterable[Record]) -> Graph:
    """Return the same with the route of one task: its records, numbered, with the seconds since the first record.

    Steps that a long history leaves out are not shown. Raises `ConfigurationError` for a step that is no row of the
    table.
    """
    history = list(records)
    rows = {(row.source and row.source.name, row.target.name): row for row in reversed(table.transitions)}
    visits: dict[Transition, list[str]] = {row: [] for row in table.transitions}
    states = [None, *(record.state for record in history)]
    for (number, record), step in zip(numbered(history), itertools.pairwise(states), strict=True):
        if record.left_out:
            continue
        if step not in rows:
            raise ConfigurationError(f"{title}: from {step[0] or '(new)'} to {step[1]} is no row of the table")
        visits[rows[step]].append(f"{number}: {record.at - history[0].at:+.2f} s")
    way = " → ".join(f"({record.left_out} left out) → " * bool(record.left_out) + record.state for record in history)
    edges = tuple(Edge(row, tuple(times)) for row, times in visits.items())
    return Graph(title, f"The way of one task: {way}.", table.states, edges, _shades(table), traced=True)


def _shades(table: Lifecycle) -> dict[str, str]:
    return {state.name: shade(table, state) for state in table.states}
