"""Assertions about what was enqueued, for tests of programs that enqueue, with any test runner and on any store."""

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

PAGE: Final = 500
"""How many tasks are looked at in one call of the store."""
SHOWN: Final = 20
"""How many tasks a message lists."""


def assert_enqueued(
    fn: TaskFunction[..., object],
    *args: object,
    timeout: float = 0.0,
    queue: TaskQueue | None = None,
    **kwargs: object,
) -> Task:
    """The task of a call of `fn` with just these arguments, in whatever state; the newest, if there are several.

    How they are passed does not matter: ``add(1, b=2)`` is ``add(1, 2)``, and what has a default may be left out.
    `unittest.mock.ANY` stands for any value, ``...`` as the only argument for any arguments. A parameter of `fn` that
    is itself called `timeout` or `queue` is passed by its position.

    :param timeout: seconds to wait for such a task; 0: it must be there.
    :param queue: where to look, if not in the function's own queue.

    Raises `AssertionError`, which lists what was enqueued of the function instead, and `TypeError` if the arguments do
    not fit it.
    """
    __tracebackhide__ = True
    wanted = _Wanted(fn, args, kwargs, queue)
    task = wanted.await_one(timeout)
    if task is None:
        raise AssertionError(wanted.missing(timeout))
    return task


def refute_enqueued(
    fn: TaskFunction[..., object],
    *args: object,
    timeout: float = 0.0,
    queue: TaskQueue | None = None,
    **kwargs: object,
) -> None:
    """The opposite of `assert_enqueued`, with the same arguments: there is no such task, nor within `timeout` seconds.

    ``refute_enqueued(send, ...)``: none at all of that function. Raises `AssertionError`, which names the task.
    """
    __tracebackhide__ = True
    wanted = _Wanted(fn, args, kwargs, queue)
    task = wanted.await_one(timeout)
    if task is not None:
        raise AssertionError(f"there should be no task {wanted}, but this was enqueued:\n  {wanted.shown(task)}")


class _Wanted:
    """A call, and the store in which its task is looked for."""

    def __init__(
        self,
        fn: TaskFunction[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        queue: TaskQueue | None,
    ) -> None:
        if not isinstance(fn, TaskFunction):
            raise ConfigurationError(f"{fn!r} is no decorated function: give what @queue.task() made")
        self._engine = fn._engine if queue is None else queue.engine
        self._name, self._signature = fn.name, fn._signature
        self._any = args == (...,) and not kwargs
        self._payload: bytes | None = None
        self._ways: list[Mapping[str, object]] = []
        if not self._any:
            call = fn.s(*args, **kwargs).call  # TypeError if they do not fit
            self._ways.append(self._bound(*call))
            serializer = self._engine.serializer
            try:  # as a worker would get them: a serializer need not give back what it was given
                self._payload = serializer.dumps(call)
                stored = serializer.loads(self._payload)
            except Unserializable:  # such as ANY
                stored = call
            if isinstance(stored, tuple | list):
                self._ways.append(self._bound(*stored))
        self._text = "..." if self._any else _call(args, kwargs)

    def await_one(self, timeout: float) -> Task | None:
        """The newest that fits, as soon as there is one; ``None`` after `timeout` seconds."""
        storage = self._engine.storage
        deadline = monotonic() + timeout
        while True:
            generation = storage.generation(Channel.WORK)  # before the look, so that nothing comes between the two
            for task in self._tasks():
                if self._fits(task):
                    return task
            left = deadline - monotonic()
            if left <= 0:
                return None
            storage.wait(Channel.WORK, generation, left)

    def _tasks(self) -> Iterator[Task]:
        """All of the function, the newest first."""
        last: int | None = None
        while page := self._engine.storage.tasks(limit=PAGE, before=last):
            yield from (self._engine.attach_serializer(task) for task in page if task.name == self._name)
            last = page[-1].seq
            if last is None or len(page) < PAGE:
                return

    def _fits(self, task: Task) -> bool:
        if self._any or task.payload == self._payload:
            return True
        try:
            return self._bound(*task.call) in self._ways
        except Exception:  # noqa: BLE001 -- unreadable, of another version of the function, or not to be compared
            return False

    def _bound(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Mapping[str, object]:
        """What each parameter gets."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def missing(self, timeout: float) -> str:
        """What to say if there is none."""
        there = list(self._tasks())
        within = f" within {timeout:g} s" if timeout else ""
        head = f"no task {self} was enqueued{within}"
        if not there:
            others = sum(self._engine.storage.counts().values())
            rest = f"; the queue has {others} of other functions" if others else "; the queue is empty"
            return f"{head}, and no other of that function{rest}"
        lines = [f"  {self.shown(task)}" for task in there[:SHOWN]]
        if len(there) > SHOWN:
            lines.append(f"  and {len(there) - SHOWN} older ones")
        return "\n".join([f"{head}; of that function there {'is' if len(there) == 1 else 'are'}:", *lines])

    def shown(self, task: Task) -> str:
        """A task as messages list it."""
        try:
            called = f"{task.name}({_call(*task.call)})"
        except Undecodable:
            called = f"{task.name}(arguments that cannot be read)"
        due = "" if task.eta is None else f", not before {datetime.fromtimestamp(task.eta, UTC).isoformat()}"
        return f"{called}: {task.state}{due}, task {task.id}"

    def __str__(self) -> str:
        return f"{self._name}({self._text})"


def _call(args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    """Arguments as they are written in a call."""
    return ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
