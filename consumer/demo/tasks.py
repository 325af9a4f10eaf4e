"""The tasks of the demo, as a program would declare them: the demo and its consumers each import this module.

What a consumer's handlers hear goes, a line of JSON each, to the descriptor that the demo has opened for it.
"""

import os
from time import sleep

import msgspec

from lifecycle.clock import monotonic
from lifecycle.consumer.demo.demo import Event, Setting
from lifecycle.core.task import Task
from lifecycle.errors import CancelExecution, RetryTask
from lifecycle.queue import TaskQueue

setting = Setting.read()
queue = TaskQueue(setting.url, lease=setting.lease)


@queue.task()
def add(a: int, b: int) -> int:
    """The simplest task there is."""
    return a + b


@queue.task(retries=2, retry_delay=setting.delay, context=True)
def flaky_task(task: Task | None = None) -> str:
    """Fails at the first attempt, and not at the second."""
    if task is not None and task.attempt == 1:
        raise ValueError("uh-oh")
    return "OK"


@queue.task(retries=1, context=True)
def hasty_task(task: Task | None = None) -> str:
    """The same, without a delay before the retry."""
    if task is not None and task.attempt == 1:
        raise ValueError("uh-oh")
    return "OK"


@queue.task(context=True)
def polite_task(task: Task | None = None) -> str:
    """Asks for another attempt itself."""
    if task is not None and task.attempt == 1:
        raise RetryTask("not ready yet")
    return "OK"


@queue.task()
def unwanted() -> None:
    """Is called off by a hook."""


@queue.task()
@queue.lock_task("demo-lock")
def locked_task() -> None:
    """Needs a lock."""


@queue.task(context=True)
def slow_task(seconds: float, task: Task | None = None) -> str:
    """Takes its time at the first attempt, and none at a later one."""
    until = monotonic() + (seconds if task is not None and task.attempt == 1 else 0.0)
    while monotonic() < until:
        sleep(0.01)
    return "done"


@queue.task(timeout=0.2)
def endless_task() -> None:
    """Never comes to an end by itself."""
    while True:
        sleep(0.01)


@queue.pre_execute()
def call_off(task: Task) -> None:
    """Cancels what nobody wants."""
    if task.name == unwanted.name:
        raise CancelExecution("nobody wants it")


if setting.pipe is not None:  # in a consumer; the demo itself has nothing to report

    @queue.signal()
    def report(signal: str, task: Task, exc: BaseException | None = None) -> None:  # noqa: ARG001
        """Tell the demo. A line is written at once, so those of several consumers do not mix."""
        event = Event(task.id, signal, queue.engine.clock.now())
        os.write(setting.pipe or 0, msgspec.json.encode(event) + b"\n")
