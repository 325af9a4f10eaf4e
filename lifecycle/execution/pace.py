"""The pace of functions: which functions are quick enough that a worker starts several of their tasks at once."""

from typing import Final

__all__ = ["Pace"]

QUICK_SECONDS: Final = 0.0005
"""A function is quick once its recent runs, handlers included, take less."""


class Pace:
    """The pace of the functions that one worker has run."""

    def __init__(self) -> None:
        self.quick: set[str] = set()
        """The names of the quick functions."""
        self._seconds: dict[str, float] = {}

    def note(self, function: str, seconds: float) -> None:
        """Note how long a run took. One slow run makes a function slow; some 70 quick ones make it quick (again)."""
        slowest = self._seconds.get(function, 1.0)
        self._seconds[function] = pace = seconds if seconds > slowest else slowest * 0.9 + seconds * 0.1
        if pace < QUICK_SECONDS:
            self.quick.add(function)
        else:
            self.quick.discard(function)
