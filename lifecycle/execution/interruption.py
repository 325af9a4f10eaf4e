"""Stopping a task's body from outside: after its timeout, when it is called off, or because its worker has to stop.

An exception is raised in the thread that runs the body, between two of its bytecodes. A body that waits in C
(`time.sleep`, a socket without a timeout) gets it when it comes back to Python, not before.
"""

import ctypes
import functools
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

from lifecycle.clock import monotonic, pause

__all__ = ["THREADS", "InterruptBackend", "Interrupter", "Shield", "keep_time", "shielded"]

P = ParamSpec("P")
R = TypeVar("R")

RELUCTANT: Final = 0.2
"""Seconds that a cancelled coroutine has to notice it."""


class InterruptBackend(ABC):
    """How an exception gets into a body that runs."""

    @abstractmethod
    def here(self) -> object:
        """Where the caller runs."""

    @abstractmethod
    def throw(self, there: object, error: type[BaseException]) -> None:
        """Raise `error` there, soon: at the latest when that pauses, even for no time."""

    def apart(self) -> Callable[[Callable[[], object]], object]:
        """What calls a function, and waits for it, where an event loop can run; always at the same place."""
        return _call

    def check(self) -> None:  # noqa: B027 -- most can use it anywhere
        """Raise `ConfigurationError` where a body, though it runs there, cannot use the queue."""


def _call(function: Callable[[], object]) -> object:
    return function()


class _Threads(InterruptBackend):
    """Between two bytecodes of a thread."""

    def here(self) -> object:
        return ctypes.c_ulong(threading.get_ident())

    def throw(self, there: object, error: type[BaseException]) -> None:
        # Never taken back: CPython 3.11 would go on looking for it at every call, and loop for ever under a tracer.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(there, ctypes.py_object(error))


THREADS: Final[InterruptBackend] = _Threads()
"""Bodies that run in a thread of this process."""


def _strike() -> None:
    """If an exception was raised in this thread and has not struck yet, it does so here."""
    pause(0)  # whoever has let go of the interpreter looks for exceptions when it has it back


class Interrupter:
    """Of one worker: armed while a body runs in its thread, and only then can an exception be thrown into it."""

    def __init__(self, wake: Callable[[], object] = lambda: None, reach: InterruptBackend = THREADS) -> None:
        """`wake`: makes a body that waits in the library look again."""
        self._mutex = threading.Lock()
        self._wake, self._reach = wake, reach
        self._body: object | None = None
        self.run = 0
        """How many bodies have run: tells the one that runs from the next."""
        self._timed = False
        self.thrown: type[BaseException] | None = None
        """What was thrown last into the body that runs."""
        self._raised: type[BaseException] | None = None
        """What was raised last in its thread, and may not have struck yet."""
        self._forced = False
        self._cancel: Callable[[], object] | None = None
        self._interrupted: type[BaseException] | None = None
        self._outer: Interrupter | None = None
        self._depth = 0
        """In how many shields, one in the other, the body is: nothing may strike there."""
        self._deferred: type[BaseException] | None = None
        """What strikes when it has left the last of them."""

    def arm(
        self, timeout: float | None, error: type[BaseException], cancel: Callable[[], object] | None = None
    ) -> None:
        """The body starts now, in this thread; throw `error` after `timeout` seconds, if that is not ``None``.

        `cancel`: what wakes up a body that awaits, instead of an exception in the midst of its event loop.
        """
        with self._mutex:
            if self._interrupted is not None:
                raise self._interrupted
            self.run += 1
            self.thrown = self._raised = self._deferred = None
            self._depth, self._cancel, self._forced = 0, cancel, False
            if _here.guard is not self:
                self._outer, _here.guard = _here.guard, self
            self._body = self._reach.here()
        self._timed = timeout is not None
        if timeout is not None:
            _alarms.set(monotonic() + timeout, self, self.run, error)

    def disarm(self) -> None:
        """The body is over: once this returns, nothing will be raised in the thread any more.

        May itself raise what was thrown; call it again then.
        """
        with self._mutex:
            self._body = self._deferred = None
        if _here.guard is self:
            if self._raised is not None:
                with suppress(self._raised):  # the body was faster
                    _strike()
            _here.guard, self._outer = self._outer, None
        if self._timed:  # spares a lock for tasks without a timeout
            self._timed = False
            _alarms.clear(self)

    def enter(self) -> None:
        """The body enters a shield: what is thrown from now on strikes when it leaves that."""
        depth = self._depth
        try:
            with self._mutex:
                self._depth = depth + 1
            if self._raised is not None:
                _strike()  # else what was thrown just before might come in the midst of what is shielded
        except BaseException:
            self._depth = depth
            raise

    def leave(self) -> None:
        """The body leaves a shield; raises what was thrown meanwhile, if it was the outermost."""
        with self._mutex:
            self._depth -= 1
            if self._depth or self._deferred is None:
                return
            error, self._deferred = self._deferred, None
        raise error

    @property
    def struck(self) -> bool:
        """Was what was thrown last raised in the body's thread?"""
        return self._forced

    def check(self) -> None:
        """See `InterruptBackend.check`."""
        self._reach.check()

    @property
    def awaits(self) -> bool:
        """Is the body a coroutine?"""
        return self._cancel is not None

    def throw(self, error: type[BaseException], run: int | None = None, *, hard: bool = False) -> bool:
        """Raise `error` in the body, if one runs (and, if `run` is given, only in that one).

        `hard`: in its thread, even if the body is a coroutine.
        """
        with self._mutex:
            if self._body is None or (run is not None and run != self.run):
                return False
            self.thrown = error
            self._forced = hard or self._cancel is None
            if self._cancel is not None and not hard:
                self._cancel()
                return True
            self._raised = error
            if not self._depth:
                self._reach.throw(self._body, error)
                return True
            self._deferred = error
        self._wake()
        return True

    def call_off(self, error: type[BaseException], run: int) -> bool:
        """Raise `error` in the body of that run, if it is the one that runs; in a coroutine, in due time, by force."""
        if not self.throw(error, run):
            return False
        if self.awaits:
            # One that computes does not see that it was cancelled: then it is struck as any body is.
            _alarms.set(monotonic() + RELUCTANT, self, run, error, hard=True)
        return True

    def interrupt(self, error: type[BaseException]) -> None:
        """Raise `error` in the body that runs, and in any that is to start."""
        self._interrupted = error
        self.throw(error)


