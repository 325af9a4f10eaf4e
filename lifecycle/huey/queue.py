"""`Huey`: a queue with the names and the behavior of Huey, on top of `TaskQueue`."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, cast

from lifecycle.core.schedules import Crontab
from lifecycle.core.serializer import Serializer
from lifecycle.core.table import EXECUTING, FAIL, LIFECYCLE
from lifecycle.errors import ConfigurationError
from lifecycle.execution.callables import import_name
from lifecycle.execution.environment import Environment
from lifecycle.execution.stored_result import pack_error, unpack, unpack_error
from lifecycle.function import TaskFunction
from lifecycle.hints import refuses_unknown_options
from lifecycle.huey.base import LOCAL, Declared
from lifecycle.huey.by_hand import ByHand
from lifecycle.huey.functions import TaskDecorator, TaskWrapper, note_errors, pass_view
from lifecycle.huey.handlers import Handlers
from lifecycle.huey.key_values import KeyValues
from lifecycle.huey.locks import TaskLock
from lifecycle.huey.rate_limits import RateLimit
from lifecycle.huey.results import ChordResult, Result, ResultGroup
from lifecycle.huey.tasks import Task
from lifecycle.huey.workflows import chord, group, node_of, steps_of
from lifecycle.queue import TaskQueue
from lifecycle.storage import MemoryStorage
from lifecycle.validation import flag, positive_duration, refusal, text, whole_number

if TYPE_CHECKING:
    from lifecycle.huey.consumer import Consumer

__all__ = ["Huey"]

When = datetime | timedelta | float
AnyResult = Result[object] | ResultGroup[object] | ChordResult[object]
"""The handle of a task, of a pipeline or group, or of a chord."""


class Huey(Handlers, ByHand):
    """A named queue of tasks in a store, with the names of Huey.

    `queue` is the `TaskQueue` behind it, with all that this library has beyond Huey; the command line takes a `Huey`
    in the place of a queue.
    """

    @refuses_unknown_options
    def __init__(
        self,
        name: str = "huey",
        results: bool = True,
        store_none: bool = False,
        utc: bool = True,
        immediate: bool = False,
        serializer: Serializer | None = None,
        compression: bool = False,
        use_zlib: bool = False,
        immediate_use_memory: bool = True,
        store_intermediate_errors: bool = True,
        *,
        url: str | None = None,
    ) -> None:
        """Create a queue object; the store is opened at its first use. Raises `ConfigurationError`.

        :param name: separates queues that share a store.
        :param results: ``False``: calls return no handle.
        :param store_none: no effect: ``None`` is stored like any value.
        :param utc: naive datetimes that programs get are UTC; ``False``: they are local time. A naive datetime that a
            program gives as an ETA or an expiry is local time, always.
        :param immediate: run each task at the call, in the calling thread. The attribute can be set later.
        :param serializer: encodes arguments and results; default: `MsgpackSerializer`.
        :param compression: no effect, as `use_zlib`: the store's values are compact.
        :param immediate_use_memory: immediate mode uses a store in memory, and leaves the queue's store alone.
        :param store_intermediate_errors: reading a result raises the error of an attempt also if a retry follows.
        :param url: the URL of the store, as in `TaskQueue`; classes such as `SqliteHuey` make theirs.
        """
        super().__init__()
        for value, option in (
            (store_none, "store_none"), (compression, "compression"), (use_zlib, "use_zlib"), (utc, "utc"),
            (results, "results"), (immediate_use_memory, "immediate_use_memory"),
        ):  # fmt: skip
            flag(value, option)
        self.name, self.utc, self.results, self.store_none = text(name, "name"), utc, results, store_none
        self.immediate_use_memory = immediate_use_memory
        self.declared = {}
        self.queue = TaskQueue(url, name=name, serializer=serializer, intermediate_errors=store_intermediate_errors)
        self._wrappers = {}
        self._environment = self.queue.engine.environment
        self._values = KeyValues(self.queue.engine)
        self.immediate = immediate

    @property
    def immediate(self) -> bool:
        """True if each call runs its task in the calling thread."""
        return self.queue.immediate

    @immediate.setter
    def immediate(self, value: bool) -> None:
        if flag(value, "immediate") == self.queue.immediate:
            return
        engine, own = self.queue.engine, self._environment
        if self.immediate_use_memory:
            memory = Environment(MemoryStorage(), own.clock, own.monotonic, own.process_name)
            engine.replace_environment(memory if value else own)
        self.queue.immediate = value

    # Declaring -------------------------------------------------------------------------------------------------------

    def task(
        self,
        retries: int = 0,
        retry_delay: float | timedelta = 0,
        retry_backoff: float = 0,
        priority: int | None = None,
        context: bool = False,
        name: str | None = None,
        expires: datetime | timedelta | float | None = None,
        timeout: float | timedelta | None = None,
        **settings: object,
    ) -> TaskDecorator:
        """Return a decorator that makes a function a task; the options are those of `TaskQueue.task`.

        Further options are attributes of all tasks of the function. Raises `ConfigurationError`.
        """

        def make(own_name: str | None) -> Callable[..., object]:
            return cast(
                "Callable[..., object]",
                self.queue.task(retries, retry_delay, retry_backoff, priority, expires, timeout, context, own_name),
            )

        make(None)  # checks all
        return self._decorator(make, name, context, settings)

    def periodic_task(
        self,
        validate_datetime: Callable[[datetime], object],
        retries: int = 0,
        retry_delay: float | timedelta = 0,
        retry_backoff: float = 0,
        priority: int | None = None,
        context: bool = False,
        name: str | None = None,
        expires: datetime | timedelta | float | None = None,
        timeout: float | timedelta | None = None,
        **settings: object,
    ) -> TaskDecorator:
        """Return a decorator that makes a function a periodic task: consumers enqueue it in each minute of the rule.

        :param validate_datetime: made by `crontab`, or a function of a naive datetime in the queue's zone.
        """
        rule = validate_datetime
        if callable(rule) and not isinstance(rule, Crontab | TaskWrapper):

            @wraps(rule)
            def rule(moment: datetime) -> object:
                return validate_datetime(moment.replace(tzinfo=None))

        def make(own_name: str | None) -> Callable[..., object]:
            return cast(
                "Callable[..., object]",
                self.queue.periodic_task(
                    rule, retries, retry_delay, retry_backoff, priority, expires, timeout, context, own_name,
                    tz="UTC" if self.utc else LOCAL,
                ),
            )  # fmt: skip

        make(None)  # checks all
        return self._decorator(make, name, context, settings, validate_datetime)

    def context_task(
        self, obj: AbstractContextManager[object], as_argument: bool = False, **options: object
    ) -> TaskDecorator:
        """Return a decorator like `task` whose function runs inside ``with obj``; `as_argument`: and gets its value."""
        flag(as_argument, "as_argument")
        decorate = cast("Callable[..., TaskDecorator]", self.task)(**options)

        def wrap(function: Callable[..., object]) -> TaskWrapper[object]:
            @wraps(function)
            def in_context(*args: object, **kwargs: object) -> object:
                with obj as value:
                    return function(value, *args, **kwargs) if as_argument else function(*args, **kwargs)

            return decorate(in_context)

        return cast("TaskDecorator", wrap)

    def _decorator(
        self,
        make: Callable[[str], Callable[..., object]],
        name: str | None,
        context: bool,
        settings: dict[str, object],
        is_tick: Callable[[datetime], object] | None = None,
    ) -> TaskDecorator:
        if name is not None:
            text(name, "name")

        def decorate(function: Callable[..., object]) -> TaskWrapper[object]:
            func = function.func if isinstance(function, TaskWrapper) else function
            short_name = name or getattr(func, "__name__", "")
            if not short_name:
                raise ConfigurationError(f"{func!r} has no name: give it one with task(name=…)")
            own_name = f"{import_name(func.__module__)}.{short_name}"
            known = self.declared.get(own_name)
            if known is not None and known.call is func:
                raise ConfigurationError(f"name={own_name!r}: the function is declared already; give it another name")
            call = pass_view(self, func) if context else func
            if type(self).build_error_result is not Huey.build_error_result:
                call = note_errors(self, call, self.build_error_result)
            inner = cast("TaskFunction[..., object]", make(own_name)(call))
            self.declared[own_name] = Declared(short_name, func, context, settings, inner.s, is_tick)
            return TaskWrapper(self, func, inner, settings)

        return cast("TaskDecorator", decorate)

    def build_error_result(self, task: Task, exception: Exception) -> dict[str, object]:
        """Return the metadata of an error. A subclass may override the method and add plain values."""
        state = LIFECYCLE.next(EXECUTING.name, FAIL)
        return unpack_error(unpack(pack_error(task.inner, state, exception)).data)

    # Enqueueing ------------------------------------------------------------------------------------------------------

    def enqueue(self, task: Task | group | chord) -> AnyResult:
        """Enqueue a task made by ``function.s(…)``, with its pipeline, or a group or chord, in one transaction.

        Returns the handle of a task, a `ResultGroup` for a pipeline or a group, a `ChordResult` for a chord; ``None``
        if the queue has ``results=False``. A task that `dequeue` or `read_schedule` returned goes back into the queue.
        Raises the errors of `TaskQueue.enqueue`.
        """
        self.enqueue_all([task])
        return self._handle(task) if self.results else cast("AnyResult", None)

    def enqueue_all(self, tasks: Iterable[object]) -> None:
        """Enqueue tasks, groups and chords in one transaction."""
        new = [task for task in tasks if not (isinstance(task, Task) and self.put_back(task.inner))]
        self.queue.enqueue_many([node_of(task) for task in new])

    def _handle(self, task: Task | group | chord) -> AnyResult:
        if isinstance(task, group):
            return ResultGroup([cast("Result[object]", self._handle(member)) for member in task.tasks])
        if isinstance(task, chord):
            callback = [Result[object](self, step) for step in steps_of(task.callback)]
            last = [_tail(member) for member in task.tasks]
            return ChordResult(
                [Result[object](self, step) for step in last],
                callback[0],
                ResultGroup(callback) if callback[1:] else None,
            )
        steps = [Result[object](self, step) for step in steps_of(task)]
        return ResultGroup(steps) if len(steps) > 1 else steps[0]

    def result(
        self,
        id: str,  # noqa: A002 -- Huey's name
        blocking: bool = False,
        timeout: float | timedelta | None = None,
        backoff: float = 1.15,
        max_delay: float = 1.0,
        revoke_on_timeout: bool = False,
        preserve: bool = False,
    ) -> object:
        """Return the value of the task of an id: see `Result.get`."""
        handle: Result[object] = Result(self, Task(id=text(id, "id"), huey=self))
        return handle.get(blocking, timeout, backoff, max_delay, revoke_on_timeout, preserve)

    # Revoking --------------------------------------------------------------------------------------------------------

    def revoke(self, task: Task, revoke_until: When | None = None, revoke_once: bool = False) -> None:
        """Revoke a task: see `TaskQueue.revoke_by_id`."""
        self.queue.revoke_by_id(task.id, revoke_until, revoke_once)

    def restore(self, task: Task) -> bool:
        """Take the revocation of a task back; return False if there is none, or if it has stopped the task."""
        return self.queue.restore_by_id(task.id)

    def revoke_by_id(self, id: str, revoke_until: When | None = None, revoke_once: bool = False) -> None:  # noqa: A002
        """Revoke the task of an id: see `TaskQueue.revoke_by_id`."""
        self.queue.revoke_by_id(id, revoke_until, revoke_once)

    def restore_by_id(self, id: str) -> bool:  # noqa: A002
        """Take the revocation of the task of an id back; return False if there is none."""
        return self.queue.restore_by_id(id)

    def revoke_all(
        self, task_class: TaskWrapper[object], revoke_until: When | None = None, revoke_once: bool = False
    ) -> None:
        """Revoke a function: see `TaskQueue.revoke_all`."""
        self.queue.revoke_all(_function(task_class).inner, revoke_until, revoke_once)

    def restore_all(self, task_class: TaskWrapper[object]) -> bool:
        """Take the revocation of a function back; return False if there is none."""
        return self.queue.restore_all(_function(task_class).inner)

    def is_revoked(
        self,
        task: TaskWrapper[object] | Task | Result[object] | str,
        timestamp: datetime | None = None,
        peek: bool = True,
    ) -> bool:
        """Return whether a function, or a task, its handle or its id, is revoked: see `TaskQueue.is_revoked`."""
        if isinstance(task, TaskWrapper):
            return task.is_revoked(timestamp, peek)
        return self.queue.is_revoked(task if isinstance(task, str) else task.id)

    # Locks and limits ------------------------------------------------------------------------------------------------

    def lock_task(self, lock_name: str, ttl: float | timedelta | None = None) -> TaskLock:
        """Return the lock of a name, for use as a decorator below ``@huey.task()`` or as a context manager."""
        self.queue.lock_task(lock_name, ttl)  # checks both
        return TaskLock(self.queue.engine, lock_name, None if ttl is None else positive_duration(ttl, "ttl"))

    def is_locked(self, lock_name: str) -> bool:
        """Return whether a lock is held now."""
        return self.queue.is_locked(lock_name)

    def flush_locks(self, *names: str) -> set[str]:
        """Free these locks, or all locks if none is named; return the names of the freed."""
        return set(self.queue.flush_locks(*names))

    def rate_limit(self, name: str, limit: int, per: float | timedelta, retry: bool = True) -> RateLimit:
        """Return a limit of runs in a window of time, for use as a decorator or a context manager.

        :param name: limits of one name share their windows.
        :param limit: the number of runs in a window.
        :param per: the length of a window.
        :param retry: run the task again in the next window, and keep its retries.
        """
        seconds = positive_duration(per, "per")
        return RateLimit(
            self.queue.engine, text(name, "name"), whole_number(limit, "limit"), seconds, retry=flag(retry, "retry")
        )

    # Values ----------------------------------------------------------------------------------------------------------

    def put(self, key: str, data: object) -> None:
        """Store a value under a key: see `KeyValues`."""
        self._values.put(key, data)

    def put_if_empty(self, key: str, data: object, ttl: float | None = None) -> bool:
        """Store a value unless the key has one, in one step; return whether it was stored."""
        return self._values.put_if_empty(key, data, ttl)

    def get(self, key: str, peek: bool = False) -> object:
        """Return the value of a key, or ``None``, and remove it; with `peek` the value stays."""
        return self._values.get(key, peek=peek)[1]

    def delete(self, key: str) -> bool:
        """Remove the value of a key; return False if there is none."""
        return self._values.delete(key)

    def create_consumer(self, **options: object) -> "Consumer":
        """Return a consumer of this queue: see `lifecycle.huey.consumer.Consumer`."""
        from lifecycle.huey.consumer import Consumer

        return cast("Callable[..., Consumer]", Consumer)(self, **options)

    def close(self) -> None:
        """Close the store's connections."""
        self.queue.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} on {self.queue.storage.location}>"


def _function(function: object) -> TaskWrapper[object]:
    if isinstance(function, TaskWrapper):
        return function
    raise refusal(function, "task_class", None, "must be a function with the decorator task()")


def _tail(member: Task | chord) -> Task:
    """Return the last step of a member of a chord."""
    return steps_of(member.callback if isinstance(member, chord) else member)[-1]
