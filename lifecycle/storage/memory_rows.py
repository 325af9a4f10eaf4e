"""The stored tasks of the memory adapter, and an index of them by state. The caller holds the adapter's lock."""

from collections.abc import Callable, Collection, Iterable
from copy import copy
from heapq import heappop, heappush, nlargest
from itertools import chain, islice
from typing import Any, Final, cast

import attrs

from lifecycle.core.policies import AT_REST, Move
from lifecycle.core.step import Report, Step, decided
from lifecycle.core.table import LIFECYCLE, PENDING
from lifecycle.core.task import Task

__all__ = ["MemoryRows", "Row"]

_SORT_LIMIT: Final = 10_000
"""Largest number of rows that a page is sorted from. Among more rows, the newest rows have enough for a page."""


@attrs.define(eq=False)
class Row:
    """A stored task with the fields that only the store has."""

    task: Task
    """The task as last committed."""
    rank: int | None = None
    """Not ``None``: claims consider the task now, higher ranks first."""
    due: float | None = None
    """The task gets its priority as rank at this time (UTC seconds)."""
    ended: float | None = None
    """Time when the task came to rest (UTC seconds)."""
    result: bytes | None = None
    _history: str = ""
    moves: list[Move] = attrs.field(factory=list)
    """The last moves, not written into the history yet: the time as text would cost more than the rest of a move."""

    @property
    def history(self) -> str:
        """The history as text: see `lifecycle.core.task.read_history`."""
        if self.moves:
            self.history = self._history + "".join([move.history for move in self.moves])
        return self._history

    @history.setter
    def history(self, text: str) -> None:
        self._history, self.moves = text, []


class MemoryRows(dict[str, Row]):
    """Rows by the ids of their tasks, the oldest first."""

    def __init__(self, work_changed: Callable[[], object]) -> None:
        """`work_changed`: called when a claim may find a task, or the time of the next one has changed."""
        super().__init__()
        self._work_changed = work_changed
        self._by_state: dict[str | None, dict[str, Row]] = {state.name: {} for state in LIFECYCLE.states}
        # An entry stays in its heap when the row changes. The entry counts only while the row has the same rank or due.
        self.ready: list[tuple[int, int, str]] = []
        """Heap of (-rank, seq, id)."""
        self.later: list[tuple[float, int, str]] = []
        """Heap of (due, seq, id)."""
        self.awaits: dict[str, int] = {}
        """How many ends each task still waits for, by its id, until its verdict."""

    def enter_state(self, row: Row, before: str | None) -> None:
        """Note that a row's task has left the state `before` (``None``: it is new) for its present state."""
        task = row.task
        if before is not None:
            del self._by_state[before][task.id]
        self._by_state[task.state][task.id] = row

    def __delitem__(self, task_id: str) -> None:
        """Delete a row."""
        row = self[task_id]
        super().__delitem__(task_id)
        del self._by_state[row.task.state][task_id]

    def set_rank(self, row: Row, rank: int | None, due: float | None) -> None:
        """Set when claims consider a row's task."""
        row.rank, row.due = rank, due
        seq: Any = row.task.seq
        if rank is not None:
            heappush(self.ready, (-rank, seq, row.task.id))
        elif due is not None:
            heappush(self.later, (due, seq, row.task.id))
        else:
            return
        self._work_changed()

    def first_ready(self) -> Row | None:
        """Return the row that a claim considers first."""
        while self.ready:
            rank, seq, task_id = self.ready[0]
            row = self.get(task_id)
            if row is not None and row.rank == -rank and row.task.seq == seq:
                return row
            heappop(self.ready)
        return None

    def first_scheduled(self) -> Row | None:
        """Return the row that becomes due first."""
        while self.later:
            due, seq, task_id = self.later[0]
            row = self.get(task_id)
            if row is not None and row.due == due and row.task.seq == seq:
                return row
            heappop(self.later)
        return None

    def hear(self, report: Report) -> Row | None:
        """Count a report; return the row of the task that waits for it if the report decides, with its verdict."""
        awaits = self.awaits.get(report.dependent)
        if awaits is None:  # decided before
            return None
        if report.completed and awaits > 1:
            self.awaits[report.dependent] = awaits - 1
            return None
        del self.awaits[report.dependent]
        row = self.get(report.dependent)
        if row is None or row.task.state != PENDING:
            return None
        row.task.step = decided(cast(Step, row.task.step), report)
        return row

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        return {cast(str, state): len(rows) for state, rows in self._by_state.items() if rows}

    def page(
        self, states: Collection[str] | None, limit: int, before: int | None, name: str | None, since: float | None
    ) -> list[Task]:
        """Return copies of tasks, the newest first: see `Storage.tasks`."""
        rows: Iterable[Row] = reversed(self.values())
        if states is not None:
            wanted = [self._by_state.get(state, {}) for state in set(states)]
            count = sum(map(len, wanted))
            if count <= _SORT_LIMIT:
                rows = nlargest(count, chain.from_iterable(one.values() for one in wanted), key=_age)
        found = (
            row.task
            for row in rows
            if (before is None or _age(row) < before)
            and (states is None or row.task.state in states)
            and (name is None or row.task.name == name)
            and (since is None or cast(float, row.task.enqueued_at) >= since)
        )
        return [copy(task) for task in islice(found, limit)]

    def ended_before(self, moment: float, limit: int, states: Collection[str] | None) -> list[str]:
        """Return the ids of tasks that came to rest in these states before a moment, the oldest first."""
        among = AT_REST if states is None else AT_REST.intersection(states)
        rows = chain.from_iterable(self._by_state[state].values() for state in among)
        ended = [(at, row.task.seq, row.task.id) for row in rows if (at := cast(float, row.ended)) < moment]
        return [task_id for _, _, task_id in sorted(ended)[:limit]]

    def find_ids(self, text: str, limit: int) -> list[str]:
        """Return ids that begin or end with a text, the newest first."""
        found = (task_id for task_id in reversed(self) if task_id.startswith(text) or task_id.endswith(text))
        return list(islice(found, limit))


def _age(row: Row) -> int:
    return cast(int, row.task.seq)
