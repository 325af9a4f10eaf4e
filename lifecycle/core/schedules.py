"""Schedules of periodic tasks: when their ticks are, and which ticks are made. Pure: each moment is an argument.

A schedule is a rule with endless ticks (UTC seconds). The arithmetic of cron expressions is that of `cronsim`, which
follows Debian's cron, also where clocks are set forward and back.
"""

import math
import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Final, Protocol

import attrs
from cronsim import CronSim, CronSimError

from lifecycle.errors import ConfigurationError
from lifecycle.validation import flag, positive_duration, refusal, text

__all__ = [
    "LATE_SECONDS", "CallableSchedule", "CronSchedule", "Crontab", "IntervalSchedule", "Misfire", "Schedule", "crontab",
    "due_ticks", "interval", "time_zone",
]  # fmt: skip

LATE_SECONDS: Final = 60.0
"""A tick that is not made within this time was missed: the task's `Misfire` decides about it."""
AHEAD_SECONDS: Final = 3600.0
"""Ticks that were made further in the future than this were made by a wrong clock: the schedule starts anew."""
TICKS_LIMIT: Final = 1000
"""Largest number of ticks that are made at a time; the others follow."""
_MINUTE_SECONDS: Final = 60
_SHORTEST_SECONDS: Final = 1.0
_MINUTES_OF_A_DAY: Final = 24 * 60
_ANY_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
_PIECE: Final = re.compile(r"(?:\*|(?P<first>\d+)(?:-(?P<last>\d+))?)(?:/(?P<step>\d+))?", re.ASCII)


class Misfire(StrEnum):
    """Treatment of ticks that were missed, since no consumer ran."""

    SKIP = "skip"
    """None is made."""
    RUN_ONCE = "run_once"
    """The latest is made, unless another tick is due as well."""
    RUN_ALL = "run_all"
    """All are made, the oldest first."""


class Schedule(Protocol):
    """A rule with ticks."""

    def after(self, moment: float) -> float | None:
        """Return the first tick after a moment; ``None``: none is found."""
        ...

    def before(self, moment: float) -> float | None:
        """Return the last tick at a moment or before; ``None``: none is found."""
        ...


def due_ticks(schedule: Schedule, ticked: float, now: float, misfire: Misfire) -> tuple[list[float], float]:
    """Return the ticks to be made now, the oldest first, and the moment up to which ticks are then made.

    `ticked`: the moment up to which ticks have been made. At most `TICKS_LIMIT` ticks are returned.
    """
    if ticked > now:  # the clock was set back, or another host's is fast: no tick is made twice
        return [], now if ticked > now + AHEAD_SECONDS else ticked
    ticks: list[float] = []
    tick = schedule.after(ticked if misfire is Misfire.RUN_ALL else max(ticked, now - LATE_SECONDS))
    while tick is not None and tick <= now:
        ticks.append(tick)
        if len(ticks) == TICKS_LIMIT:
            return ticks, tick
        tick = schedule.after(tick)
    if not ticks and misfire is Misfire.RUN_ONCE:
        latest = schedule.before(now)
        if latest is not None and latest > ticked:
            ticks.append(latest)
    return ticks, now


# Cron expressions --------------------------------------------------------------------------------------------------


@attrs.frozen
class CronSchedule:
    """The ticks of a cron expression in a time zone."""

    expression: str
    zone: tzinfo = UTC

    def __attrs_post_init__(self) -> None:
        """Refuse an expression that cannot be read, or that has no tick at all."""
        try:
            CronSim(self.expression, _ANY_DAY)
        except CronSimError as error:
            raise refusal(
                self.expression, "cron", None, f"is no cron expression ({error}): five fields, as in '*/5 * * * *', "
                "or six with the seconds first"
            ) from None  # fmt: skip

    def after(self, moment: float) -> float | None:
        """Return the first tick after a moment."""
        return self._first(datetime.fromtimestamp(math.floor(moment), self.zone), reverse=False)

    def before(self, moment: float) -> float | None:
        """Return the last tick at a moment or before."""
        return self._first(datetime.fromtimestamp(math.floor(moment) + 1, self.zone), reverse=True)

    def _first(self, begin: datetime, *, reverse: bool) -> float | None:
        tick = next(CronSim(self.expression, begin, reverse=reverse), None)
        return None if tick is None else tick.timestamp()

    def __str__(self) -> str:
        return self.expression if self.zone is UTC else f"{self.expression} {self.zone}"


