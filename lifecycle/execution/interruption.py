"""Interrupting a running function from outside: after its timeout, when it is canceled, or because its worker stops.

An exception is raised in the thread that runs the function, between two of its bytecodes. A function that waits in C
(`time.sleep`, a socket without a timeout) gets the exception when it comes back to Python, not before.
"""

import ctypes
import functools
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar, cast

from lifecycle.clock import monotonic, pause

__all__ = ["THREADS", "InterruptBackend", "Interrupter", "shield", "shielded", "start_timer"]

P = ParamSpec("P")
R = TypeVar("R")

COROUTINE_GRACE_SECONDS: Final = 0.2
"""How long a cancelled coroutine has to notice the cancellation."""


class InterruptBackend(ABC):
    """Raises exceptions in a running function."""

    @abstractmethod
    def here(self) -> object:
        """Return the place where the caller runs, for `throw`."""

    @abstractmethod
    def throw(self, place: object, error: type[BaseException]) -> None:
        """Raise `error` at a place, soon: at the latest when the code there pauses, even for no time."""

    def loop_caller(self) -> Callable[[Callable[[], object]], object]:
        """Return a function that calls its argument where an event loop can run, always the same place, and waits."""
        return _call

    def check(self) -> None:  # noqa: B027 -- most backends allow it anywhere
        """Raise `ConfigurationError` where a running function cannot use its queue."""


def _call(function: Callable[[], object]) -> object:
    return function()


class _Threads(InterruptBackend):
    """Raises exceptions between two bytecodes of a thread."""

    here = staticmethod(threading.get_ident)

    def throw(self, place: object, error: type[BaseException]) -> None:
        # Never taken back: CPython 3.11 would go on looking for it at every call, and loop for ever under a tracer.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(cast(int, place)), ctypes.py_object(error))


THREADS: Final[InterruptBackend] = _Threads()
"""For functions that run in a thread of this process."""


def _receive() -> None:
    """Receive an exception that was raised in this thread, and has not arrived yet."""
    pause(0)  # a thread that has let go of the interpreter looks for exceptions when it has the interpreter back


class Interrupter:
    """Belongs to one runner: armed while a function runs in its thread; only then can an exception be raised in it."""

    def __init__(self, wake: Callable[[], object] = lambda: None, backend: InterruptBackend = THREADS) -> None:
        """`wake`: makes a function that waits in the library look again."""
        self._mutex = threading.Lock()
        self._wake, self._backend = wake, backend
        self._place: object | None = None
        """Where the function runs; ``None``: disarmed."""
        self.run = 0
        """How many functions have run: tells the one that runs from the next."""
        self._has_timer = False
        self.thrown: type[BaseException] | None = None
        """The last exception that was raised for the running function."""
        self._raised: type[BaseException] | None = None
        """The last exception that was raised in its thread, and may not have arrived yet."""
        self.forced = False
        """True if `thrown` was raised in the function's thread, even for a coroutine."""
        self._cancel: Callable[[], object] | None = None
        self._interrupted: type[BaseException] | None = None
        self._outer: Interrupter | None = None
        self._depth = 0
        """How many shields, one within the other, the function is in: nothing may be raised there."""
        self._deferred: type[BaseException] | None = None
        """The exception to raise when the function has left the last shield."""

    def arm(
        self, timeout: float | None, error: type[BaseException], cancel: Callable[[], object] | None = None
    ) -> None:
        """Announce that a function starts now, in this thread; raise `error` in it after `timeout` seconds.

        `timeout`: ``None`` for never. `cancel`: wakes up a coroutine, instead of an exception within its event loop.
        """
        with self._mutex:
            if self._interrupted is not None:
                raise self._interrupted
            self.run += 1
            self.thrown = self._raised = self._deferred = None
            self._depth, self._cancel, self.forced = 0, cancel, False
            if _active.interrupter is not self:
                self._outer, _active.interrupter = _active.interrupter, self
            self._place = self._backend.here()
        self._has_timer = timeout is not None
        if timeout is not None:
            _timer.set(monotonic() + timeout, self, self.run, error)

    def disarm(self) -> None:
        """Announce that the function is over: once this returns, nothing is raised in the thread any more.

        May itself raise an exception that was on its way; call it again then.
        """
        with self._mutex:
            self._place = self._deferred = None
        if _active.interrupter is self:
            if self._raised is not None:
                with suppress(self._raised):  # the function was faster
                    _receive()
            _active.interrupter, self._outer = self._outer, None
        if self._has_timer:  # spares a lock for tasks without a timeout
            self._has_timer = False
            _timer.clear(self)

    def enter_shield(self) -> None:
        """Defer exceptions from now on, until the function leaves the shield."""
        depth = self._depth
        try:
            with self._mutex:
                self._depth = depth + 1
            if self._raised is not None:
                _receive()  # else an exception raised just before might arrive within the shield
        except BaseException:
            self._depth = depth
            raise

    def leave_shield(self) -> None:
        """Leave a shield; if it was the outermost, raise the exception that was deferred meanwhile."""
        with self._mutex:
            self._depth -= 1
            if self._depth or self._deferred is None:
                return
            error, self._deferred = self._deferred, None
        raise error

    def check(self) -> None:
        """Raise `ConfigurationError` where a running function cannot use its queue."""
        self._backend.check()

    def throw(self, error: type[BaseException], run: int | None = None, *, force: bool = False) -> bool:
        """Raise `error` in the running function; return False if none runs, or not that of `run`.

        `force`: in its thread, even if the function is a coroutine.
        """
        with self._mutex:
            if self._place is None or (run is not None and run != self.run):
                return False
            self.thrown = error
            self.forced = force or self._cancel is None
            if self._cancel is not None and not force:
                self._cancel()
                return True
            self._raised = error
            if not self._depth:
                self._backend.throw(self._place, error)
                return True
            self._deferred = error
        self._wake()
        return True

    def cancel(self, error: type[BaseException], run: int) -> bool:
        """Raise `error` in the function of that run, if it is the one that runs; in a coroutine by force, after grace.

        A coroutine that computes does not notice that it was cancelled.
        """
        if not self.throw(error, run):
            return False
        if self._cancel is not None:
            _timer.set(monotonic() + COROUTINE_GRACE_SECONDS, self, run, error, force=True)
        return True

    def reset_in_child(self) -> "Interrupter | None":
        """Replace the lock, in a forked child; return the interrupter of the function around this one's, if any."""
        self._mutex = threading.Lock()
        return self._outer

    def interrupt(self, error: type[BaseException]) -> None:
        """Raise `error` in the running function, and in any that is to start."""
        self._interrupted = error
        self.throw(error)


