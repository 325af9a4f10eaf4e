"""Functions of a queue, as Huey's decorator makes them: options of a call stand among its arguments."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import update_wrapper, wraps
from typing import Final, Generic, Protocol, TypeVar, cast, overload

from lifecycle.core.task import Task as CoreTask
from lifecycle.errors import ConfigurationError
from lifecycle.execution.attempt import current_task
from lifecycle.execution.callables import TaskCallable, check_callable, own_signature
from lifecycle.execution.stored_result import METADATA
from lifecycle.function import TaskFunction
from lifecycle.huey.base import HueyBase
from lifecycle.huey.results import Result, ResultGroup
from lifecycle.huey.tasks import Task, view
from lifecycle.validation import refusal

__all__ = ["TaskDecorator", "TaskWrapper", "note_errors", "pass_view"]

R = TypeVar("R", covariant=True)  # noqa: PLC0105 -- one name for what a function returns

T = TypeVar("T")

OPTIONS: Final = (
    "delay", "eta", "expires", "id", "priority", "retries", "retry_backoff", "retry_delay", "timeout",
)  # fmt: skip
"""Options of a call."""


def pass_view(huey: HueyBase, function: Callable[..., object]) -> Callable[..., object]:
    """Return a function that gets the view of its task in the place of the task."""

    def seen(value: object) -> object:
        if not isinstance(value, CoreTask):
            return value
        task = view(huey, value)
        task.begin_attempt()
        return task

    @wraps(function)
    def with_view(*args: object, **kwargs: object) -> object:
        return function(*map(seen, args), **{name: seen(value) for name, value in kwargs.items()})

    with_view.__signature__ = own_signature(function).replace()  # type: ignore[attr-defined]
    return with_view


def note_errors(
    huey: HueyBase, function: Callable[..., object], metadata: Callable[[Task, Exception], Mapping[str, object]]
) -> Callable[..., object]:
    """Return a function whose exceptions carry metadata. Raises `ConfigurationError` for an `async` function."""
    check_callable(function, "task of a queue with its own build_error_result")

    @wraps(function)
    def noting(*args: object, **kwargs: object) -> object:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            task = current_task.get()
            if task is not None:
                setattr(error, METADATA, dict(metadata(view(huey, task), error)))
            raise

    noting.__signature__ = own_signature(function).replace()  # type: ignore[attr-defined]
    return noting


class TaskDecorator(Protocol):
    """Turns a function, plain or `async`, into a `TaskWrapper`."""

    @overload
    def __call__(self, function: Callable[..., Awaitable[T]], /) -> "TaskWrapper[T]": ...
    @overload
    def __call__(self, function: Callable[..., T], /) -> "TaskWrapper[T]": ...


class TaskWrapper(TaskCallable, Generic[R]):
    """A function of a queue: a call enqueues a task and returns its handle."""

    def __init__(
        self, huey: HueyBase, func: Callable[..., object], inner: TaskFunction[..., R], settings: Mapping[str, object]
    ) -> None:
        """`settings`: attributes of all tasks of the function."""
        update_wrapper(self, func)
        self.huey, self.func, self.inner, self.settings = huey, func, inner, settings
        self.name = inner.name
        self._options = frozenset(OPTIONS) - own_signature(func).parameters.keys()
        """The options that are no parameters of the function: an argument goes to the function first."""

    @property
    def __lifecycle__(self) -> TaskFunction[..., R]:
        """The function, for the command line."""
        return self.inner

    @property
    def retries(self) -> int:
        """The number of retries of the function's tasks."""
        return self.inner.options.retries

    @property
    def retry_delay(self) -> float:
        """Seconds before the first retry of the function's tasks."""
        return self.inner.options.retry.delay

    @property
    def task_class(self) -> "TaskWrapper[R]":
        """The function itself: `revoke_all` and `is_revoked` take it."""
        return self

    def __call__(self, /, *args: object, **kwargs: object) -> Result[R]:
        """Enqueue a call and return its handle; ``None`` if the queue has ``results=False``."""
        return self._enqueue(self.s(*args, **kwargs))

    def s(self, /, *args: object, **kwargs: object) -> Task:
        """Return a task for a call, without enqueueing the task; options of the call stand among its arguments.

        Raises `TypeError` if the arguments do not fit, and `ConfigurationError` for an invalid option.
        """
        options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs and name in self._options}
        make = cast(Callable[..., CoreTask], self.inner.make)
        return view(self.huey, make(args, kwargs, **options))

    def schedule(
        self,
        args: Sequence[object] | datetime | timedelta | float | None = None,
        kwargs: Mapping[str, object] | None = None,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        priority: int | None = None,
        retries: int | None = None,
        retry_delay: float | timedelta | None = None,
        retry_backoff: float | None = None,
        expires: datetime | timedelta | float | None = None,
        timeout: float | timedelta | None = None,
        id: str | None = None,  # noqa: A002 -- Huey's name
    ) -> Result[R]:
        """Enqueue a call for a time, and return its handle: see `TaskFunction.schedule`.

        Raises `ConfigurationError` if no time is given.
        """
        if eta is None and delay is None and not isinstance(args, datetime | timedelta | int | float):
            raise ConfigurationError(
                f"{self.name}: schedule() needs eta= or delay=; call the function for a task of now"
            )
        task = self.inner.make(
            args, kwargs, eta, delay, priority=priority, retries=retries, retry_delay=retry_delay,
            retry_backoff=retry_backoff, expires=expires, timeout=timeout, id=id,
        )  # fmt: skip
        return self._enqueue(view(self.huey, task))

    def map(self, it: Iterable[object]) -> ResultGroup[R]:
        """Enqueue a call for each item, in one transaction, and return the handles. A tuple is several arguments."""
        if isinstance(it, str | bytes | Mapping) or not isinstance(it, Iterable):
            raise refusal(it, "it", self.name, "must be an iterable of calls, as in [(1, 2), (3, 4)]")
        tasks = [self.s(*(call if isinstance(call, tuple) else (call,))) for call in it]
        self.huey.enqueue_all(tasks)
        if not self.huey.results:
            return cast("ResultGroup[R]", None)
        return ResultGroup([Result[R](self.huey, task) for task in tasks])

    def call_local(self, /, *args: object, **kwargs: object) -> object:
        """Call the plain function here, without a task."""
        return self.func(*args, **kwargs)

    def revoke(self, revoke_until: datetime | float | timedelta | None = None, revoke_once: bool = False) -> None:
        """Revoke the function: its tasks are revoked instead of starting, until `restore`."""
        self.inner.revoke(revoke_until, revoke_once)

    def restore(self) -> bool:
        """Take the revocation back; return False if there is none."""
        return self.inner.restore()

    def is_revoked(self, timestamp: datetime | None = None, peek: bool = True) -> bool:
        """Return whether a task that starts now, or at a moment, would be revoked."""
        del peek
        if timestamp is None:
            return self.inner.is_revoked()
        return self.huey.is_revoked_at(self.inner, timestamp)

    def unregister(self) -> bool:
        """Forget the function in this program: its tasks wait for a program that knows it. False: it is not known."""
        return self.huey.forget(self.name)

    def _enqueue(self, task: Task) -> Result[R]:
        self.huey.enqueue_all([task])
        return Result[R](self.huey, task) if self.huey.results else cast("Result[R]", None)

    def __repr__(self) -> str:
        return f"<task function {self.name}>"
