"""Checker of recorded signal sequences, of this queue's tasks or of any other system with a table.

The checker uses only the table: the state that a signal enters, and the signals that may follow.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from lifecycle.core.table import LIFECYCLE, Kind, Lifecycle, State
from lifecycle.errors import LifecycleError

__all__ = ["Checker", "IllegalSequence", "check"]

REMEMBERED_TASK_COUNT: Final = 100_000
"""Number of tasks in a final state that a checker remembers, to notice signals after the end of a task."""


class IllegalSequence(LifecycleError, AssertionError):
    """Signal that the table does not allow at its position, or a sequence that ends outside a resting state.

    `.task` (the task's id; ``None`` for a sequence of one task), `.position` (1 is the task's first signal), `.signal`
    (the illegal signal; ``None``: the sequence ended), `.after` (the signal before; ``None``: none) and `.legal` (the
    signals that are legal at this position; may be empty).
    """

    def __init__(
        self, task: str | None, position: int, signal: str | None, after: str | None, legal: tuple[str, ...]
    ) -> None:
        """The arguments become attributes of the same names."""
        subject = f"task {task}: " if task is not None else ""
        where = f"after {after!r}" if after is not None else "as the first"
        what = f"signal {position} is {signal!r} {where}" if signal is not None else f"ends {where}, not at rest"
        instead = f"legal: {', '.join(legal)}" if legal else "nothing may follow, that is final"
        super().__init__(f"{subject}{what}; {instead}")
        self.task, self.position, self.signal, self.after, self.legal = task, position, signal, after, legal

    def __reduce__(self) -> tuple[type["IllegalSequence"], tuple[object, ...]]:
        return type(self), (self.task, self.position, self.signal, self.after, self.legal)


class Checker:
    """Checks a stream of signals of many tasks against a table, signal by signal.

    For each task the checker keeps the state and the number of signals. Tasks in a final state are forgotten after
    100,000 further ones: a later signal for such a task counts as the first signal of a new task. All other tasks stay
    in memory, including tasks in an outcome, which an operator may retry at any time.
    """

    def __init__(self, lifecycle: Lifecycle = LIFECYCLE, *, from_start: bool = True) -> None:
        """`lifecycle`: the table. `from_start`: the first signal of each task must be a signal of its creation.

        With ``from_start=False`` the first signal may also be one that may follow a signal of the creation. That fits
        traces recorded only in consumers, which do not receive the signals of producers.
        """
        self._next: dict[State | None, dict[str, State]] = {
            state: {target.signal: target for target in lifecycle.targets(state)} for state in (None, *lifecycle.states)
        }
        if not from_start:
            for state in lifecycle.targets(None):
                self._next[None] = self._next[state] | self._next[None]
        self._tasks: dict[str | None, tuple[State, int]] = {}
        self._finished: OrderedDict[str | None, tuple[State, int]] = OrderedDict()
        self.count = 0
        """Number of legal signals so far."""
        self.tasks = 0
        """Number of tasks so far."""

    def feed(self, signal: str, task: str | None = None) -> None:
        """Check the next signal of a task. Raises `IllegalSequence`; the task then keeps its state."""
        state, count = self._tasks.get(task) or self._finished.get(task) or (None, 0)
        entered = self._next[state].get(signal)
        if entered is None:
            after = None if state is None else state.signal
            raise IllegalSequence(task, count + 1, signal, after, tuple(self._next[state]))
        self.count += 1
        self.tasks += not count
        if entered.kind is Kind.FINAL:
            self._tasks.pop(task, None)
            self._finished[task] = entered, count + 1
            if len(self._finished) > REMEMBERED_TASK_COUNT:
                self._finished.popitem(last=False)
        else:
            self._tasks[task] = entered, count + 1

    @property
    def under_way(self) -> int:
        """Number of known tasks that are not in a final state."""
        return len(self._tasks)

    def unfinished(self) -> Iterator[IllegalSequence]:
        """Yield an error for each task that is not in a resting state (an outcome or a final state)."""
        for task, (state, count) in self._tasks.items():
            if state.kind not in (Kind.OUTCOME, Kind.FINAL):
                yield IllegalSequence(task, count + 1, None, state.signal, tuple(self._next[state]))


def check(
    signals: Iterable[str | tuple[str, str]],
    lifecycle: Lifecycle = LIFECYCLE,
    *,
    from_start: bool = True,
    complete: bool = False,
) -> int:
    """Check a whole sequence against a table: signals of one task, or ``(task id, signal)`` pairs of many tasks.

    Returns the number of signals; raises `IllegalSequence` at the first illegal signal. `from_start`: see `Checker`.
    `complete`: at the end every task must be in a resting state (an outcome or a final state); otherwise the sequence
    may end anywhere.
    """
    checker = Checker(lifecycle, from_start=from_start)
    for item in signals:
        if isinstance(item, str):
            checker.feed(item)
        else:
            task, signal = item
            checker.feed(signal, task)
    if complete:
        for fault in checker.unfinished():
            raise fault
    return checker.count
