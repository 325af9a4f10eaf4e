"""Data that Huey's objects share: the declared functions of a queue, and naive datetimes in its zone."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

import attrs

from lifecycle.core.task import Task
from lifecycle.function import TaskFunction
from lifecycle.queue import TaskQueue
from lifecycle.storage.base import RevocationTarget
from lifecycle.validation import moment

__all__ = ["LOCAL", "Declared", "HueyBase"]


class _LocalZone(tzinfo):
    """The time zone of this host, daylight saving time included."""

    def utcoffset(self, dt: datetime | None) -> timedelta:
        """Return the offset from UTC at a local time."""
        local = (datetime.fromtimestamp(0, UTC) if dt is None else dt).replace(tzinfo=None)
        return local.astimezone().utcoffset() or timedelta(0)

    def dst(self, dt: datetime | None) -> timedelta:
        """Return no part of the offset: nobody here needs the part."""
        del dt
        return timedelta(0)

    def tzname(self, dt: datetime | None) -> str:
        """Return the name of the zone."""
        del dt
        return "local"

    def fromutc(self, dt: datetime) -> datetime:
        """Return the local time of a moment in UTC."""
        return dt.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)

    def __str__(self) -> str:
        return "local"


LOCAL: Final = _LocalZone()


@attrs.frozen
class Declared:
    """A declared function."""

    short_name: str
    """Its name as Huey shows it, without the module."""
    call: Callable[..., object]
    takes_task: bool
    """True if the function takes its task as the argument ``task``."""
    settings: Mapping[str, object]
    """Attributes that the decorator gives all tasks of the function."""
    make: Callable[[], Task]
    """Returns a task without arguments."""
    is_tick: Callable[[datetime], object] | None = None
    """The rule of a periodic task: called with a naive datetime in the queue's zone."""


class HueyBase:
    """A queue as tasks and results see it."""

    name: str
    queue: TaskQueue
    """The queue of this library that all calls use."""
    utc: bool
    """True: naive datetimes that a program gets are UTC; False: they are local time."""
    results: bool
    """False: calls return no handle."""
    declared: dict[str, Declared]
    """The declared functions, by full name."""

    @property
    def __lifecycle__(self) -> TaskQueue:
        """The queue, for the command line and for worker processes."""
        return self.queue

    def to_datetime(self, seconds: float | None) -> datetime | None:
        """Return UTC seconds as a naive datetime in the queue's zone."""
        if seconds is None:
            return None
        found = datetime.fromtimestamp(seconds, UTC)
        if found.timestamp() < seconds:  # rounded up: the task is due at the datetime that the program gets
            found += timedelta(microseconds=1)
        return found.astimezone(UTC if self.utc else LOCAL).replace(tzinfo=None)

    def to_seconds(self, value: datetime, name: str) -> float:
        """Return the UTC seconds of a datetime; a naive one is in the queue's zone. Raises `ConfigurationError`.

        `name`: of the option, for the error.
        """
        if isinstance(value, datetime) and value.tzinfo is None and self.utc:
            value = value.replace(tzinfo=UTC)
        return moment(value, name)

    def is_revoked_at(self, function: TaskFunction[..., object], timestamp: datetime) -> bool:
        """Return whether a task of a function that starts at a moment would be revoked."""
        revocation = self.queue.storage.revocation(RevocationTarget(function=True, key=function.name))
        return revocation is not None and revocation.holds(self.moment_of(timestamp))

    def forget(self, name: str) -> bool:
        """Forget a function; return False if it is not known."""
        self.declared.pop(name, None)
        return self.queue.unregister(name)

    def enqueue_all(self, tasks: Iterable[object]) -> None:
        """Enqueue tasks in one transaction."""
        raise NotImplementedError

    def moment_of(self, timestamp: datetime | None) -> float:
        """Return the UTC seconds of a datetime; ``None``: now."""
        return self.queue.engine.clock.now() if timestamp is None else self.to_seconds(timestamp, "timestamp")