class _Here(threading.local):
    """Of each thread."""

    guard: Interrupter | None = None
    """Of the body that runs in it; the innermost, should a body run another task."""


_here = _Here()


def shielded(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which no exception from outside interrupts: what is thrown meanwhile strikes when it is over.

    For all in the library that a body may call, and that must be done whole or not at all. So handlers that run in it
    are not interrupted either.
    """

    @functools.wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        guard = _here.guard
        if guard is None:
            return function(*args, **kwargs)
        guard.enter()
        try:
            return function(*args, **kwargs)
        finally:
            guard.leave()

    return whole


class Shield:
    """An object whose every method is `shielded`, in threads in which a body runs."""

    def __init__(self, shielded: object) -> None:
        self._shielded = shielded

    def __getattr__(self, name: str) -> object:
        method = getattr(self._shielded, name)
        if _here.guard is None:
            return method
        _here.guard.check()
        return shielded(method)


class _Alarms:
    """One thread that throws what is due; started by the first task that has a timeout."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, as a child after a fork."""
        self._changed = threading.Condition()
        # One of each kind for each guard, and so few: a body that has ended leaves nothing behind.
        self._due: dict[tuple[Interrupter, bool], tuple[float, int, type[BaseException]]] = {}
        self._until = float("inf")
        self._thread: threading.Thread | None = None

    def set(
        self, moment: float, guard: Interrupter, run: int, error: type[BaseException], *, hard: bool = False
    ) -> None:
        with self._changed:
            self._due[guard, hard] = moment, run, error
            if self._thread is None:
                self._start()
            elif moment < self._until:
                self._changed.notify()

    def begin(self) -> None:
        with self._changed:
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._ring, name="lifecycle-timeouts", daemon=True)
        self._thread.start()

    def clear(self, guard: Interrupter) -> None:
        with self._changed:
            for hard in False, True:
                self._due.pop((guard, hard), None)

    def _ring(self) -> None:
        while True:
            with self._changed:
                while True:
                    first = min(self._due, key=lambda one: self._due[one][0], default=None)
                    self._until = self._due[first][0] if first is not None else float("inf")
                    left = self._until - monotonic()
                    if first is not None and left <= 0:
                        break
                    self._changed.wait(left if first is not None else None)
                guard, hard = first
                _, run, error = self._due.pop(first)
            if hard:
                guard.throw(error, run, hard=True)
            else:
                guard.call_off(error, run)


_alarms = _Alarms()
os.register_at_fork(after_in_child=_alarms.forget)


def keep_time() -> None:
    """Have the thread that throws what is due begin here and now, where it makes a difference where that is."""
    _alarms.begin()
