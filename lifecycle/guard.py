"""Stopping a task's body from outside: after its timeout, or because its worker is told to stop.

An exception is raised in the thread that runs the body, between two of its bytecodes. A body that waits in C
(`time.sleep`, a socket without a timeout) gets it when it comes back to Python, not before.
"""

import ctypes
import threading
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from lifecycle.clock import monotonic

__all__ = ["Guard"]


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise `error` in a thread; ``None``: take back one that was not delivered yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)


class Guard:
    """Of one worker: armed while a body runs in its thread, and only then can an exception be thrown into it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._thread: int | None = None
        self._run = 0
        self._thrown = False
        self.thrown: type[BaseException] | None = None
        """What was thrown last into the body that runs."""
        self._cancel: Callable[[], object] | None = None
        self._interrupted: type[BaseException] | None = None

    def arm(
        self, timeout: float | None, error: type[BaseException], cancel: Callable[[], object] | None = None
    ) -> None:
        """The body starts now, in this thread; throw `error` after `timeout` seconds, if that is not ``None``.

        `cancel`: what wakes up a body that awaits, instead of an exception in the midst of its event loop.
        """
        with self._mutex:
            if self._interrupted is not None:
                raise self._interrupted
            self._run += 1
            self._thread = threading.get_ident()
            self._thrown, self.thrown, self._cancel = False, None, cancel
        if timeout is not None:
            _alarms.set(monotonic() + timeout, self, self._run, error)

    def disarm(self) -> None:
        """The body is over: once this returns, nothing will be raised in the thread any more."""
        with self._mutex:
            thread, self._thread = self._thread, None
            if self._thrown and thread is not None:
                _raise_in(thread, None)

    def throw(self, error: type[BaseException], run: int | None = None) -> bool:
        """Raise `error` in the body, if one runs (and, if `run` is given, only in that one)."""
        with self._mutex:
            if self._thread is None or (run is not None and run != self._run):
                return False
            self.thrown = error
            if self._cancel is not None:
                self._cancel()
                return True
            self._thrown = True
            _raise_in(self._thread, error)
            return True

    def interrupt(self, error: type[BaseException]) -> None:
        """Raise `error` in the body that runs, and in any that is to start."""
        self._interrupted = error
        self.throw(error)


class _Alarms:
    """One thread that throws what is due; started by the first task that has a timeout."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Guard, int, type[BaseException]]] = []
        self._order = count()
        self._thread: threading.Thread | None = None

    def set(self, moment: float, guard: Guard, run: int, error: type[BaseException]) -> None:
        with self._changed:
            heappush(self._heap, (moment, next(self._order), guard, run, error))
            if self._thread is None or not self._thread.is_alive():  # a fork leaves the thread behind
                self._thread = threading.Thread(target=self._ring, name="lifecycle-timeouts", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _ring(self) -> None:
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > monotonic():
                    self._changed.wait(self._heap[0][0] - monotonic() if self._heap else None)
                _, _, guard, run, error = heappop(self._heap)
            guard.throw(error, run)


_alarms = _Alarms()
