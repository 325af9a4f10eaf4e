"""Stopping a task's body from outside: after its timeout, or because its worker is told to stop.

An exception is raised in the thread that runs the body, between two of its bytecodes. A body that waits in C
(`time.sleep`, a socket without a timeout) gets it when it comes back to Python, not before.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import Final

from lifecycle.clock import monotonic

__all__ = ["Guard"]

RELUCTANT: Final = 0.2
"""Seconds that a cancelled coroutine has to notice it."""


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise `error` in a thread; ``None``: take back one that was not delivered yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)


class Guard:
    """Of one worker: armed while a body runs in its thread, and only then can an exception be thrown into it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._thread: int | None = None
        self._run = 0
        self._thrown = self._timed = False
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
        self._timed = timeout is not None
        if timeout is not None:
            _alarms.set(monotonic() + timeout, self, self._run, error)

    def disarm(self) -> None:
        """The body is over: once this returns, nothing will be raised in the thread any more."""
        with self._mutex:
            thread, self._thread = self._thread, None
            if self._thrown and thread is not None:
                _raise_in(thread, None)
        if self._timed:  # spares a lock for tasks without a timeout
            self._timed = False
            _alarms.clear(self)

    @property
    def struck(self) -> bool:
        """Was an exception raised in the body's thread?"""
        return self._thrown

    @property
    def awaits(self) -> bool:
        """Is the body a coroutine?"""
        return self._cancel is not None

    def throw(self, error: type[BaseException], run: int | None = None, *, hard: bool = False) -> bool:
        """Raise `error` in the body, if one runs (and, if `run` is given, only in that one).

        `hard`: in its thread, even if the body is a coroutine.
        """
        with self._mutex:
            if self._thread is None or (run is not None and run != self._run):
                return False
            self.thrown = error
            if self._cancel is not None and not hard:
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
        # One for each guard, and so few: a body that has ended leaves nothing behind.
        self._due: dict[Guard, tuple[float, int, type[BaseException], bool]] = {}
        self._until = float("inf")
        self._thread: threading.Thread | None = None

    def set(self, moment: float, guard: Guard, run: int, error: type[BaseException], *, hard: bool = False) -> None:
        with self._changed:
            self._due[guard] = moment, run, error, hard
            if self._thread is None or not self._thread.is_alive():  # a fork leaves the thread behind
                self._thread = threading.Thread(target=self._ring, name="lifecycle-timeouts", daemon=True)
                self._thread.start()
            elif moment < self._until:
                self._changed.notify()

    def clear(self, guard: Guard) -> None:
        with self._changed:
            self._due.pop(guard, None)

    def _ring(self) -> None:
        while True:
            with self._changed:
                while True:
                    guard = min(self._due, key=lambda one: self._due[one][0], default=None)
                    self._until = self._due[guard][0] if guard is not None else float("inf")
                    left = self._until - monotonic()
                    if guard is not None and left <= 0:
                        break
                    self._changed.wait(left if guard is not None else None)
                _, run, error, hard = self._due.pop(guard)
            if guard.throw(error, run, hard=hard) and not hard and guard.awaits:
                # A coroutine that computes does not see that it was cancelled: then it is struck as any body is.
                self.set(monotonic() + RELUCTANT, guard, run, error, hard=True)


_alarms = _Alarms()
