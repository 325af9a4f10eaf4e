"""The one module that reads the clock. Everything else is told what time it is."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "SystemClock", "monotonic", "pause", "seconds", "timestamp"]

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


def seconds(duration: float | timedelta) -> float:
    """A duration in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def timestamp(moment: datetime) -> float:
    """UTC seconds of `moment`; a naive one means local time, as everywhere in the standard library."""
    return moment.timestamp()
