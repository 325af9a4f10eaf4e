"""A clock that stands still until a test moves it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from lifecycle.moments import seconds, timestamp

__all__ = ["VirtualClock"]


class VirtualClock:
    """A `lifecycle.clock.Clock` for tests: ``TaskQueue("memory://", clock=VirtualClock())``.

    Waits for a moment end when the test moves the clock to it: an idle consumer on this clock looks again at each step.
    """

    def __init__(self, start: datetime | float = 1_000_000_000.0) -> None:
        """`start`: UTC seconds, or a datetime."""
        self._now = timestamp(start) if isinstance(start, datetime) else float(start)
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        """UTC seconds."""
        return self._now

    def advance(self, by: float | timedelta) -> float:
        """Move on by so many seconds (or back, if negative); the new time."""
        return self.set(self._now + seconds(by))

    def set(self, to: datetime | float) -> float:
        """Move to a moment; the new time."""
        self._now = timestamp(to) if isinstance(to, datetime) else float(to)
        for listener in list(self._listeners):
            listener()
        return self._now

    def on_step(self, listener: Callable[[], None]) -> None:
        """See `lifecycle.clock.Clock`."""
        self._listeners.append(listener)

    def __repr__(self) -> str:
        return f"<VirtualClock at {datetime.fromtimestamp(self._now, UTC).isoformat()}>"
