"""Moments and durations as users give them, as the seconds that everything inside takes."""

import math
from datetime import datetime, timedelta
from typing import cast

from lifecycle.clock import seconds, timestamp
from lifecycle.errors import ConfigurationError

__all__ = ["due_at", "duration", "moment"]


def due_at(when: datetime | timedelta | float | None, now: float) -> float | None:
    """UTC seconds of a moment, or of one so many seconds from `now`; ``None`` for ``None``.

    Raises `ConfigurationError` for what is neither, or no finite time.
    """
    if when is None:
        return None
    if isinstance(when, datetime):
        try:
            return timestamp(when)
        except (ValueError, OverflowError) as error:  # naive, at the edge of what has a local time
            raise ConfigurationError(f"{when!r} is no moment here: {error}") from None
    at = now + _seconds(when)
    if math.isfinite(at):
        return at
    raise ConfigurationError(f"{when!r} is no time: give a datetime, a timedelta or seconds from now")


def moment(when: object, what: str) -> float:
    """UTC seconds of a datetime; raises `ConfigurationError` that names `what` was given."""
    if not isinstance(when, datetime):
        raise ConfigurationError(f"{what}={when!r}: it takes a datetime")
    return cast(float, due_at(when, 0.0))


def duration(value: timedelta | float, what: str) -> float:
    """Seconds, 0 or more; raises `ConfigurationError` that names `what` was given."""
    length = _seconds(value)
    if 0 <= length < math.inf:
        return length
    raise ConfigurationError(f"{what}={value!r}: it takes seconds (or a timedelta), 0 or more")


def _seconds(value: object) -> float:
    """Seconds of what may be a duration; nan for what is none."""
    if isinstance(value, bool) or not isinstance(value, timedelta | int | float):
        return math.nan
    try:
        return seconds(value)
    except OverflowError:  # an int beyond every float
        return math.inf
