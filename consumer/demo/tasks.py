"""The tasks of the demo, declared as in a user's program. The demo and its consumers import this module.

In a consumer, each event is written to the file descriptor that the demo has opened, as a line of JSON.
"""

import logging
import os
import threading
from signal import SIGTERM
from time import sleep

import msgspec

from lifecycle.clock import monotonic
from lifecycle.consumer.demo.environment import (
    DemoSettings,
    Event,
    RefusalEvent,
    RefusalHandler,
    SignalEvent,
    StartEvent,
)
from lifecycle.core.table import RETRYING, SCHEDULED
from lifecycle.core.task import Task
from lifecycle.errors import CancelExecution, RetryTask
from lifecycle.queue import TaskQueue

settings = DemoSettings.read()
queue = TaskQueue(settings.url, lease=settings.lease)


@queue.task(name="demo.add")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@queue.task(retries=2, retry_delay=settings.delay, context=True, name="demo.flaky_task")
def flaky_task(task: Task | None = None) -> str:
    """Fail at the first attempt; retry after a delay."""
    if task is not None and task.attempt == 1:
        raise ValueError("uh-oh")
    return "OK"


@queue.task(retries=1, context=True, name="demo.retried_at_once")
def retried_at_once(task: Task | None = None) -> str:
    """Fail at the first attempt; retry without a delay."""
    if task is not None and task.attempt == 1:
        raise ValueError("uh-oh")
    return "OK"


@queue.task(context=True, name="demo.raises_retry")
def raises_retry(task: Task | None = None) -> str:
    """Raise `RetryTask` at the first attempt."""
    if task is not None and task.attempt == 1:
        raise RetryTask("not ready yet")
    return "OK"


@queue.task(name="demo.canceled_task")
def canceled_task() -> None:
    """Do nothing: a hook cancels the task."""


@queue.task(name="demo.locked_task")
@queue.lock_task("demo-lock")
def locked_task() -> None:
    """Do nothing, with a lock."""


@queue.task(context=True, name="demo.slow_task")
def slow_task(seconds: float, task: Task | None = None) -> str:
    """Take so many seconds at the first attempt, and none at a later one; return the attempt's number in words."""
    attempt = task.attempt if task is not None else 1
    until = monotonic() + (seconds if attempt == 1 else 0.0)
    while monotonic() < until:
        sleep(0.01)
    return f"from attempt {attempt}"


@queue.task(timeout=0.2, name="demo.endless_task")
def endless_task() -> None:
    """Run until the timeout."""
    while True:
        sleep(0.01)


@queue.pre_execute()
def cancel_before_execution(task: Task) -> None:
    """Cancel `canceled_task`."""
    if task.name == canceled_task.name:
        raise CancelExecution("canceled by a hook")


def describe(task: Task, exc: BaseException | None, now: float) -> str:
    """Return a note for a signal: the error, the time until the task is due, or the retries that are left."""
    if exc is not None:
        return repr(exc)
    if task.state == SCHEDULED and task.eta is not None:
        return f"due in {task.eta - now:.2f} s"
    if task.state == RETRYING and task.retries:
        return f"retries left: {task.retries}"
    return ""


def signal_event(signal: str, task: Task, exc: BaseException | None, consumer: int, now: float) -> SignalEvent:
    """Return the event of a signal that a handler has received in the consumer with this pid."""
    process, _, number = (task.worker or "").partition("/")
    own = process == queue.engine.process_name()
    return SignalEvent(
        task.id, signal, now, consumer, number if own and number else None, task.attempt, describe(task, exc, now)
    )


def end_with_demo(pipe: int) -> None:
    """Stop this consumer when the other end of a pipe is closed: the demo has ended, by `close` or otherwise."""
    os.read(pipe, 1)
    os.kill(os.getpid(), SIGTERM)


def send(event: Event) -> None:
    """Write an event to the demo. One write for each line: the lines of several consumers do not mix."""
    os.write(settings.pipe or 0, msgspec.json.encode(event) + b"\n")


if settings.pipe is not None and settings.end_pipe is not None:  # only in a consumer
    threading.Thread(target=end_with_demo, args=(settings.end_pipe,), name="demo-end", daemon=True).start()
    logging.getLogger("lifecycle.worker").addHandler(
        RefusalHandler(
            lambda task, text: send(RefusalEvent(task.id, queue.engine.clock.now(), os.getpid(), task.attempt, text))
        )
    )

    @queue.on_startup()
    def report_start() -> None:
        """Report that a worker has started."""
        send(StartEvent(os.getpid()))

    @queue.signal()
    def report(signal: str, task: Task, exc: BaseException | None = None) -> None:
        """Report a signal."""
        send(signal_event(signal, task, exc, os.getpid(), queue.engine.clock.now()))
