"""Running what was enqueued, in the test's own thread, and a store of the test's own under a program's queue."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from math import inf
from typing import Final, ParamSpec, TypeVar, cast

import attrs

from lifecycle.clock import Clock
from lifecycle.core.table import EXECUTING
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError
from lifecycle.execution.runner import TaskRunner
from lifecycle.execution.stored_result import unpack
from lifecycle.function import TaskFunction
from lifecycle.moments import seconds, timestamp
from lifecycle.queue import TaskQueue
from lifecycle.storage import MemoryStorage
from lifecycle.virtual_clock import VirtualClock

__all__ = ["drain", "perform", "testing_mode"]

P = ParamSpec("P")
R = TypeVar("R")

LIMIT: Final = 10_000


def drain(queue: TaskQueue, until: datetime | timedelta | float | None = None, limit: int = LIMIT) -> list[Task]:
    """Run all that is due, and what that enqueues, in this thread; the tasks in this order, each as it came out.

    A task that is retried is in the list once for each attempt; one that was revoked or has expired is there, too.

    :param until: let that much time pass (seconds or a timedelta; or up to a moment): the queue's `VirtualClock` moves
        on to whatever is due next, be it a retry, and in the end to `until`. ``float("inf")``: until nothing is left.
        ``None``: the clock stands still.
    :param limit: how many tasks may run.

    Raises `AssertionError` once more than `limit` have run: tasks that enqueue one another, or that are retried for
    ever; and `ConfigurationError` if `until` is given and the clock is not virtual.
    """
    __tracebackhide__ = True
    engine = queue.engine
    clock = engine.clock
    end = None if until is None else _end(until, clock.now())
    ran: list[Task] = []
    while True:
        while (task := queue.run_next()) is not None:
            ran.append(task)
            if len(ran) > limit:
                raise AssertionError(
                    f"drain: {limit} tasks have run, and there are more: do they enqueue one another, or are they "
                    f"retried for ever? The last was {task.name}, attempt {task.attempt} of task {task.id}"
                )
        if end is None:
            return ran
        if not isinstance(clock, VirtualClock):
            raise ConfigurationError(f"drain(until=…) moves the queue's clock: give it a VirtualClock, not {clock!r}")
        due = engine.storage.next_due()
        if due is None or not clock.now() < due <= end:  # what is due by now is in another thread's hands
            if clock.now() < end < inf:
                clock.set(end)
            return ran
        clock.set(due)


def _end(until: datetime | timedelta | float, now: float) -> float:
    return timestamp(until) if isinstance(until, datetime) else now + seconds(until)


def perform(fn: TaskFunction[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a task of `fn` here and now, as a worker would run its first attempt, but without a store; what it returned.

    More than ``fn.call_local``: arguments and result go through the queue's serializer, an `async` function is awaited,
    a ``context=True`` function gets its task, hooks are called, and the timeout holds. No signal is sent, and nothing
    is retried.

    Raises what the function raised (`RetryTask`, `CancelExecution` and `TaskTimeout` included), `Unserializable`, and
    `TypeError` if the arguments do not fit.
    """
    engine = fn._engine
    made = fn.s(*args, **kwargs)
    engine.prepare((made,))
    task = engine.attach_serializer(attrs.evolve(made, call=None))  # its arguments are what is read back
    task.state, task.attempt, task.worker = EXECUTING.name, 1, engine.process_name()
    runner = TaskRunner(engine)
    try:
        outcome, error = runner.run(task)
    finally:
        runner.close()
    if error is not None:
        raise error
    return cast(R, engine.serializer.loads(unpack(cast(bytes, outcome.result)).body))


@contextmanager
def testing_mode(queue: TaskQueue, clock: Clock | None = None) -> Iterator[TaskQueue]:  # noqa: PT028 -- no test
    """Within the ``with``, `queue` keeps its tasks in a store of its own, in memory, that is empty at first.

    For a queue that a program has made when it was imported: its functions, signal handlers and hooks stay as they are,
    and its own store is not touched, nor even opened. Holds for all threads and all `async` tasks of the process, not
    for other processes; so for one test at a time in a process. Can be nested.

    :param clock: for that time, say a `VirtualClock`; ``None``: the queue's.

    Afterwards the queue is as it was before, and who still waits for something in memory is told that it is gone
    (`StorageError`, `UnknownTask`). Not to be entered or left while a consumer runs the queue: it would not find what
    it has begun.
    """
    engine = queue.engine
    before = engine.environment
    storage = MemoryStorage()
    engine.replace_environment(attrs.evolve(before, storage=storage, clock=clock or before.clock))
    try:
        yield queue
    finally:
        engine.replace_environment(before)
        storage.close()


testing_mode.__test__ = False  # type: ignore[attr-defined]  # pytest takes its name for a test's
