"""The tasks of the demo, declared as in a user's program. The demo and its consumers import this module.

In a consumer, each signal is written to the file descriptor that the demo has opened, as a line of JSON.
"""

import os
from time import sleep

import msgspec

from lifecycle.clock import monotonic
from lifecycle.consumer.demo.demo import DemoSettings, SignalEvent
from lifecycle.core.task import Task
from lifecycle.errors import CancelExecution, RetryTask
from lifecycle.queue import TaskQueue

settings = DemoSettings.read()
queue = TaskQueue(settings.url, lease=settings.lease)


@queue.task()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@queue.task(retries=2, retry_delay=settings.delay, context=True)
def flaky_task(task: Task | None = None) -> str:
    """Fail at the first attempt; retry after a delay."""
    if task is not None and task.attempt == 1:
        raise ValueError("uh-oh")
    return "OK"


@queue.task(retries=1, context=True)
def retried_at_once(task: Task | None = None) -> str:
    """Fail at the first attempt; retry without a delay."""
    if task is not None and task.attempt == 1:
        raise ValueError("uh-oh")
    return "OK"


@queue.task(context=True)
def raises_retry(task: Task | None = None) -> str:
    """Raise `RetryTask` at the first attempt."""
    if task is not None and task.attempt == 1:
        raise RetryTask("not ready yet")
    return "OK"


@queue.task()
def canceled_task() -> None:
    """Do nothing: a hook cancels the task."""


@queue.task()
@queue.lock_task("demo-lock")
def locked_task() -> None:
    """Do nothing, with a lock."""


@queue.task(context=True)
def slow_task(seconds: float, task: Task | None = None) -> str:
    """Take so many seconds at the first attempt, and none at a later one."""
    until = monotonic() + (seconds if task is not None and task.attempt == 1 else 0.0)
    while monotonic() < until:
        sleep(0.01)
    return "done"


@queue.task(timeout=0.2)
def endless_task() -> None:
    """Run until the timeout."""
    while True:
        sleep(0.01)


@queue.pre_execute()
def cancel_before_execution(task: Task) -> None:
    """Cancel `canceled_task`."""
    if task.name == canceled_task.name:
        raise CancelExecution("canceled by a hook")


if settings.pipe is not None:  # only in a consumer

    @queue.signal()
    def report(signal: str, task: Task, exc: BaseException | None = None) -> None:  # noqa: ARG001
        """Report a signal to the demo. One write for each line: the lines of several consumers do not mix."""
        event = SignalEvent(task.id, signal, queue.engine.clock.now())
        os.write(settings.pipe or 0, msgspec.json.encode(event) + b"\n")
