"""Run tasks in the test's own thread, and give a program's queue a store in memory for a test."""

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
from lifecycle.execution.new_tasks import prepare
from lifecycle.execution.runner import TaskRunner
from lifecycle.execution.stored_result import unpack
from lifecycle.function import TaskFunction
from lifecycle.queue import TaskQueue
from lifecycle.storage import MemoryStorage
from lifecycle.validation import delay_seconds, timestamp
from lifecycle.virtual_clock import VirtualClock

__all__ = ["drain", "perform", "testing_mode"]

P = ParamSpec("P")
R = TypeVar("R")

TASK_LIMIT: Final = 10_000


def drain(queue: TaskQueue, until: datetime | timedelta | float | None = None, limit: int = TASK_LIMIT) -> list[Task]:
    """Run all due tasks, and the tasks that they enqueue, in this thread; return them in that order, each as it ended.

    A task that is retried is in the list once for each attempt. Revoked and expired tasks are in the list, too.

    :param until: a duration (seconds or a timedelta) or a time: the queue's `VirtualClock` advances to each due time,
        those of retries included, and at the end to `until`. ``float("inf")``: until no task is left. ``None``: the
        clock stands still.
    :param limit: the largest number of tasks that may run.

    Raises `AssertionError` if more than `limit` tasks run, because tasks enqueue one another or are retried for ever;
    `ConfigurationError` if `until` is given and the clock is not virtual.
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
                    f"drain: {limit} tasks have run, and more are due: they may enqueue one another, or be retried for "
                    f"ever. The last was {task.name}, attempt {task.attempt} of task {task.id}"
                )
        if end is None:
            return ran
        if not isinstance(clock, VirtualClock):
            raise ConfigurationError(f"drain(until=…) needs a queue with a VirtualClock, not {clock!r}")
        due = engine.storage.next_due(engine.unknown.skip_names)
        # Another thread holds the tasks that are due now, or runs one that others wait for.
        if due is None or due == inf or not clock.now() < due <= end:
            if clock.now() < end < inf:
                clock.set(end)
            return ran
        clock.set(due)


def _end(until: datetime | timedelta | float, now: float) -> float:
    __tracebackhide__ = True
    if isinstance(until, datetime):
        return timestamp(until)
    try:
        return inf if until == inf else now + delay_seconds(until, "until")
    except ConfigurationError as refused:
        raise refused.with_traceback(None) from None  # the traceback ends in the line of the test


def perform(fn: TaskFunction[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a task of `fn` now, as the first attempt of a worker, but without a store; return the function's result.

    Does more than ``fn.call_local``: arguments and result pass through the queue's serializer, an `async` function is
    awaited, a ``context=True`` function gets its task, hooks are called, and the timeout applies. No signal is sent,
    and nothing is retried.

    Raises the function's exception (`RetryTask`, `CancelExecution` and `TaskTimeout` included), `Unserializable`, and
    `TypeError` if the arguments do not fit.
    """
    __tracebackhide__ = True
    engine = fn._engine
    new = fn.s(*args, **kwargs)
    prepare((new,), engine.clock.now(), engine.serializer, engine.functions, engine.max_bytes)
    task = engine.attach_serializer(attrs.evolve(new, call=None))  # its arguments are read from the payload
    task.state, task.attempt, task.worker = EXECUTING.name, 1, engine.process_name()
    runner = TaskRunner(engine)
    try:
        outcome, error = runner.run(task)
    finally:
        runner.close()
    if error is not None:
        raise error
    return cast(R, engine.serializer.loads(unpack(cast(bytes, outcome.result)).data))


@contextmanager
def testing_mode(queue: TaskQueue, clock: Clock | None = None) -> Iterator[TaskQueue]:  # noqa: PT028 -- no test
    """Give `queue` an empty store in memory for the duration of the ``with`` block.

    Use it for a queue that a program makes when it is imported. The queue's functions, signal handlers and hooks stay
    as they are; its own store is not touched, not even opened. It applies to all threads and `async` tasks of the
    process, but not to other processes, so run one such test at a time in a process. Blocks can be nested.

    :param clock: the clock in the block, such as a `VirtualClock`; ``None``: the queue's own clock.

    After the block the queue is as before. Calls that still wait for a task in memory raise `StorageError` or
    `UnknownTask`. Do not enter or leave the block while a consumer runs the queue: it would not find its running tasks.
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


testing_mode.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it as a test
