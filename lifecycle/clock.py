"""Clocks. No other module reads the time; all of them take it from here or as an argument."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from lifecycle.errors import LifecycleError

__all__ = ["Clock", "RemoteClock", "SystemClock", "monotonic", "pause"]

monotonic: Callable[[], float] = partial(time.monotonic)
"""Return seconds that never decrease, to measure durations with; never stored.

No alias of `time.monotonic`: libraries that freeze the time for tests replace each alias, and waits would never end."""

pause = time.sleep
"""Sleep for some seconds; half as expensive for a thread as a wait for an event."""


class Clock(Protocol):
    """Source of a queue's time: the system's clock, a store's clock, or a virtual clock in tests."""

    def now(self) -> float:
        """Return UTC seconds since 1970; they may step backwards, as the clock of a host may."""
        ...

    def on_step(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the time jumps, so that waits for a moment can be renewed."""
        ...


class SystemClock:
    """Clock of this host."""

    now = staticmethod(time.time)  # no method of our own: saves a call on the hot path

    def on_step(self, listener: Callable[[], None]) -> None:
        """Do nothing: a host does not report steps of its clock. Waits on this clock are short instead."""


class RemoteClock:
    """Clock of the host that the store runs on, shared by all users of the store.

    The remote host is asked at the first use, and afterwards from time to time by a background thread, so that no
    caller waits. In between, the time advances with this host's monotonic clock. The error is at most half of a round
    trip.
    """

    REFRESH_SECONDS: Final = 60.0
    """Time after which the remote host is asked again."""
    RETRY_SECONDS: Final = 1.0
    """Time after which the remote host is asked again if it did not answer."""
    STEP_SECONDS: Final = 0.5
    """Difference between this host's two clocks that makes `now` ask at once: one clock was set, or the host slept."""
    SAMPLE_COUNT: Final = 3
    """Number of questions in one measurement; the fastest answer counts."""

    def __init__(
        self,
        ask: Callable[[], float],
        *,
        host: Callable[[], float] = time.time,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        """`ask` returns the remote host's time (UTC seconds) or raises a `LifecycleError`.

        `host` and `ticks`: this host's system clock and monotonic clock.
        """
        self._ask, self._host, self._ticks = ask, host, ticks
        self._offset: float | None = None
        """Remote time minus `ticks`; None until the first answer."""
        self._refresh_at = 0.0
        """Time of the next measurement, in `ticks`."""
        self._host_offset = 0.0
        """`host` minus `ticks` at the last measurement."""
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        """Return UTC seconds of the remote host; of this host until the first answer."""
        ticks, host = self._ticks(), self._host()
        if self._offset is None or abs(host - ticks - self._host_offset) > self.STEP_SECONDS:
            if ticks >= self._refresh_at or self._offset is not None:
                self._measure()
            if self._offset is None:
                return host
            ticks = self._ticks()
        elif ticks >= self._refresh_at:
            self._measure_in_background()
        return ticks + self._offset

    def on_step(self, listener: Callable[[], None]) -> None:
        """Do nothing: a remote host does not report steps of its clock. Waits on this clock are short instead."""

    def _measure_in_background(self) -> None:
        """Start a measurement in a thread, unless one is running."""
        if self._thread is None or not self._thread.is_alive():  # after a fork, the parent's thread is not alive
            self._thread = threading.Thread(target=self._measure, name="lifecycle-clock", daemon=True)
            with suppress(RuntimeError):  # the interpreter is ending
                self._thread.start()

    def _measure(self) -> None:
        """Ask several times and take the offset from the fastest answer."""
        best = None
        for _ in range(self.SAMPLE_COUNT):
            asked = self._ticks()
            try:
                there = self._ask()
            except LifecycleError:  # a store that is down shows in the operations themselves
                break
            answered = self._ticks()
            if best is None or answered - asked < best[0]:
                best = answered - asked, there - (asked + answered) / 2
        ticks = self._ticks()
        self._refresh_at = ticks + (self.REFRESH_SECONDS if best else self.RETRY_SECONDS)
        self._host_offset = self._host() - ticks
        if best:
            self._offset = best[1]
