"""Workers that are greenlets: the threads of a process that gevent has patched."""

import ctypes
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from lifecycle.clock import pause
from lifecycle.errors import ConfigurationError
from lifecycle.execution.interruption import THREADS, InterruptBackend, keep_time

__all__ = ["GREENLETS", "again", "require"]


class _Greenlets(InterruptBackend):
    """Exceptions for a body that waits, in a greenlet: between two bytecodes nothing reaches it."""

    def __init__(self) -> None:
        self._apart: set[int] = set()

    def here(self) -> object:
        thread = _thread()
        return ctypes.c_ulong(thread) if thread in self._apart else _gevent().getcurrent()

    def throw(self, there: object, error: type[BaseException]) -> None:
        if isinstance(there, ctypes.c_ulong):
            THREADS.throw(there, error)
        else:
            _gevent().kill(there, error)  # soon: it waits for nobody

    def apart(self) -> Callable[[Callable[[], object]], object]:
        # A thread of the system's: asyncio has one running loop for each of those, and all greenlets are in one.
        keep_time()  # not in that one: a body that computes would keep it from throwing anything
        pool = import_module("gevent.threadpool").ThreadPool(1)

        def call(function: Callable[[], object]) -> object:
            self._apart.add(_thread())
            return function()

        return lambda function: pool.apply(call, (function,))

    def check(self) -> None:
        # gevent's locks belong to the thread of the system's in which they were first waited for.
        if _thread() in self._apart:
            raise ConfigurationError(
                "an async function cannot use its queue in a greenlet worker: make it a plain one, or take -k asyncio"
            )


GREENLETS: Final[InterruptBackend] = _Greenlets()


def require() -> None:
    """Raise `ConfigurationError` unless threads are greenlets here, and were when this package was imported."""
    if find_spec("gevent") is None:
        raise ConfigurationError("greenlets need gevent: pip install 'task-lifecycle[greenlet]'")
    if not _patched() or not pause.__module__.startswith("gevent"):
        raise ConfigurationError(
            "greenlets need gevent.monkey.patch_all(), before anything else is imported; `lifecycle run -k greenlet`"
            " does it"
        )


def again() -> None:
    """Unless gevent has patched this process, run the same command in one that it has: does not return then."""
    if find_spec("gevent") is not None and not _patched():
        # -P: else the current folder would come first, and a `queue.py` there would replace the standard library's.
        program = [sys.executable, "-P", "-m", "gevent.monkey", "--module", "lifecycle"]
        os.execv(sys.executable, [*program, *sys.argv[1:]])  # noqa: S606


def _patched() -> bool:
    patched: bool = import_module("gevent.monkey").is_module_patched("threading")
    return patched


def _thread() -> int:
    """The thread of the system's that this greenlet is in."""
    number: int = import_module("gevent.monkey").get_original("_thread", "get_ident")()
    return number


def _gevent() -> Any:
    return import_module("gevent")
