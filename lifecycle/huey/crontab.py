"""Huey's `crontab`, with its short forms."""

from typing import Final

from lifecycle.core.schedules import Crontab
from lifecycle.core.schedules import crontab as rule

__all__ = ["crontab"]


class _CrontabFunction:
    """Makes rules of periodic tasks: see `lifecycle.crontab`."""

    __call__ = staticmethod(rule)

    @staticmethod
    def hourly(
        hour: str | int = "*", day: str | int = "*", month: str | int = "*", day_of_week: str | int = "*"
    ) -> Crontab:
        """Return the rule of the first minute of each hour."""
        return rule("0", hour, day, month, day_of_week)

    @staticmethod
    def daily(day: str | int = "*", month: str | int = "*", day_of_week: str | int = "*") -> Crontab:
        """Return the rule of the first minute of each day."""
        return rule("0", "0", day, month, day_of_week)


crontab: Final = _CrontabFunction()
