"""Durations, moments and numbers as users give them: converted to the seconds used inside, and checked.

Every check takes the name of the option and, optionally, its place (for example a task). The `ConfigurationError` says
place, name, value and rule: ``task 01… (add): retries=-1: must be a whole number, 0 or more``.
"""

import math
from datetime import datetime, timedelta
from typing import Final

from lifecycle.errors import ConfigurationError

__all__ = [
    "checked_priority", "due_at", "duration", "moment", "number", "positive_duration", "seconds", "timestamp",
    "utc_seconds", "whole_number",
]  # fmt: skip

PRIORITY_LIMIT: Final = 2**31
"""Priorities are stored as signed integers of 32 bits."""


def seconds(value: float | timedelta) -> float:
    """Convert a duration to seconds, without a check."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def timestamp(value: datetime) -> float:
    """Convert a datetime to UTC seconds; a naive datetime means local time, as everywhere in the standard library."""
    return value.timestamp()


def duration(value: object, name: str, where: object = None) -> float:
    """Return the seconds of a duration (seconds or a timedelta, 0 or more)."""
    length = _finite_seconds(value)
    if length >= 0:
        return length
    raise _refusal(value, name, where, "must be seconds or a timedelta, 0 or more")


def positive_duration(value: object, name: str, where: object = None) -> float:
    """Return the seconds of a duration that is longer than 0."""
    length = duration(value, name, where)
    if length > 0:
        return length
    raise _refusal(value, name, where, "must be greater than 0 seconds")


def moment(value: object, name: str, where: object = None) -> float:
    """Return the UTC seconds of a datetime."""
    if not isinstance(value, datetime):
        raise _refusal(value, name, where, "must be a datetime")
    try:
        return timestamp(value)
    except (ValueError, OverflowError) as error:  # a naive datetime at the edge of local time
        raise _refusal(value, name, where, f"cannot be converted to UTC: {error}") from None


def utc_seconds(value: object, name: str, where: object = None) -> float:
    """Return the UTC seconds of a moment that is given as a datetime or as UTC seconds."""
    if isinstance(value, datetime):
        return moment(value, name, where)
    at = math.nan if isinstance(value, timedelta) else _finite_seconds(value)
    if not math.isnan(at):
        return at
    raise _refusal(value, name, where, "must be a datetime or UTC seconds")


def due_at(value: object, now: float, name: str) -> float | None:
    """Return the UTC seconds of a moment that is given as a datetime, or as a duration from `now`; None for None."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return moment(value, name)
    at = now + _finite_seconds(value)
    if math.isfinite(at):
        return at
    raise _refusal(value, name, None, "must be a datetime, or a timedelta or seconds from now")


def number(value: object, name: str, where: object = None, *, at_most: float = math.inf) -> float:
    """Return a finite number from 0 to `at_most` as a float."""
    found = math.nan if isinstance(value, timedelta) else _finite_seconds(value)
    if 0 <= found <= at_most:
        return found
    limits = "0 or more" if at_most == math.inf else f"from 0 to {at_most:g}"
    raise _refusal(value, name, where, f"must be a number, {limits}")


def whole_number(value: object, name: str, where: object = None, *, at_least: int = 0) -> int:
    """Return an int that is `at_least` so large; a bool is no number here."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= at_least:
        return value
    raise _refusal(value, name, where, f"must be a whole number, {at_least} or more")


def checked_priority(value: object, where: object = None) -> int:
    """Return a priority: an int of 32 bits."""
    if isinstance(value, int) and not isinstance(value, bool) and -PRIORITY_LIMIT <= value < PRIORITY_LIMIT:
        return value
    raise _refusal(value, "priority", where, f"must be a whole number from {-PRIORITY_LIMIT} to {PRIORITY_LIMIT - 1}")


def _finite_seconds(value: object) -> float:
    """Convert a duration to seconds; return nan for any other object, and for a number that is not finite."""
    if isinstance(value, bool) or not isinstance(value, timedelta | int | float):
        return math.nan
    try:
        length = seconds(value)
    except OverflowError:  # an int larger than every float
        return math.nan
    return length if math.isfinite(length) else math.nan


def _refusal(value: object, name: str, where: object, rule: str) -> ConfigurationError:
    place = "" if where is None else f"{where}: "
    return ConfigurationError(f"{place}{name}={value!r}: {rule}")
