"""The checks of all values from users: ids, names, moments, durations, numbers and other options.

Each public call checks its arguments here before anything is registered or stored. So every store accepts the same
values, with the same meaning; the limits are those of the narrowest store.

A check takes a value, the name of its option and, optionally, its place (for example a task). It returns the value in
the form used inside, or raises a `ConfigurationError` that says place, name, value and rule:
``task 01… (add): retries=-1: must be a whole number, 0 or more``.
"""

import math
from datetime import datetime, timedelta
from typing import Final, TypeVar
from urllib.parse import unquote

from lifecycle.errors import ConfigurationError

__all__ = [
    "DURATION_LIMIT_SECONDS", "MOMENT_LIMIT", "TEXT_LIMIT", "WHOLE_NUMBER_LIMIT", "checked_priority", "delay_seconds",
    "due_at", "duration", "factor", "flag", "instance", "is_plain_text", "moment", "number", "positive_duration",
    "refusal", "seconds", "split_expiry", "text", "time_limit", "timestamp", "unquoted", "utc_seconds", "whole_number",
]  # fmt: skip

T = TypeVar("T")

TEXT_LIMIT: Final = 500
"""Longest id or name, in characters: at most 2,000 bytes of UTF-8, which each store can index."""
WHOLE_NUMBER_LIMIT: Final = 2**31 - 1
"""Largest whole number: stored as a signed integer of 32 bits."""
PRIORITY_LIMIT: Final = 2**31
"""Priorities are stored as signed integers of 32 bits."""
DURATION_LIMIT_SECONDS: Final = 1e11
"""Longest duration, about 3,000 years; most larger numbers are no seconds."""
MOMENT_LIMIT: Final = 253_402_300_800.0
"""First moment of the year 10000 (UTC seconds): each moment before it, from the year 1 on, fits into a datetime."""
_FIRST_MOMENT: Final = -62_135_596_800.0
_SHOWN_LIMIT: Final = 200
"""Largest number of characters of a value that an error shows."""


# Ids and names -----------------------------------------------------------------------------------------------------


def is_plain_text(value: object) -> bool:
    """Return True if `text` would return `value` itself, decided fast; False says nothing."""
    return type(value) is str and 0 < len(value) <= TEXT_LIMIT and value.isascii() and value.isprintable()


def text(value: object, name: str, where: object = None, *, at_most: int = TEXT_LIMIT) -> str:
    """Return an id or a name: a str of 1 to `at_most` characters, without U+0000 and lone surrogates."""
    if not isinstance(value, str):
        raise refusal(value, name, where, "must be a str")
    value = str.__str__(value)  # no subclass: an enum's member would be stored as its repr
    if not value:
        raise refusal(value, name, where, "must not be empty")
    if len(value) > at_most:
        raise refusal(value, name, where, f"must have at most {at_most} characters")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise refusal(value, name, where, "must not contain U+0000 or a lone surrogate")
    return value


def unquoted(value: str) -> str:
    """Return a part of a URL without its escapes. The error does not repeat the part, which may be a password."""
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise ConfigurationError(
            "the URL of the store contains an escape that is no UTF-8 (a % is written %25)"
        ) from None


# Moments and durations ---------------------------------------------------------------------------------------------


def seconds(value: float | timedelta) -> float:
    """Convert a duration to seconds, without a check."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def timestamp(value: datetime) -> float:
    """Convert a datetime to UTC seconds; a naive datetime means local time, as everywhere in the standard library."""
    return value.timestamp()


def duration(value: object, name: str, where: object = None) -> float:
    """Return the seconds of a duration (seconds or a timedelta, from 0 to `DURATION_LIMIT_SECONDS`)."""
    length = _finite_seconds(value)
    if 0 <= length <= DURATION_LIMIT_SECONDS:
        return length
    if length > 0:
        raise refusal(value, name, where, f"must be at most {DURATION_LIMIT_SECONDS:g} seconds")
    raise refusal(value, name, where, "must be seconds or a timedelta, 0 or more")


def positive_duration(value: object, name: str, where: object = None) -> float:
    """Return the seconds of a duration that is longer than 0."""
    length = duration(value, name, where)
    if length > 0:
        return length
    raise refusal(value, name, where, "must be greater than 0 seconds")


def time_limit(value: object, name: str, where: object = None) -> float | None:
    """Return the seconds of a time limit; ``None`` and 0 mean that there is no limit, and come as ``None``."""
    return None if value is None else duration(value, name, where) or None


def delay_seconds(value: object, name: str, where: object = None) -> float:
    """Return the seconds of a delay. A delay below 0 is 0: the moment has passed, as an ETA in the past has."""
    length = _finite_seconds(value)
    if math.isnan(length):
        raise refusal(value, name, where, "must be seconds or a timedelta")
    return duration(value, name, where) if length > 0 else 0.0


def moment(value: object, name: str, where: object = None) -> float:
    """Return the UTC seconds of a datetime."""
    if not isinstance(value, datetime):
        raise refusal(value, name, where, "must be a datetime")
    try:
        at = timestamp(value)
    except (ValueError, OverflowError) as error:  # a naive datetime at the edge of local time
        raise refusal(value, name, where, f"cannot be converted to UTC: {error}") from None
    return _moment_in_range(at, value, name, where)


def utc_seconds(value: object, name: str, where: object = None) -> float:
    """Return the UTC seconds of a moment that is given as a datetime or as UTC seconds."""
    if isinstance(value, datetime):
        return moment(value, name, where)
    at = math.nan if isinstance(value, timedelta) else _finite_seconds(value)
    if math.isnan(at):
        raise refusal(value, name, where, "must be a datetime or UTC seconds")
    return _moment_in_range(at, value, name, where)


def due_at(value: object, now: float, name: str, where: object = None) -> float | None:
    """Return the UTC seconds of a moment that is given as a datetime, or as a duration from `now`; None for None."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return moment(value, name, where)
    at = now + _finite_seconds(value)
    if math.isnan(at):
        raise refusal(value, name, where, "must be a datetime, or a timedelta or seconds from now")
    return _moment_in_range(at, value, name, where)


