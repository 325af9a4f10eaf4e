"""An audit of periodic tasks: the ticks that all processes of a world have made, as the calls of its store show."""

from collections.abc import Callable, Sequence
from typing import Any

from lifecycle.storage.base import Storage, Tick

__all__ = ["TickAudit"]


class TickAudit:
    """Checks that the ticks that a store accepts follow one another without a gap, so that each is made once."""

    def __init__(self, add_fault: Callable[[str], object]) -> None:
        """`add_fault`: called with the text of each fault."""
        self._add_fault = add_fault
        self.made: dict[str, list[tuple[Tick, list[str]]]] = {}
        """Name of a periodic task → the accepted ticks, and the ids of the tasks of each, in order."""

    def note(self, call: str, arguments: Sequence[Any], answer: Any) -> None:
        """Note a call of the store and its answer."""
        if call != Storage.tick.__name__ or answer is None:
            return
        tick: Tick = arguments[0]
        made = self.made.setdefault(tick.name, [])
        latest = made[-1][0].until if made else None
        if tick.before != latest:
            self._add_fault(f"{tick} was accepted, but ticks until {latest} have been made")
        made.append((tick, [task.id for task in arguments[1]]))
