"""The kinds of workers there are."""

from collections.abc import Mapping
from typing import Final, Protocol

from lifecycle.consumer.workers.base import WorkerContext, WorkerHandle, WorkerOptions
from lifecycle.consumer.workers.gevent_ import GREENLETS, require
from lifecycle.consumer.workers.thread import ThreadHandle
from lifecycle.errors import ConfigurationError
from lifecycle.queue import TaskQueue
from lifecycle.storage import MemoryStorage

__all__ = ["GREENLET", "TYPES", "WorkerType"]

GREENLET: Final = "greenlet"
METHODS: Final = ("spawn", "fork")
"""How a worker's process begins."""


class WorkerType(Protocol):
    """One kind of workers."""

    renews_all: bool
    """Is it the consumer's whole process that is started again when they have run enough tasks?"""

    def check(self, queue: TaskQueue, terms: WorkerOptions) -> None:
        """Raise `ConfigurationError` if workers of this kind cannot run this queue's tasks."""
        ...

    def hands(self, terms: WorkerOptions) -> int:
        """How many of them it takes."""
        ...

    def hire(self, post: WorkerContext, name: str) -> WorkerHandle:
        """A new one."""
        ...


class _Threads:
    """Any function, as it is."""

    renews_all = True

    def check(self, queue: TaskQueue, terms: WorkerOptions) -> None:
        """Nothing is asked of a queue."""

    def hands(self, terms: WorkerOptions) -> int:
        return terms.workers

    def hire(self, post: WorkerContext, name: str) -> WorkerHandle:
        return ThreadHandle(post, name)


class _Processes:
    """Any function, at the price of a process: a body that computes has a core of its own, and can be killed."""

    renews_all = False

    def check(self, queue: TaskQueue, terms: WorkerOptions) -> None:
        if isinstance(queue.storage, MemoryStorage):
            raise ConfigurationError("worker processes cannot see a queue in memory: take sqlite:///…, or threads")
        if terms.start_method not in METHODS:
            raise ConfigurationError(f"start_method={terms.start_method!r}: there are {', '.join(METHODS)}")
        if terms.start_method != "fork":
            from lifecycle.consumer.workers.process_main import find

            find(queue)

    def hands(self, terms: WorkerOptions) -> int:
        return terms.workers

    def hire(self, post: WorkerContext, name: str) -> WorkerHandle:
        from lifecycle.consumer.workers.process import ProcessHandle

        return ProcessHandle(post, name)


class _Loops:
    """`async` functions, thousands at once; plain ones run in threads beside the loop."""

    renews_all = True

    def check(self, queue: TaskQueue, terms: WorkerOptions) -> None:
        """Nothing is asked of a queue."""

    def hands(self, terms: WorkerOptions) -> int:
        del terms  # it has as many tasks run at once as there were to be workers
        return 1

    def hire(self, post: WorkerContext, name: str) -> WorkerHandle:
        from lifecycle.consumer.workers.asyncio_ import AsyncioHandle

        return AsyncioHandle(post, name)


class _Greenlets(_Threads):
    """Functions that wait for the network, hundreds at once, in a process that gevent has patched."""

    def check(self, queue: TaskQueue, terms: WorkerOptions) -> None:
        del queue, terms
        require()

    def hire(self, post: WorkerContext, name: str) -> WorkerHandle:
        return ThreadHandle(post, name, GREENLETS)


TYPES: Final[Mapping[str, WorkerType]] = {
    "thread": _Threads(),
    "process": _Processes(),
    GREENLET: _Greenlets(),
    "asyncio": _Loops(),
}
"""By name."""
