"""Assertions about enqueued tasks, for any test runner and any store."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from lifecycle.clock import monotonic
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError, Undecodable, Unserializable
from lifecycle.function import TaskFunction
from lifecycle.queue import TaskQueue
from lifecycle.storage.base import Channel

__all__ = ["assert_enqueued", "refute_enqueued"]

PAGE_SIZE: Final = 500
"""Tasks that one call of the store reads."""
SHOWN_TASK_LIMIT: Final = 20
"""Tasks that a message lists."""


def assert_enqueued(
    fn: TaskFunction[..., object],
    *args: object,
    timeout: float = 0.0,
    queue: TaskQueue | None = None,
    **kwargs: object,
) -> Task:
    """Return the newest task of `fn` with exactly these arguments, in any state.

    The form of the call does not matter: ``add(1, b=2)`` is ``add(1, 2)``, and defaults may be left out.
    `unittest.mock.ANY` equals any value; ``...`` as the only argument means any arguments. Pass parameters of `fn` that
    are called `timeout` or `queue` by position.

    :param timeout: seconds to wait for such a task; 0: do not wait.
    :param queue: the queue to search, if not the function's own.

    Raises `AssertionError`, which lists the function's tasks instead, and `TypeError` if the arguments do not fit.
    """
    __tracebackhide__ = True
    search = _CallSearch(fn, args, kwargs, queue)
    task = search.wait_for_match(timeout)
    if task is None:
        raise AssertionError(search.missing(timeout))
    return task


def refute_enqueued(
    fn: TaskFunction[..., object],
    *args: object,
    timeout: float = 0.0,
    queue: TaskQueue | None = None,
    **kwargs: object,
) -> None:
    """Assert that there is no such task as `assert_enqueued` would return, now or within `timeout` seconds.

    ``refute_enqueued(send, ...)``: no task of that function. Raises `AssertionError`, which names the task.
    """
    __tracebackhide__ = True
    search = _CallSearch(fn, args, kwargs, queue)
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
    ) -> None:
        if not isinstance(fn, TaskFunction):
            raise ConfigurationError(f"{fn!r} is no task function: pass a function decorated with @queue.task()")
        self._engine = fn._engine if queue is None else queue.engine
        self._name, self._signature = fn.name, fn._signature
        self._any = args == (...,) and not kwargs
        self._payload: bytes | None = None
        self._bound_calls: list[Mapping[str, object]] = []
        if not self._any:
            call = fn.s(*args, **kwargs).call  # TypeError if they do not fit
            self._bound_calls.append(self._bound(*call))
            serializer = self._engine.serializer
            try:  # the arguments of the worker: a serializer may return other values than it was given
                self._payload = serializer.dumps(call)
                stored = serializer.loads(self._payload)
            except Unserializable:  # such as ANY
                stored = call
            if isinstance(stored, tuple | list):
                self._bound_calls.append(self._bound(*stored))
        self._text = "..." if self._any else _call(args, kwargs)

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
        if self._any or task.payload == self._payload:
            return True
        try:
            return self._bound(*task.call) in self._bound_calls
        except Exception:  # noqa: BLE001 -- unreadable, of another version of the function, or not comparable
            return False

    def _bound(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Mapping[str, object]:
        """Return the value of each parameter."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

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
            called = f"{task.name}({_call(*task.call)})"
        except Undecodable:
            called = f"{task.name}(arguments that cannot be read)"
        due = "" if task.eta is None else f", not before {datetime.fromtimestamp(task.eta, UTC).isoformat()}"
        return f"{called}: {task.state}{due}, task {task.id}"

    def __str__(self) -> str:
        return f"{self._name}({self._text})"


def _call(args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    """Return arguments as written in a call."""
    return ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