def time_zone(value: object) -> tzinfo:
    """Return a time zone, given by name or as a `tzinfo`. Raises `ConfigurationError`."""
    if isinstance(value, tzinfo):
        return value
    name = text(value, "tz")
    if name.upper() == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # what a name without a file raises differs by name
        raise refusal(value, "tz", None, "is no known time zone: give a name such as Europe/Berlin") from None


# Huey's crontab ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Crontab:
    """A rule of `crontab`, before a periodic task gives it a time zone. A call tells whether a moment is a tick."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    fields: str = attrs.field(eq=False)
    """The fields as the program gives them."""
    zone: tzinfo = UTC

    def __call__(self, moment: datetime) -> bool:
        """Return whether a moment's minute is a tick; the moment counts as it is, without a conversion."""
        return moment.minute in self.minutes and moment.hour in self.hours and self._has_date(moment)

    def after(self, moment: float) -> float | None:
        """Return the first tick after a moment."""
        return self._first(datetime.fromtimestamp(math.floor(moment), self.zone), reverse=False)

    def before(self, moment: float) -> float | None:
        """Return the last tick at a moment or before."""
        return self._first(datetime.fromtimestamp(math.floor(moment) + 1, self.zone), reverse=True)

    def _first(self, begin: datetime, *, reverse: bool) -> float | None:
        tick = next(CronSim(self._expression, begin, reverse=reverse), None)
        while tick is not None and not self._has_date(tick):
            # Cron takes a day that fits either field; here a day must fit both. On to the end of the wrong day.
            begin = tick.replace(hour=0, minute=0) if reverse else tick.replace(hour=23, minute=59, second=59)
            tick = next(CronSim(self._expression, begin, reverse=reverse), None)
        return None if tick is None else tick.timestamp()

    def _has_date(self, moment: datetime) -> bool:
        return moment.day in self.days and moment.month in self.months and moment.isoweekday() % 7 in self.weekdays

    @property
    def _expression(self) -> str:
        fields = self.minutes, self.hours, self.days, self.months
        return " ".join([*(_field(values, every) for values, every in zip(fields, _RANGES, strict=False)), "*"])

    def __str__(self) -> str:
        return self.fields if self.zone is UTC else f"{self.fields} {self.zone}"


def crontab(
    minute: str | int = "*",
    hour: str | int = "*",
    day: str | int = "*",
    month: str | int = "*",
    day_of_week: str | int = "*",
    strict: bool = False,
) -> Crontab:
    """Return the rule of a periodic task that runs in each minute that fits all fields, as Huey's `crontab` does.

    A field is ``*``, a number, ``1,2``, ``1-5``, ``*/15`` or ``0-30/10``; a range may go past the end, as 22-4. In
    `day_of_week` 0 and 7 are Sunday. Unlike in a cron expression, a day must fit both `day` and `day_of_week`.

    Raises `ConfigurationError` for a field that cannot be read, and for a date that never comes.

    :param strict: no effect here: a field that cannot be read is never ignored.
    """
    flag(strict, "strict")
    given = {"minute": minute, "hour": hour, "day": day, "month": month, "day_of_week": day_of_week}
    minutes, hours, days, months, weekdays = (
        _values(field, name, every) for (name, field), every in zip(given.items(), _FIELDS, strict=True)
    )
    weekdays = frozenset(number % 7 for number in weekdays)
    rule = Crontab(minutes, hours, days, months, weekdays, " ".join(map(str, given.values())))
    try:
        tick = rule.after(_ANY_DAY.timestamp())
    except CronSimError:
        tick = None
    if tick is None:
        shown = ", ".join(f"{name}={field!r}" for name, field in given.items() if field != "*")
        raise ConfigurationError(f"crontab({shown}): there is no such date, so that the task would never run")
    return rule