class _Active(threading.local):
    """State of each thread."""

    interrupter: Interrupter | None = None
    """That of the function that runs in the thread; the innermost, should a function run another task."""


_active = _Active()


def shielded(function: Callable[P, R]) -> Callable[P, R]:
    """Protect `function` from exceptions from outside: an exception raised meanwhile arrives when the call is over.

    For everything in the library that a task's function may call, and that must happen whole or not at all. Handlers
    that run within such a call are not interrupted either.
    """

    @functools.wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        interrupter = _active.interrupter
        if interrupter is None:
            return function(*args, **kwargs)
        interrupter.enter_shield()
        try:
            return function(*args, **kwargs)
        finally:
            interrupter.leave_shield()

    return whole


def shield(target: object, protocol: type) -> object:
    """Return an object whose methods are those of `target`, each `shielded` in threads in which a function runs.

    `protocol`: the class that lists the methods.
    """
    return _shield_class(protocol)(target)


class _Shield:
    def __init__(self, target: object) -> None:
        self._target = target


@functools.cache
def _shield_class(protocol: type) -> type[_Shield]:
    # Real methods: an attribute that is looked up by `__getattr__` costs a call several times as much.
    names = [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]
    return type("Shield", (_Shield,), {name: _shielded_method(name) for name in names})


def _shielded_method(name: str) -> Callable[..., object]:
    def call(self: _Shield, *args: object, **kwargs: object) -> object:
        method = getattr(self._target, name)
        if _active.interrupter is None:
            return method(*args, **kwargs)
        _active.interrupter.check()
        return shielded(method)(*args, **kwargs)

    return call


class _Timer:
    """One thread that raises exceptions when they are due; started by the first task with a timeout."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew, as a child after a fork."""
        self._changed = threading.Condition()
        # One entry of each kind for each interrupter, and so few: a function that has ended leaves nothing behind.
        self._due: dict[tuple[Interrupter, bool], tuple[float, int, type[BaseException]]] = {}
        self._until = float("inf")
        self._thread: threading.Thread | None = None

    def set(
        self, moment: float, interrupter: Interrupter, run: int, error: type[BaseException], *, force: bool = False
    ) -> None:
        with self._changed:
            self._due[interrupter, force] = moment, run, error
            if self._thread is None:
                self._start()
            elif moment < self._until:
                self._changed.notify()

    def begin(self) -> None:
        with self._changed:
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="lifecycle-timeouts", daemon=True)
        self._thread.start()

    def clear(self, interrupter: Interrupter) -> None:
        with self._changed:
            for force in False, True:
                self._due.pop((interrupter, force), None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while True:
                    first = min(self._due, key=lambda one: self._due[one][0], default=None)
                    self._until = self._due[first][0] if first is not None else float("inf")
                    left = self._until - monotonic()
                    if first is not None and left <= 0:
                        break
                    self._changed.wait(left if first is not None else None)
                interrupter, force = first
                _, run, error = self._due.pop(first)
            if force:
                interrupter.throw(error, run, force=True)
            else:
                interrupter.cancel(error, run)


_timer = _Timer()


def _reset_in_child() -> None:
    """Drop the timer's thread, and locks that threads of the parent may hold: in the child they do not exist."""
    _timer.reset()
    interrupter = _active.interrupter
    while interrupter is not None:
        interrupter = interrupter.reset_in_child()


os.register_at_fork(after_in_child=_reset_in_child)


def start_timer() -> None:
    """Start the timer's thread here and now, where the place of its start makes a difference."""
    _timer.begin()
