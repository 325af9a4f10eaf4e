"""The one module that reads the clock. Everything else is told what time it is."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from lifecycle.errors import LifecycleError

__all__ = ["Clock", "RemoteClock", "SystemClock", "monotonic", "pause"]

monotonic = time.monotonic
"""Seconds that only grow, for measuring how long something took; never stored."""


pause = time.sleep
"""Wait for seconds, and for nothing else: it costs a thread half of what a wait for an event costs."""


class Clock(Protocol):
    """Where a queue gets the time from: the system's, or a virtual one in tests."""

    def now(self) -> float:
        """UTC seconds since 1970. May step backwards, as a host's clock may."""
        ...

    def on_step(self, listener: Callable[[], None]) -> None:
        """Have `listener` called when time jumps, so that whoever waits for a moment can look again."""
        ...


class SystemClock:
    """The host's clock."""

    now = staticmethod(time.time)  # not a method: the hot path saves a call

    def on_step(self, listener: Callable[[], None]) -> None:
        """The host's clock tells nobody when it is set: waits here are short, and look at the clock again."""


class RemoteClock:
    """Another host's clock: one that all who share a store go by, whatever their own clocks say.

    It is asked at the first use, and then now and then by a thread of its own, so that nobody has to wait for it. In
    between it goes on as this host's monotonic clock does. What it says is right to within half of a round trip.
    """

    AGES: Final = 60.0
    """Seconds after which it is asked again."""
    AWAY: Final = 1.0
    """The same, when there was no answer."""
    STEP: Final = 0.5
    """By how many seconds the host's two clocks must have gone apart to ask at once: one of them was set, or stood
    still as the host slept."""
    LOOKS: Final = 3
    """How often it is asked at once: the quickest answer counts."""

    def __init__(
        self,
        ask: Callable[[], float],
        *,
        host: Callable[[], float] = time.time,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        """`ask`: the other host's time (UTC seconds); it may raise a `LifecycleError`.

        `host` and `ticks`: this host's clocks.
        """
        self._ask, self._host, self._ticks = ask, host, ticks
        self._offset: float | None = None
        """What is to be added to `ticks`."""
        self._due = 0.0
        """When to ask again, by `ticks`."""
        self._apart = 0.0
        """How far the host's two clocks were apart then."""
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        """UTC seconds since 1970, of the other host; this one's own as long as there was never an answer."""
        ticks, host = self._ticks(), self._host()
        if self._offset is None or abs(host - ticks - self._apart) > self.STEP:
            if ticks >= self._due or self._offset is not None:
                self._measure()
            if self._offset is None:
                return host
            ticks = self._ticks()
        elif ticks >= self._due:
            self._renew()
        return ticks + self._offset

    def on_step(self, listener: Callable[[], None]) -> None:
        """It tells nobody when it is set: waits here are short, and look at the clock again."""

    def _renew(self) -> None:
        """Ask again, without having anybody wait for it."""
        if self._thread is None or not self._thread.is_alive():  # one of before a fork is not alive in the child
            self._thread = threading.Thread(target=self._measure, name="lifecycle-clock", daemon=True)
            with suppress(RuntimeError):  # the interpreter is ending
                self._thread.start()

    def _measure(self) -> None:
        best = None
        for _ in range(self.LOOKS):
            asked = self._ticks()
            try:
                there = self._ask()
            except LifecycleError:  # whoever needs the store finds out by what it asks of it
                break
            answered = self._ticks()
            if best is None or answered - asked < best[0]:
                best = answered - asked, there - (asked + answered) / 2
        ticks = self._ticks()
        self._due = ticks + (self.AGES if best else self.AWAY)
        self._apart = self._host() - ticks
        if best:
            self._offset = best[1]
