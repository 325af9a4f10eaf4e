"""Workers that are greenlets: threads of a process that gevent has patched."""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from lifecycle.clock import pause
from lifecycle.consumer.workers.base import WorkerOptions
from lifecycle.consumer.workers.thread import ThreadType
from lifecycle.errors import ConfigurationError
from lifecycle.execution.interruption import THREADS, InterruptBackend, start_timer
from lifecycle.queue import TaskQueue

__all__ = ["GREENLETS", "GreenletType", "restart_patched"]


class _Greenlets(InterruptBackend):
    """Raises exceptions in a function that waits, in a greenlet: between two bytecodes nothing reaches it."""

    def __init__(self) -> None:
        self._loop_threads: set[int] = set()

    def here(self) -> object:
        thread = _system_thread()
        return thread if thread in self._loop_threads else _gevent().getcurrent()

    def throw(self, place: object, error: type[BaseException]) -> None:
        if isinstance(place, int):
            THREADS.throw(place, error)
        else:
            _gevent().kill(place, error)  # soon: the greenlet runs when others wait

    def loop_caller(self) -> Callable[[Callable[[], object]], object]:
        # A thread of the system: asyncio has one running loop in each of those, and all greenlets are in one.
        start_timer()  # not in that thread: a function that computes there would keep the timer from running
        pool = import_module("gevent.threadpool").ThreadPool(1)

        def call(function: Callable[[], object]) -> object:
            self._loop_threads.add(_system_thread())
            return function()

        return lambda function: pool.apply(call, (function,))

    def check(self) -> None:
        # gevent's locks belong to the thread of the system in which they were first waited for.
        if _system_thread() in self._loop_threads:
            raise ConfigurationError(
                "an async function cannot use its queue in a greenlet worker: make it a plain one, or take -k asyncio"
            )


GREENLETS: Final[InterruptBackend] = _Greenlets()


class GreenletType(ThreadType):
    """Greenlets run functions that wait for the network, hundreds at once, in a process that gevent has patched."""

    backend = GREENLETS

    def check(self, queue: TaskQueue, options: WorkerOptions) -> None:
        """Raise `ConfigurationError` unless gevent has patched this process before the package was imported."""
        del queue, options
        if find_spec("gevent") is None:
            raise ConfigurationError("greenlets need gevent: pip install 'task-lifecycle[greenlet]'")
        if not _is_patched() or not pause.__module__.startswith("gevent"):
            raise ConfigurationError(
                "greenlets need gevent.monkey.patch_all(), before anything else is imported;"
                " `lifecycle run -k greenlet` does it"
            )


def restart_patched() -> None:
    """Unless gevent has patched this process, replace it by one that gevent patches, with the same command."""
    if find_spec("gevent") is not None and not _is_patched():
        # -P: else the current folder would come first, and a `queue.py` there would replace the standard library's.
        program = [sys.executable, "-P", "-m", "gevent.monkey", "--module", "lifecycle"]
        os.execv(sys.executable, [*program, *sys.argv[1:]])  # noqa: S606


def _is_patched() -> bool:
    patched: bool = import_module("gevent.monkey").is_module_patched("threading")
    return patched


def _system_thread() -> int:
    """Return the number of the system's thread that this greenlet is in."""
    number: int = import_module("gevent.monkey").get_original("_thread", "get_ident")()
    return number


def _gevent() -> Any:
    return import_module("gevent")
