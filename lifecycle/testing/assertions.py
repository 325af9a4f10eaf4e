"""Assertions about enqueued tasks, for any test runner and any store."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from inspect import Parameter
from typing import Final, cast

from lifecycle.clock import monotonic
from lifecycle.core.table import LIFECYCLE, RETRYING, Kind
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError, Undecodable, Unserializable
from lifecycle.function import TaskFunction
from lifecycle.queue import TaskQueue
from lifecycle.storage.base import Channel
from lifecycle.validation import duration
from lifecycle.virtual_clock import VirtualClock

__all__ = ["assert_enqueued", "refute_enqueued"]

PAGE_SIZE: Final = 500
"""Tasks that one call of the store reads."""
SHOWN_TASK_LIMIT: Final = 20
"""Tasks that a message lists."""
SLACK_SECONDS: Final = 1.0
"""Difference of two times that counts as none: time passes between the call and its storage."""
VIRTUAL_SLACK_SECONDS: Final = 0.001
"""The same on a clock that stands still meanwhile: a sum of two numbers is not exact."""


def assert_enqueued(
    fn: TaskFunction[..., object],
    *args: object,
    scheduled_in: float | timedelta | None = None,
    timeout: float = 0.0,
    queue: TaskQueue | None = None,
    **kwargs: object,
) -> Task:
    """Return the newest task of `fn` with these arguments, in any state. Arguments that are not given may be any.

    ``assert_enqueued(send, to="ann@example.org")`` finds each task with that `to`; ``assert_enqueued(send)`` finds each
    task of `send`. The form of the call does not matter: ``add(1, b=2)`` is ``add(1, 2)``. `unittest.mock.ANY` equals
    any value; ``...`` as the only argument means any arguments. Pass parameters of `fn` that are called `scheduled_in`,
    `timeout` or `queue` by position.

    :param scheduled_in: seconds, or a timedelta, from the call to the time at which the task is due; for a retry, from
        the end of the attempt before. Only a task that waits is found. On a `VirtualClock` the time is compared to the
        millisecond, else to the second.
    :param timeout: seconds to wait for such a task; 0: do not wait.
    :param queue: the queue to search, if not the function's own.

    Raises `AssertionError`, which lists the function's tasks instead, and `TypeError` if the arguments do not fit.
    """
    __tracebackhide__ = True
    search = _CallSearch(fn, args, kwargs, queue, scheduled_in)
    task = search.wait_for_match(timeout)
    if task is None:
        raise AssertionError(search.missing(timeout))
    return task


def refute_enqueued(
    fn: TaskFunction[..., object],
    *args: object,
    scheduled_in: float | timedelta | None = None,
    timeout: float = 0.0,
    queue: TaskQueue | None = None,
    **kwargs: object,
) -> None:
    """Assert that there is no such task as `assert_enqueued` would return, now or within `timeout` seconds.

    ``refute_enqueued(send)``: no task of that function. Raises `AssertionError`, which names the task.
    """
    __tracebackhide__ = True
    search = _CallSearch(fn, args, kwargs, queue, scheduled_in)
    task = search.wait_for_match(timeout)
    if task is not None:
        raise AssertionError(f"no task {search} was expected, but one was enqueued:\n  {search.describe(task)}")


class _CallSearch:
    """A call, and the store in which its task is searched."""

    def __init__(
        self,
        fn: TaskFunction[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        queue: TaskQueue | None,
        scheduled_in: float | timedelta | None,
    ) -> None:
        __tracebackhide__ = True
        if not isinstance(fn, TaskFunction):
            raise ConfigurationError(f"{fn!r} is no task function: pass a function decorated with @queue.task()")
        self._engine = fn._engine if queue is None else queue.engine
        self._name, self._signature = fn.name, fn._signature
        try:
            self._delay = None if scheduled_in is None else duration(scheduled_in, "scheduled_in")
        except ConfigurationError as refused:
            raise refused.with_traceback(None) from None  # the traceback ends in the line of the test
        self._payload: bytes | None = None
        self._given_calls: list[Mapping[str, object]] = []
        if args != (...,) or kwargs:
            try:
                self._given_calls.append(self._signature.bind_partial(*args, **kwargs).arguments)
            except TypeError as error:
                hint = "" if "delay" not in kwargs else "; for the time until the task is due write scheduled_in="
                raise TypeError(f"{fn.name}(): {error}{hint}") from None
            serializer = self._engine.serializer
            with suppress(Unserializable):  # such as ANY; a serializer may return other values than it was given
                self._payload = serializer.dumps((args, kwargs))
                stored = serializer.loads(self._payload)
                if isinstance(stored, tuple | list):
                    self._given_calls.append(self._signature.bind_partial(*stored[0], **stored[1]).arguments)
        self._text = ", ".join(_arguments(args, kwargs)) if self._given_calls and (args or kwargs) else "..."

    def wait_for_match(self, timeout: float) -> Task | None:
        """Return the newest matching task as soon as there is one; ``None`` after `timeout` seconds."""
        storage = self._engine.storage
        deadline = monotonic() + timeout
        while True:
            generation = storage.generation(
                Channel.WORK
            )  # read first: a task that comes after the search ends the wait
            for task in self._tasks():
                if self._matches(task):
                    return task
            left = deadline - monotonic()
            if left <= 0:
                return None
            storage.wait(Channel.WORK, generation, left)

    def _tasks(self) -> Iterator[Task]:
        """Yield all tasks of the function, the newest first."""
        last: int | None = None
        while page := self._engine.storage.tasks(limit=PAGE_SIZE, before=last):
            yield from (self._engine.attach_serializer(task) for task in page if task.name == self._name)
            last = page[-1].seq
            if last is None or len(page) < PAGE_SIZE:
                return

    def _matches(self, task: Task) -> bool:
        if self._delay is not None and not self._is_due_in(task, self._delay):
            return False
        if not self._given_calls or task.payload == self._payload:
            return True
        try:
            args, kwargs = task.call
            bound = self._signature.bind(*args, **kwargs)
        except Exception:  # noqa: BLE001 -- unreadable, or of another version of the function
            return False
        bound.apply_defaults()
        return any(self._has(bound.arguments, given) for given in self._given_calls)

    def _has(self, call: Mapping[str, object], given: Mapping[str, object]) -> bool:
        """Return whether a task's call has the given arguments."""
        return all(self._equal(self._part(name, call[name], value), value) for name, value in given.items())

    def _part(self, name: str, own: object, given: object) -> object:
        """Return the part of a task's argument to compare: of ``*rest`` and ``**more`` so many as are given."""
        kind = self._signature.parameters[name].kind
        if kind is Parameter.VAR_POSITIONAL:
            return cast("tuple[object, ...]", own)[: len(cast("tuple[object, ...]", given))]
        if kind is Parameter.VAR_KEYWORD:
            return {
                key: value
                for key, value in cast("dict[str, object]", own).items()
                if key in cast("dict[str, object]", given)
            }
        return own

    def _equal(self, own: object, given: object) -> bool:
        """Return whether two values are equal, or are stored as the same bytes: a NaN does not equal itself."""
        with suppress(Exception):  # not comparable
            if given == own:
                return True
        with suppress(Exception):  # not serializable
            return self._engine.serializer.dumps(given) == self._engine.serializer.dumps(own)
        return False

    def _is_due_in(self, task: Task, delay: float) -> bool:
        """Return whether a task waits for a time this long after its call, or after the end of its last attempt."""
        if task.state is None or LIFECYCLE.state(task.state).kind is not Kind.WAITING:
            return False
        slack = VIRTUAL_SLACK_SECONDS if isinstance(self._engine.clock, VirtualClock) else SLACK_SECONDS
        return abs(self._seconds_until_due(task) - delay) <= slack

    def _seconds_until_due(self, task: Task) -> float:
        records = self._engine.storage.history(task.id) or ()
        begins = [record.at for number, record in enumerate(records) if number == 0 or record.state == RETRYING]
        return 0.0 if task.eta is None or not begins else task.eta - begins[-1]

    def missing(self, timeout: float) -> str:
        """Return the message if no task matches."""
        found = list(self._tasks())
        within = f" within {timeout:g} s" if timeout else ""
        head = f"no task {self} was enqueued{within}"
        if not found:
            others = sum(self._engine.storage.counts().values())
            rest = f"; the queue has {others} of other functions" if others else "; the queue is empty"
            return f"{head}, and no other of that function{rest}"
        lines = [f"  {self.describe(task)}" for task in found[:SHOWN_TASK_LIMIT]]
        if len(found) > SHOWN_TASK_LIMIT:
            lines.append(f"  and {len(found) - SHOWN_TASK_LIMIT} older ones")
        return "\n".join([f"{head}; tasks of that function:", *lines])

    def describe(self, task: Task) -> str:
        """Return the text of a task in messages."""
        try:
            called = f"{task.name}({', '.join(_arguments(*task.call))})"
        except Undecodable:
            called = f"{task.name}(arguments that cannot be read)"
        due = ""
        if task.eta is not None:
            seconds = round(self._seconds_until_due(task), 3)
            due = f", scheduled_in={seconds:g}, not before {datetime.fromtimestamp(task.eta, UTC).isoformat()}"
        return f"{called}: {task.state}{due}, task {task.id}"

    def __str__(self) -> str:
        due = "" if self._delay is None else f" with scheduled_in={self._delay:g}"
        return f"{self._name}({self._text}){due}"


def _arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> list[str]:
    """Return arguments as written in a call."""
    return [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
