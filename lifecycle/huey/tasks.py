"""Tasks as Huey's programs see them: a view of a task of this library."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

import attrs

from lifecycle.clock import monotonic
from lifecycle.core import task as core
from lifecycle.core.nodes import Place
from lifecycle.core.policies import WAITING
from lifecycle.errors import ConfigurationError, TaskTimeout
from lifecycle.huey.base import Declared, HueyBase
from lifecycle.validation import duration, factor, split_expiry

__all__ = ["PeriodicTask", "Task", "inner_task", "view"]


class Task:
    """A task, with Huey's names for its fields. Fields may be changed until the task is enqueued."""

    def __init__(
        self,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        id: str | None = None,  # noqa: A002 -- Huey's name
        *,
        inner: core.Task | None = None,
        huey: HueyBase | None = None,
    ) -> None:
        """Make a task that is no function's, of which only the id is of use; functions make theirs with ``s(…)``."""
        if inner is None:
            inner = core.Task(id or core.new_id(0.0), "", call=(tuple(args or ()), dict(kwargs or {})))
        self.inner = inner
        """The task of this library."""
        self.huey = huey
        self.on_complete: Task | None = None
        """The next step of the pipeline that begins with this task."""
        self.on_error: Task | None = None
        """The task that runs if this one does not complete, with its error."""
        self._deadline: float | None = None

    @property
    def id(self) -> str:
        """The task's id."""
        return self.inner.id

    @property
    def args(self) -> tuple[object, ...]:
        """Positional arguments."""
        return self.inner.args

    @property
    def kwargs(self) -> dict[str, object]:
        """Keyword arguments."""
        return self.inner.kwargs

    @property
    def data(self) -> tuple[tuple[object, ...], dict[str, object]]:
        """Positional and keyword arguments."""
        return self.inner.call

    @property
    def name(self) -> str:
        """The function's name, without its module."""
        declared = self._declared
        return self.inner.name.rpartition(".")[2] if declared is None else declared.short_name

    @property
    def retries(self) -> int:
        """The number of retries left."""
        return self.inner.retries

    @retries.setter
    def retries(self, value: int) -> None:
        self.inner.retries = value

    @property
    def priority(self) -> int | None:
        """The priority; 0 if the program gave none."""
        return self.inner.priority

    @priority.setter
    def priority(self, value: int | None) -> None:
        self.inner.priority = 0 if value is None else value

    @property
    def timeout(self) -> float | None:
        """Seconds that an attempt may take; ``None``: any time."""
        return self.inner.timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        self.inner.timeout = value

    @property
    def eta(self) -> datetime | None:
        """The earliest start, a naive datetime in the queue's zone."""
        return self._to_datetime(self.inner.eta)

    @eta.setter
    def eta(self, value: datetime | None) -> None:
        self.inner.eta = None if value is None else self._owner.to_seconds(value, "eta")

    @property
    def expires(self) -> object:
        """The expiry as the program gave it: seconds, or a moment."""
        after = self.inner.retry.expires_after
        return self._to_datetime(self.inner.expires) if after is None else after

    @expires.setter
    def expires(self, value: datetime | timedelta | float | None) -> None:
        at, after = (None, None) if value is None else split_expiry(value, "expires", self.inner)
        self.inner.expires = at
        self.inner.retry = attrs.evolve(self.inner.retry, expires_after=after)

    @property
    def expires_resolved(self) -> datetime | None:
        """The moment of the expiry, a naive datetime in the queue's zone; ``None`` until the task is enqueued."""
        return self._to_datetime(self.inner.expires)

    @property
    def retry_delay(self) -> float:
        """Seconds before the next retry: with a backoff they grow with each attempt."""
        policy, inner = self.inner.retry, self.inner
        ended = inner.attempt if inner.state in WAITING else max(inner.attempt - 1, 0)
        return policy.delay * policy.backoff**ended if policy.backoff > 1 else policy.delay

    @retry_delay.setter
    def retry_delay(self, value: float | timedelta) -> None:
        self.inner.retry = attrs.evolve(self.inner.retry, delay=duration(value, "retry_delay", self.inner))

    @property
    def retry_backoff(self) -> float:
        """The factor by which delays between retries grow."""
        return self.inner.retry.backoff

    @retry_backoff.setter
    def retry_backoff(self, value: float) -> None:
        self.inner.retry = attrs.evolve(self.inner.retry, backoff=factor(value, "retry_backoff", self.inner))

    # Pipelines -------------------------------------------------------------------------------------------------------

    def then(self, task: object, *args: object, **kwargs: object) -> Self:
        """Let a step follow at the end of this task's pipeline, with the value of the step before; return this task.

        A tuple is passed as further arguments, a dict as keyword arguments, and ``None`` adds nothing.

        :param task: a function, or a task made by ``function.s(…)``; `args` and `kwargs` are arguments of the step.
        """
        last: Task = self
        while last.on_complete is not None:
            last = last.on_complete
        last.on_complete = signature(task, args, kwargs)
        return self

    def error(self, task: object, *args: object, **kwargs: object) -> Self:
        """Let a task run once if this one does not complete, with its `TaskException`; return this task.

        A second call is for the failure of the first such task.
        """
        last: Task = self
        while last.on_error is not None:
            last = last.on_error
        last.on_error = signature(task, args, kwargs)
        return self

    def with_arguments(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Self:
        """Add arguments behind those that the task has, and keyword arguments that it has not; return the task."""
        if args or kwargs:
            own_args, own_kwargs = self.inner.call
            call = (*own_args, *args), {**kwargs, **own_kwargs}
            place = self.inner.place
            self.inner = attrs.evolve(self.inner, call=call, place=place and Place(place.queue, is_partial=True))
        return self

    def copy(self) -> "Task":
        """Return another task for the same call, which has an id of its own; what follows this task is left out."""
        place = self.inner.place
        inner = attrs.evolve(
            self.inner, id=core.new_id(0.0), place=place and Place(place.queue, is_partial=place.is_partial)
        )
        return type(self)(inner=inner, huey=self.huey)

    # Running ---------------------------------------------------------------------------------------------------------

    def execute(self) -> object:
        """Call the function here, with the task's arguments, and return its value."""
        declared = self._declared
        if declared is None:
            raise ConfigurationError(f"{self.inner}: no function is declared here under this name")
        args, kwargs = self.inner.call
        return declared.call(*args, **({**kwargs, "task": self} if declared.takes_task else kwargs))

    def begin_attempt(self) -> None:
        """Let the time of an attempt begin, for `time_remaining`."""
        if self.inner.timeout is not None:
            self._deadline = monotonic() + self.inner.timeout

    @property
    def time_remaining(self) -> float:
        """Seconds that the running attempt has left; infinite without a timeout."""
        return float("inf") if self._deadline is None else max(0.0, self._deadline - monotonic())

    @property
    def is_timed_out(self) -> bool:
        """True if the running attempt has used up its time."""
        return self._deadline is not None and monotonic() >= self._deadline

    def check_timeout(self) -> None:
        """Raise `TaskTimeout` if the attempt has used up its time: the worker does so by itself, too."""
        if self.is_timed_out:
            raise TaskTimeout(f"the attempt ran longer than {self.inner.timeout:g} s")

    # Others ----------------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> object:
        """Return an attribute that the decorator gives its tasks, or a field of the task of this library."""
        if name.startswith("__") or name in ("inner", "huey"):
            raise AttributeError(name)
        declared = self._declared
        if declared is not None and name in declared.settings:
            return declared.settings[name]
        value: object = getattr(self.inner, name)
        return value

    @property
    def _declared(self) -> Declared | None:
        return None if self.huey is None else self.huey.declared.get(self.inner.name)

    @property
    def _owner(self) -> HueyBase:
        if self.huey is None:
            raise ConfigurationError(f"{self.inner} is no function's task: make one with function.s(…)")
        return self.huey

    def _to_datetime(self, seconds: float | None) -> datetime | None:
        return None if seconds is None else self._owner.to_datetime(seconds)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        return (self.inner.id, self.inner.name) == (other.inner.id, other.inner.name)

    def __hash__(self) -> int:
        return hash(self.inner.id)

    def __repr__(self) -> str:
        return f"{self.inner.name}: {self.inner.id}"


class PeriodicTask(Task):
    """A task of a periodic function."""

    def validate_datetime(self, timestamp: datetime) -> bool:
        """Return whether the function is to run in this minute, a naive datetime in the queue's zone."""
        declared = self._declared
        return declared is not None and declared.is_tick is not None and bool(declared.is_tick(timestamp))


def signature(task: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Task:
    """Return a task for a step of a workflow: a function makes one, and a task gets further arguments.

    Raises `ConfigurationError` for any other object.
    """
    if isinstance(task, Task):
        return task.with_arguments(args, kwargs)
    make = getattr(type(task), "s", None)
    if make is None:
        raise ConfigurationError(f"task={task!r}: must be a function with the decorator task(), or a task of one")
    made: Task = make(task, *args, **kwargs)
    return made


def view(huey: HueyBase, inner: core.Task) -> Task:
    """Return the view of a task."""
    declared = huey.declared.get(inner.name)
    kind = Task if declared is None or declared.is_tick is None else PeriodicTask
    return kind(inner=inner, huey=huey)


def inner_task(task: object) -> core.Task:
    """Return the task of this library behind a view. Raises `ConfigurationError` for any other object."""
    if isinstance(task, Task):
        return task.inner
    raise ConfigurationError(f"task={task!r}: is no task: make one with function.s(…)")
