"""Moments and durations as users give them, as the seconds that everything inside takes."""

from datetime import datetime, timedelta

from lifecycle.clock import seconds, timestamp
from lifecycle.errors import ConfigurationError

__all__ = ["due_at", "duration"]


def due_at(when: datetime | timedelta | float | None, now: float) -> float | None:
    """UTC seconds of a moment, or of one so many seconds from `now`; ``None`` for ``None``.

    Raises `ConfigurationError` for what is neither, or no finite time.
    """
    if when is None:
        return None
    if isinstance(when, datetime):
        return timestamp(when)
    if isinstance(when, timedelta) or (isinstance(when, int | float) and not isinstance(when, bool)):
        moment = now + seconds(when)
        if moment - moment == 0:  # neither infinite nor nan
            return moment
    raise ConfigurationError(f"{when!r} is no time: give a datetime, a timedelta or seconds from now")


def duration(value: timedelta | float, what: str) -> float:
    """Seconds, 0 or more; raises `ConfigurationError` that names `what` was given."""
    if isinstance(value, timedelta) or (isinstance(value, int | float) and not isinstance(value, bool)):
        length = seconds(value)
        if 0 <= length < float("inf"):
            return length
    raise ConfigurationError(f"{what}={value!r}: it takes seconds (or a timedelta), 0 or more")
