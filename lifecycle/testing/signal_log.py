"""A log of a queue's signals, which compares each signal with the table."""

import threading
from collections.abc import Callable

from lifecycle.analysis.checker import Checker, IllegalSequence
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import Task
from lifecycle.execution.attempt import current_task
from lifecycle.queue import TaskQueue
from lifecycle.result import Result

__all__ = ["SignalLog"]


class SignalLog(list[tuple[str, str]]):
    """A list of ``(signal, task id)`` of all signals of a queue in this process, in order, until `close`."""

    def __init__(self, queue: TaskQueue, on_fault: Callable[[IllegalSequence], object] | None = None) -> None:
        """Begin before workers run: stored tasks are read first, and go on from their current states.

        `on_fault`: called at the first illegal signal, if it is sent in this thread, outside a task's function. It may
        raise a `BaseException` to end the test; raised elsewhere, an exception would not reach the test.
        """
        super().__init__()
        self.fault: IllegalSequence | None = None
        """The first illegal signal: its task, and its position in the task's sequence."""
        self._queue, self._on_fault, self._thread = queue, on_fault, threading.get_ident()
        self._checker, self._mutex = Checker(), threading.Lock()
        for task in queue.tasks(limit=2**31):
            for record in queue.history(task.id):
                self._checker.feed(LIFECYCLE.state(record.state).signal, task.id)
        queue.signal()(self._note)

    def _note(self, signal: str, task: Task, exc: BaseException | None = None) -> None:
        __tracebackhide__ = True
        del exc
        with self._mutex:
            self.append((signal, task.id))
            if self.fault is not None:
                return
            try:
                self._checker.feed(signal, task.id)
            except IllegalSequence as fault:
                self.fault = fault
        if (
            self.fault is not None
            and self._on_fault is not None
            and threading.get_ident() == self._thread
            and current_task.get() is None
        ):
            self._on_fault(self.fault)

    def of(self, task: Task | Result[object] | str) -> list[str]:
        """Return the signals of a task, given as a task, a handle or an id."""
        task_id = task if isinstance(task, str) else task.id
        return [signal for signal, of in self if of == task_id]

    def close(self) -> None:
        """End the recording."""
        self._queue.disconnect_signal(self._note)
