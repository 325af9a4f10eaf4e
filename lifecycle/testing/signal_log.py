"""The signals of a queue, as a test hears them: each held against the table as it comes."""

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
    """``(signal, task id)`` for all that a queue announces from now on in this process, in order; until `close`."""

    def __init__(self, queue: TaskQueue, strike: Callable[[IllegalSequence], object] | None = None) -> None:
        """Tasks that are in the store already go on from where they are; so begin before workers run.

        `strike`: called at the first signal that is not legal, if it comes in this thread, outside a task's body; it
        may raise what is no `Exception`, and so end what runs. What it raises elsewhere would not get to the test.
        """
        super().__init__()
        self.fault: IllegalSequence | None = None
        """The first signal that was not legal: which, of which task, and where in its sequence."""
        self._queue, self._strike, self._thread = queue, strike, threading.get_ident()
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
            and self._strike is not None
            and threading.get_ident() == self._thread
            and current_task.get() is None
        ):
            self._strike(self.fault)

    def of(self, task: Task | Result[object] | str) -> list[str]:
        """The signals of one task, given by itself, its handle or its id."""
        task_id = task if isinstance(task, str) else task.id
        return [signal for signal, of in self if of == task_id]

    def close(self) -> None:
        """Hear no more."""
        self._queue.disconnect_signal(self._note)