def split_expiry(expires: object, name: str, where: object = None) -> tuple[float | None, float | None]:
    """Return an expiry as a moment (UTC seconds), or as seconds from the moment when a task is due; else ``None``."""
    if isinstance(expires, datetime):
        return moment(expires, name, where), None
    if isinstance(expires, timedelta | int | float):
        return None, delay_seconds(expires, name, where)
    raise refusal(expires, name, where, "must be a datetime, or a timedelta or seconds")


# Numbers and others ------------------------------------------------------------------------------------------------


def number(value: object, name: str, where: object = None, *, at_most: float = math.inf) -> float:
    """Return a finite number from 0 to `at_most` as a float."""
    found = math.nan if isinstance(value, timedelta) else _finite_seconds(value)
    if 0 <= found <= at_most:
        return found
    limits = "0 or more" if at_most == math.inf else f"from 0 to {at_most:g}"
    raise refusal(value, name, where, f"must be a number, {limits}")


def factor(value: object, name: str, where: object = None) -> float:
    """Return a factor by which delays grow: 0 (they do not), or 1 or more."""
    found = number(value, name, where)
    if 0 < found < 1:
        raise refusal(value, name, where, "must be 1 or more, or 0 for equal delays: delays never shrink")
    return found


def whole_number(
    value: object, name: str, where: object = None, *, at_least: int = 0, at_most: int = WHOLE_NUMBER_LIMIT
) -> int:
    """Return an int from `at_least` to `at_most`; a bool is no number here."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= at_least:
        if value <= at_most:
            return int(value)  # no subclass: an enum's member would be stored as its repr
        raise refusal(value, name, where, f"must be at most {at_most}")
    raise refusal(value, name, where, f"must be a whole number, {at_least} or more")


def checked_priority(value: object, where: object = None) -> int:
    """Return a priority: an int of 32 bits."""
    if isinstance(value, int) and not isinstance(value, bool) and -PRIORITY_LIMIT <= value < PRIORITY_LIMIT:
        return int(value)
    raise refusal(value, "priority", where, f"must be a whole number from {-PRIORITY_LIMIT} to {PRIORITY_LIMIT - 1}")


def flag(value: object, name: str, where: object = None, hint: str = "") -> bool:
    """Return a bool. `hint`: a sentence about the likely mistake, for the error."""
    if isinstance(value, bool):
        return value
    raise refusal(value, name, where, f"must be True or False{hint and ': '}{hint}")


def instance(value: T, kind: type, name: str, rule: str) -> T:
    """Return a value that is an instance of `kind`. `rule`: a text such as "must be a task", for the error."""
    if isinstance(value, kind):
        return value
    raise refusal(value, name, None, rule)


def refusal(value: object, name: str, where: object, rule: str) -> ConfigurationError:
    """Return the error for a value that does not follow a rule."""
    place = "" if where is None else f"{where}: "
    return ConfigurationError(f"{place}{name}={_shown(value)}: {rule}")


def _shown(value: object) -> str:
    """Return the repr of a value, shortened; any repr may raise, as that of an int of thousands of digits does."""
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001 -- see above
        return f"<{type(value).__qualname__}>"
    return shown if len(shown) <= _SHOWN_LIMIT else f"{shown[:_SHOWN_LIMIT]}…"


def _finite_seconds(value: object) -> float:
    """Convert a duration to seconds; return nan for any other object, and for a number that is not finite."""
    if isinstance(value, bool) or not isinstance(value, timedelta | int | float):
        return math.nan
    try:
        length = seconds(value)
    except OverflowError:  # an int larger than every float
        return math.nan
    return length if math.isfinite(length) else math.nan


def _moment_in_range(at: float, value: object, name: str, where: object) -> float:
    if _FIRST_MOMENT <= at < MOMENT_LIMIT:
        return at
    raise refusal(value, name, where, "must be a moment from the year 1 to the year 9999, in seconds")
