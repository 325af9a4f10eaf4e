"""Clock that stands still until a test moves it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from lifecycle.validation import seconds, timestamp

__all__ = ["VirtualClock"]


class VirtualClock:
    """`lifecycle.clock.Clock` for tests: ``TaskQueue("memory://", clock=VirtualClock())``.

    A wait for a moment ends when the test moves the clock to that moment. An idle consumer on this clock looks for due
    tasks at each step.
    """

    def __init__(self, start: datetime | float = 1_000_000_000.0) -> None:
        """`start`: UTC seconds, or a datetime."""
        self._now = timestamp(start) if isinstance(start, datetime) else float(start)
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        """Return UTC seconds."""
        return self._now

    def advance(self, by: float | timedelta) -> float:
        """Move the clock by some seconds, back if negative, and return the new time."""
        return self.set(self._now + seconds(by))

    def set(self, to: datetime | float) -> float:
        """Move the clock to a moment and return the new time."""
        self._now = timestamp(to) if isinstance(to, datetime) else float(to)
        for listener in list(self._listeners):
            listener()
        return self._now

    def on_step(self, listener: Callable[[], None]) -> None:
        """Call `listener` at each step of the clock."""
        self._listeners.append(listener)

    def __repr__(self) -> str:
        return f"<VirtualClock at {datetime.fromtimestamp(self._now, UTC).isoformat()}>"
