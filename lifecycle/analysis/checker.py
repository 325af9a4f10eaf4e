"""Is this sequence of signals legal? A checker for recorded signals, of this queue's tasks or any other system's.

It knows nothing but a table: which state a signal enters, and which signals may follow.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from lifecycle.core.table import LIFECYCLE, Kind, Lifecycle
from lifecycle.errors import LifecycleError

__all__ = ["Checker", "IllegalSequence", "check"]

REMEMBERED: Final = 100_000
"""How many finished tasks a checker remembers, so that it notices what comes after a task's end."""


class IllegalSequence(LifecycleError, AssertionError):
    """A signal came that the table does not have there, or the sequence ended where no task may rest.

    `.task` (its id, ``None`` for a sequence of one task), `.position` (1 is the task's first signal), `.signal` (what
    came; ``None``: the end), `.after` (the signal before; ``None`` if there was none) and `.legal` (what might have
    come; empty: nothing).
    """

    def __init__(
        self, task: str | None, position: int, signal: str | None, after: str | None, legal: tuple[str, ...]
    ) -> None:
        """See the class."""
        subject = f"task {task}: " if task is not None else ""
        where = f"after {after!r}" if after is not None else "as the first"
        what = f"signal {position} is {signal!r} {where}" if signal is not None else f"ends {where}, not at rest"
        instead = f"legal: {', '.join(legal)}" if legal else "nothing may follow, that is final"
        super().__init__(f"{subject}{what}; {instead}")
        self.task, self.position, self.signal, self.after, self.legal = task, position, signal, after, legal

    def __reduce__(self) -> tuple[type["IllegalSequence"], tuple[object, ...]]:
        return type(self), (self.task, self.position, self.signal, self.after, self.legal)


class Checker:
    """Holds a stream of signals of many tasks against a table, one by one.

    Of a task it keeps the state and how many signals there were; of tasks that came to a final state only those of the
    last 100,000. So its memory is that of the tasks under way, and of those that rest in an outcome, where an operator
    may take them up again at any time. A signal for a task that ended longer ago is taken for a new task's first.
    """

    def __init__(self, lifecycle: Lifecycle = LIFECYCLE, *, from_start: bool = True) -> None:
        """`lifecycle`: the table. `from_start`: a task's first signal must be that of its creation.

        Without it a task may also be met after its creation, as in a trace that was recorded in a consumer alone, which
        does not hear what producers announce: its first signal may be one that may follow that.
        """
        self._next: dict[str | None, dict[str, str]] = {
            state: {target.signal: target.name for target in lifecycle.targets(state)}
            for state in (None, *lifecycle.states)
        }
        self._final = {state.name for state in lifecycle.of_kind(Kind.FINAL)}
        self._restless = {state.name for state in lifecycle.of_kind(Kind.WAITING, Kind.RUNNING, Kind.PASSING)}
        if not from_start:
            self._next[None] = self._next[lifecycle.initial.name] | self._next[None]
        self._tasks: dict[str | None, tuple[str, int]] = {}
        self._ended: OrderedDict[str | None, tuple[str, int]] = OrderedDict()
        self._lifecycle = lifecycle
        self.count = 0
        """How many signals were legal so far."""
        self.tasks = 0
        """Of how many tasks."""

    def feed(self, signal: str, task: str | None = None) -> None:
        """Take the next signal, of the task of this id. Raises `IllegalSequence`; the task then stays where it was."""
        state, count = self._tasks.get(task) or self._ended.get(task) or (None, 0)
        entered = self._next[state].get(signal)
        if entered is None:
            after = None if state is None else self._lifecycle.state(state).signal
            raise IllegalSequence(task, count + 1, signal, after, tuple(self._next[state]))
        self.count += 1
        self.tasks += not count
        if entered in self._final:
            self._tasks.pop(task, None)
            self._ended[task] = entered, count + 1
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        else:
            self._tasks[task] = entered, count + 1

    @property
    def under_way(self) -> int:
        """How many tasks it has met that are in no final state."""
        return len(self._tasks)

    def unfinished(self) -> Iterator[IllegalSequence]:
        """The tasks that are not at rest: in no outcome and no final state. Each as it would be illegal to leave it."""
        for task, (state, count) in self._tasks.items():
            if state in self._restless:
                yield IllegalSequence(
                    task, count + 1, None, self._lifecycle.state(state).signal, tuple(self._next[state])
                )


def check(
    signals: Iterable[str | tuple[str, str]],
    lifecycle: Lifecycle = LIFECYCLE,
    *,
    from_start: bool = True,
    complete: bool = False,
) -> int:
    """Hold a whole sequence against a table: the signals of one task, or ``(task id, signal)`` pairs of many.

    Returns how many there were; raises `IllegalSequence` at the first that is not legal. `from_start`: see `Checker`.
    `complete`: at the end every task must have come to rest, in an outcome or a final state; without it the sequence
    may break off anywhere.
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