_RANGES: Final = (range(60), range(24), range(1, 32), range(1, 13), range(7))
_FIELDS: Final = (*_RANGES[:4], range(8))
"""The numbers that a caller may give: 7 is Sunday, too."""


def _field(values: Collection[int], every: range) -> str:
    return "*" if len(values) == len(every) else ",".join(map(str, sorted(values)))


def _values(field: object, name: str, every: range) -> frozenset[int]:
    """Return the numbers of a field of `crontab`."""
    if isinstance(field, bool) or not isinstance(field, str | int):
        raise refusal(field, name, "crontab", "must be a str or a whole number")
    found: set[int] = set()
    for piece in str(field).split(","):
        match = _PIECE.fullmatch(piece.strip())
        if match is None or match["step"] == "0":
            raise refusal(field, name, "crontab", "must be made of *, 1, 1-5, */15 or 0-30/10, with commas between")
        first, last, step = match["first"], match["last"], int(match["step"] or 1)
        if first is None:
            numbers = [*every]
        else:
            low, high = int(first), int(last or first)
            if low not in every or high not in every:
                raise refusal(field, name, "crontab", f"must have numbers from {every[0]} to {every[-1]}")
            top = every[-1] if every != _FIELDS[-1] else _RANGES[-1][-1]  # past the end, Sunday counts once: as 0
            numbers = [*range(low, high + 1)] if low <= high else [*range(low, top + 1), *range(every[0], high + 1)]
        found.update(numbers[::step])
    return frozenset(found)


# Other rules -------------------------------------------------------------------------------------------------------


@attrs.frozen
class IntervalSchedule:
    """A tick in each interval, counted from the beginning of 1970 (UTC): all hosts agree about the ticks."""

    seconds: float

    def after(self, moment: float) -> float:
        """Return the first tick after a moment."""
        number = math.floor(moment / self.seconds) - 1  # the quotient may be rounded up
        while number * self.seconds <= moment:
            number += 1
        return number * self.seconds

    def before(self, moment: float) -> float:
        """Return the last tick at a moment or before."""
        number = math.floor(moment / self.seconds) + 1
        while number * self.seconds > moment:
            number -= 1
        return number * self.seconds

    def __str__(self) -> str:
        return f"every {self.seconds:g} s"


def interval(every: object) -> IntervalSchedule:
    """Return the schedule of an interval: seconds or a timedelta, 1 second or more. Raises `ConfigurationError`."""
    length = positive_duration(every, "every")
    if length < _SHORTEST_SECONDS:
        raise refusal(every, "every", None, f"must be {_SHORTEST_SECONDS:g} second or more")
    return IntervalSchedule(length)


@attrs.frozen
class CallableSchedule:
    """The minutes for which a function of the user returns True. It is asked about one day at a time."""

    function: Callable[[datetime], object]
    zone: tzinfo = UTC

    def after(self, moment: float) -> float | None:
        """Return the first tick after a moment, within a day."""
        first = math.floor(moment / _MINUTE_SECONDS) + 1
        return self._first(range(first, first + _MINUTES_OF_A_DAY))

    def before(self, moment: float) -> float | None:
        """Return the last tick at a moment or before, within a day."""
        last = math.floor(moment / _MINUTE_SECONDS)
        return self._first(range(last, last - _MINUTES_OF_A_DAY, -1))

    def _first(self, minutes: range) -> float | None:
        moments = (minute * _MINUTE_SECONDS for minute in minutes)
        found = (at for at in moments if self.function(datetime.fromtimestamp(at, self.zone)))
        return next(map(float, found), None)

    def __str__(self) -> str:
        return f"as {getattr(self.function, '__qualname__', self.function)} says"
