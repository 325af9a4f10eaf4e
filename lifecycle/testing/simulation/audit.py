"""The audit of a simulated world: everything that was stored, announced and run, compared with the promises."""

import itertools
from collections import Counter

from lifecycle.analysis.checker import Checker, IllegalSequence
from lifecycle.core.table import EXECUTING, LIFECYCLE
from lifecycle.core.task import Task
from lifecycle.execution.signals import SIGNAL_EXECUTING
from lifecycle.storage.base import Storage

__all__ = ["Violation", "WorldAudit"]


class Violation(AssertionError):
    """A simulated world has broken promises: each line is one."""


class WorldAudit:
    """Observes a world's signals and attempts. Faults are found at once where possible, else by `finish`."""

    def __init__(self, storage: Storage) -> None:
        self.faults: list[str] = []
        self.signals: dict[str, list[str]] = {}
        """Task id → the signals that handlers received, in order."""
        self.begun_attempts: dict[str, list[int]] = {}
        """Task id → the numbers of the attempts whose function was called, in order."""
        self.outcome_counts: Counter[tuple[str, bool]] = Counter()
        """(signal of the end of an attempt, whether retries were left) → number of times handlers received that."""
        self.disturbed: set[str] = set()
        """The names of processes that have crashed, frozen or lost a lease: some of their signals are not sent."""
        self._storage = storage
        self._cancel_requested: set[str] = set()  # tasks that may start without a call of their function
        self._canceled_attempts: dict[str, int] = {}  # task id → the attempt whose cancellation was requested
        self._has_retries: dict[str, bool] = {}  # of running tasks
        self._announced: set[tuple[str, int]] = set()
        self._positions: dict[str, int] = {}  # task id → number of its last announced history record

    def add_fault(self, text: str) -> None:
        """Add a broken promise."""
        self.faults.append(text)

    def is_announced(self, task: Task) -> bool:
        """Return whether handlers have received the signal of the task's current state."""
        return self._positions.get(task.id, 0) == task.version

    def note_cancel_request(self, task_id: str, *, accepted: bool) -> None:
        """Note that cancellation of a task was requested; `accepted`: the task runs."""
        self._cancel_requested.add(task_id)
        task = self._storage.get(task_id)
        if accepted and task is not None:
            self._canceled_attempts[task_id] = task.attempt

    def note_signal(self, signal: str, task: Task) -> None:
        """Compare a signal with the task's stored history."""
        records, position = self._storage.history(task.id) or [], self._positions.get(task.id, 0)
        # A disturbed process may have left out signals before this one.
        expected = records[position:] if self.disturbed else records[position : position + 1]
        sender = task.worker, task.attempt  # else a signal of one attempt would pass for one of another attempt
        entered = LIFECYCLE.by_signal(signal)
        matches = (record.state == entered and (record.worker, record.attempt) == sender for record in expected)
        found = next((position + n for n, match in enumerate(matches) if match), None)
        if found is None:
            states = ", ".join(record.state for record in records)
            self.add_fault(f"{task}: {signal} of {sender} was announced as number {position + 1}; stored: {states}")
        self._positions[task.id] = position + 1 if found is None else found + 1
        self._announced.add((task.id, self._positions[task.id]))
        self.signals.setdefault(task.id, []).append(signal)
        if signal == SIGNAL_EXECUTING:
            self._has_retries[task.id] = task.retries > 0
        elif task.id in self._has_retries:
            self.outcome_counts[signal, self._has_retries.pop(task.id)] += 1

    def note_attempt(self, task: Task) -> None:
        """Check that an attempt that begins has not begun before, and was not to be canceled."""
        begun = self.begun_attempts.setdefault(task.id, [])
        if task.attempt in begun:
            self.add_fault(f"{task}: attempt {task.attempt} has begun twice")
        begun.append(task.attempt)
        if task.attempt > self._canceled_attempts.get(task.id, task.attempt):
            stored = self._storage.get(task.id)
            if stored is not None and stored.canceling:
                self.add_fault(f"{task}: cancellation was requested before, but attempt {task.attempt} has begun")
            del self._canceled_attempts[task.id]  # the task came to rest, and was retried by an operator

    def finish(self) -> None:
        """Check all tasks; raise `Violation` with every broken promise.

        Histories are legal and replay to the stored state. Signals are as stored before, in order. No attempt runs
        twice, no task is lost. Every signal of an undisturbed process was received.
        """
        stored = {task.id: task for task in self._storage.tasks(limit=10**9)}
        for task_id in {*self.signals, *self.begun_attempts} - set(stored):
            self.add_fault(f"task {task_id} is lost")
        checker = Checker()
        for task in stored.values():
            self._check_task(task, checker)
        if self.faults:
            raise Violation("\n".join(dict.fromkeys(self.faults)))

    def _check_task(self, task: Task, checker: Checker) -> None:
        records = self._storage.history(task.id) or []
        for number, record in enumerate(records, 1):
            if (task.id, number) not in self._announced and record.worker not in self.disturbed:
                self.add_fault(f"{task}: record {number}, {record.state} by {record.worker}, was not announced")
        history = [record.state for record in records]
        try:
            for state in history:
                checker.feed(LIFECYCLE.state(state).signal, task.id)
        except IllegalSequence as error:
            self.add_fault(str(error))
        count = sum(1 + record.left_out for record in records)
        if (history[-1], count) != (task.state, task.version):
            self.add_fault(f"{task}: its history has {count} records, up to {history[-1]}")
        starts, begun = history.count(EXECUTING.name), len(self.begun_attempts.get(task.id, []))
        # A start that did not count, since the worker does not know the function.
        starts -= sum(after.attempt < before.attempt for before, after in itertools.pairwise(records))
        may_skip_function = self.disturbed or task.id in self._cancel_requested
        if begun > starts or (begun < starts and not may_skip_function):
            self.add_fault(f"{task}: it was started {starts} times, but its function was called {begun} times")
