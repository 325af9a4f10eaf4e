"""`TaskQueue`: what users hold."""

import functools
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from lifecycle.clock import Clock, RemoteClock, SystemClock
from lifecycle.core.policies import Revocation
from lifecycle.core.serializer import MsgpackSerializer, Serializer
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import NO_DELAY, Record, RetryPolicy, Task
from lifecycle.errors import ConfigurationError
from lifecycle.execution import external_transaction
from lifecycle.execution.engine import Engine
from lifecycle.execution.environment import Environment
from lifecycle.execution.interruption import shielded
from lifecycle.execution.signals import Handler, check_signals
from lifecycle.execution.worker import Worker
from lifecycle.function import Options, TaskFunction, name_of
from lifecycle.locks import TaskLock
from lifecycle.moments import checked_priority, due_at, duration, number, positive_duration, utc_seconds, whole_number
from lifecycle.result import Result
from lifecycle.storage import open_storage
from lifecycle.storage.base import RevocationTarget, Storage

__all__ = ["TaskQueue"]

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=Handler)

When = datetime | timedelta | float
"""A moment; or, as a duration or seconds, one so far from now."""

URL_VARIABLE = "LIFECYCLE_URL"
DEFAULT_URL = "sqlite:///lifecycle.db"


class _Decorator(Protocol):
    """Makes a `TaskFunction` of a function, plain or `async`."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...


class _ContextDecorator(Protocol):
    """The same, for a function that is called with more, or less, than its task is."""

    @overload
    def __call__(self, function: Callable[..., Awaitable[R]], /) -> TaskFunction[..., R]: ...
    @overload
    def __call__(self, function: Callable[..., R], /) -> TaskFunction[..., R]: ...


class TaskQueue:
    """A queue of tasks in a store. Any number of threads and processes may use one store at once."""

    def __init__(
        self,
        url: str | None = None,
        *,
        name: str = "default",
        immediate: bool = False,
        serializer: Serializer | None = None,
        lease: float | timedelta = 30.0,
        retention: float | timedelta | None = 86_400.0,
        clock: Clock | None = None,
        max_interruptions: int = 10,
        intermediate_errors: bool = True,
    ) -> None:
        """Nothing is connected, or made, before its first use. Raises `ConfigurationError`.

        :param url: ``sqlite:///file.db``, ``memory://``; default: ``$LIFECYCLE_URL``, else ``sqlite:///lifecycle.db``.
        :param name: separates queues that share a store.
        :param immediate: run tasks in the caller as they are enqueued, through the same steps and with the same
            signals (what is scheduled runs with the first call after its ETA); in memory, unless `url` says otherwise.
        :param serializer: of arguments and results; default: `MsgpackSerializer`.
        :param lease: seconds after which the tasks of a consumer that gives no sign of life are put back.
        :param retention: seconds that a task at rest is kept, with its result and history; ``None``: for good.
        :param clock: where the time comes from (a `VirtualClock` in tests); default: the store's server, or this host.
        :param max_interruptions: a task that was interrupted more often rests `interrupted`: it may kill its workers.
        :param intermediate_errors: a caller who waits for a result sees failures that will be retried.
        """
        if url is None:
            url = "memory://" if immediate else os.environ.get(URL_VARIABLE) or DEFAULT_URL
        if not name:
            raise ConfigurationError("a queue's name cannot be empty")
        self.name, self.immediate = name, immediate
        self.retention = None if retention is None else duration(retention, "retention")
        storage = open_storage(url, name)
        self._engine = Engine(
            Environment(storage, clock or storage.clock() or SystemClock()),
            serializer or MsgpackSerializer(),
            lease=positive_duration(lease, "lease"),
            max_interruptions=whole_number(max_interruptions, "max_interruptions"),
            intermediate_errors=intermediate_errors,
        )
        self._engine.after_enqueue = self._run_due if immediate else None
        self._callers = threading.local()

    # Declaring -----------------------------------------------------------------------------------------------------

    def task(
        self,
        retries: int = 0,
        retry_delay: float | timedelta = 0,
        retry_backoff: float = 0,
        priority: int | None = None,
        expires: When | None = None,
        timeout: float | timedelta | None = None,
        context: bool = False,
        name: str | None = None,
        *,
        retry_max_delay: float | timedelta = 86_400.0,
        retry_jitter: float = 0.0,
    ) -> _Decorator:
        """Decorator: calls of the function become tasks.

        :param retries: how many further attempts a task has after one that did not complete.
        :param retry_delay: seconds before the first of them.
        :param retry_backoff: each later one waits this many times longer than the one before (0 and 1: all alike).
        :param retry_max_delay: seconds; none waits longer.
        :param retry_jitter: share of the wait, 0 to 1, up to which a random time is added.
        :param priority: higher goes first; default 0.
        :param expires: not started any more after so many seconds from the call, or from a moment on.
        :param timeout: seconds that one attempt may take.
        :param context: pass the task to the function, as its keyword argument ``task``.
        :param name: of the function in the queue; default: its module and name.
        """
        if callable(retries):
            raise ConfigurationError("task() takes options: write @queue.task(), with parentheses")
        policy = RetryPolicy(
            duration(retry_delay, "retry_delay"),
            number(retry_backoff, "retry_backoff"),
            duration(retry_max_delay, "retry_max_delay"),
            number(retry_jitter, "retry_jitter", at_most=1),
        )
        options = Options(
            whole_number(retries, "retries"),
            NO_DELAY if policy == NO_DELAY else policy,
            0 if priority is None else checked_priority(priority),
            expires,
            None if timeout is None else duration(timeout, "timeout"),
        )
        due_at(expires, 0.0, "expires")  # refuse here what could not be resolved at a call

        def decorate(function: Callable[..., object]) -> TaskFunction[..., object]:
            if not callable(function):
                raise ConfigurationError(f"task() decorates a function, not {function!r}: write @queue.task()")
            return TaskFunction(self._engine, function, name or name_of(function), options, context=context)

        return decorate  # type: ignore[return-value]  # the two overloads of _Decorator, in one

    def context_task(
        self,
        obj: AbstractContextManager[object],
        as_argument: bool = False,
        *,
        retries: int = 0,
        retry_delay: float | timedelta = 0,
        retry_backoff: float = 0,
        priority: int | None = None,
        expires: When | None = None,
        timeout: float | timedelta | None = None,
        name: str | None = None,
        retry_max_delay: float | timedelta = 86_400.0,
        retry_jitter: float = 0.0,
    ) -> _ContextDecorator:
        """Decorator: as `task`, and each run is inside ``with obj``; `as_argument` passes what that gives as the first.

        `obj` must allow being entered many times, by several threads at once if the workers are threads.
        """
        decorate = self.task(
            retries, retry_delay, retry_backoff, priority, expires, timeout, name=name,
            retry_max_delay=retry_max_delay, retry_jitter=retry_jitter,
        )  # fmt: skip

        def wrap(function: Callable[..., R]) -> TaskFunction[..., R]:
            @functools.wraps(function)
            def within(*args: object, **kwargs: object) -> R:
                with obj as value:
                    return function(value, *args, **kwargs) if as_argument else function(*args, **kwargs)

            @functools.wraps(function)
            async def within_async(*args: object, **kwargs: object) -> object:
                with obj as value:
                    call = function(value, *args, **kwargs) if as_argument else function(*args, **kwargs)
                    return await call  # type: ignore[misc]  # R is awaitable here

            chosen: Callable[..., Any] = within_async if inspect.iscoroutinefunction(function) else within
            if as_argument:  # callers do not pass the first parameter
                signature = inspect.signature(function)
                parameters = list(signature.parameters.values())[1:]
                chosen.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
            return cast("TaskFunction[..., R]", decorate(chosen))

        return cast(_ContextDecorator, wrap)

    def signal(self, *signals: str) -> Callable[[H], H]:
        """Decorator: call the function when a task enters the states of these signals, or any if none is named.

        Called as ``handler(signal, task)``, for `SIGNAL_ERROR` as ``handler(signal, task, exc)``, in the process that
        made the transition, after it is stored. Raises `UnknownSignal`.
        """

        def connect(handler: H) -> H:
            self._engine.signals.connect(handler, signals)
            return handler

        check_signals(signals)  # where the misspelt name stands, not where the function does
        return connect

    def disconnect_signal(self, handler: Handler, *signals: str) -> None:
        """Call `handler` no more: for these signals, or for any if none is named. Raises `UnknownSignal`."""
        self._engine.signals.disconnect(handler, signals)

    def pre_execute(self, name: str | None = None) -> Callable[[H], H]:
        """Decorator: call ``hook(task)`` before each task's function; it may raise `CancelExecution`."""
        return self._engine.hooks.register("pre_execute", name)

    def post_execute(self, name: str | None = None) -> Callable[[H], H]:
        """Decorator: call ``hook(task, value, exc)`` after each task's function, whether it returned or raised."""
        return self._engine.hooks.register("post_execute", name)

    def on_startup(self, name: str | None = None) -> Callable[[H], H]:
        """Decorator: call ``hook()`` once in each worker of a consumer, before its first task."""
        return self._engine.hooks.register("on_startup", name)

    def on_shutdown(self, name: str | None = None) -> Callable[[H], H]:
        """Decorator: call ``hook()`` once in each worker of a consumer, after its last task."""
        return self._engine.hooks.register("on_shutdown", name)

    def unregister_pre_execute(self, hook: Callable[..., object] | str) -> bool:
        """Do not call a hook any more, by itself or its name; False if it is not registered."""
        return self._engine.hooks.unregister("pre_execute", hook)

    def unregister_post_execute(self, hook: Callable[..., object] | str) -> bool:
        """As `unregister_pre_execute`."""
        return self._engine.hooks.unregister("post_execute", hook)

    def unregister_on_startup(self, hook: Callable[..., object] | str) -> bool:
        """As `unregister_pre_execute`."""
        return self._engine.hooks.unregister("on_startup", hook)

    def unregister_on_shutdown(self, hook: Callable[..., object] | str) -> bool:
        """As `unregister_pre_execute`."""
        return self._engine.hooks.unregister("on_shutdown", hook)

    # Calling and running -------------------------------------------------------------------------------------------

    def enqueue(self, task: Task, connection: object = None) -> Result[object]:
        """Enqueue a task that was made with ``function.s(…)``; on a `connection`, within its `transaction`.

        Raises `Unserializable` naming the argument, `ConfigurationError` for an option that cannot be, `DuplicateTask`,
        and `StorageError` if it could not be stored; then nothing happened, and no signal is sent.
        """
        self._enqueue((task,), connection)
        return Result(self._engine, task.id)

    def enqueue_many(self, tasks: Sequence[Task], connection: object = None) -> list[Result[object]]:
        """Enqueue tasks in one transaction, all or none; raises what `enqueue` does."""
        tasks = list(tasks)
        self._enqueue(tasks, connection)
        return [Result(self._engine, task.id) for task in tasks]

    def _enqueue(self, tasks: Sequence[Task], connection: object) -> None:
        if connection is None:
            self._engine.enqueue(tasks)
        else:
            external_transaction.enqueue(self._engine, tasks, connection)

    def transaction(self, connection: object) -> AbstractContextManager[None]:
        """A transaction on a `psycopg.Connection`: ``with queue.transaction(conn): …; queue.enqueue(task, conn)``.

        What was enqueued in it is there, and is announced, once it is committed: at the end of the block.
        """
        return external_transaction.transaction(self._engine, connection)

    @shielded
    def run_next(self, now: datetime | float | None = None) -> Task | None:
        """Claim and run the next due task in this thread, as a consumer's worker does, signals and all.

        Returns the task, in the state that it came to: one that is revoked or has expired is dealt with and returned,
        too. ``None`` if none is due; tasks met before their ETA have become `scheduled` then. Leases that have lapsed
        are recovered first. `now`: the moment to go by (a datetime, or UTC seconds) instead of the clock's.
        """
        moment = None if now is None else utc_seconds(now, "now")
        worker: Worker | None = getattr(self._callers, "worker", None)
        # Another one after a fork, and for a task that itself calls this.
        process_name = self._engine.process_name()
        if worker is None or not worker.is_idle or not worker.name.startswith(process_name):
            worker = Worker(self._engine, f"{process_name}/caller-{next(self._engine.worker_numbers)}")
            self._callers.worker = worker
        keep = isinstance(self._engine.clock, SystemClock | RemoteClock)  # a virtual clock's leases end when it says so
        if keep:
            self._engine.heartbeat.keep(worker.name)
        try:
            self._engine.recover(moment)
            return worker.run_next(moment)
        finally:
            worker.runner.close()  # nothing else would: a caller does not say when it is done
            if keep:
                self._engine.heartbeat.drop(worker.name)

    def _run_due(self) -> None:
        while self.run_next() is not None:
            pass

    # Calling off ------------------------------------------------------------------------------------------------------

    def cancel(self, id: str) -> None:  # noqa: A002
        """Call off a task: it is revoked if it waits; if it runs, its consumer raises `TaskCanceled` in it in a second.

        Then it ends `canceled`, and is not retried; what completes in that moment stays complete. Not waited for.
        Raises `UnknownTask`, or `IllegalTransition` if it is at rest.
        """
        self._engine.cancel(id)

    def revoke(self, task: Task | Result[object], revoke_until: When | None = None, revoke_once: bool = False) -> None:
        """Do not run this task (again): see `revoke_by_id`."""
        self.revoke_by_id(task.id, revoke_until, revoke_once)

    def restore(self, task: Task | Result[object]) -> bool:
        """Take back `revoke`; False if there was nothing to take back, or if the task is `revoked` already."""
        return self.restore_by_id(task.id)

    def revoke_by_id(self, id: str, revoke_until: When | None = None, revoke_once: bool = False) -> None:  # noqa: A002
        """Do not run the task of this id, whether it waits, runs (its retry is revoked) or is not enqueued yet.

        A waiting task becomes `revoked` promptly, by the next worker that is free, not only at its ETA. With
        `revoke_until` (a moment, or seconds from now) it is stopped only if it would run before then. `revoke_once`
        says nothing more here: a task is revoked once.
        """
        until = due_at(revoke_until, self._engine.clock.now(), "revoke_until")
        self._engine.revoke(RevocationTarget(function=False, key=id), Revocation(until, revoke_once))

    def restore_by_id(self, id: str) -> bool:  # noqa: A002
        """Take back `revoke_by_id`; see `restore`."""
        return self._engine.restore(RevocationTarget(function=False, key=id))

    def revoke_all(
        self, function: TaskFunction[..., object], revoke_until: When | None = None, revoke_once: bool = False
    ) -> None:
        """Run no task of a function for good, until a moment, or just not the next one; each is stopped at its turn."""
        function.revoke(revoke_until, revoke_once)

    def restore_all(self, function: TaskFunction[..., object]) -> bool:
        """Take back `revoke_all`; False if there was nothing to take back."""
        return function.restore()

    def is_revoked(self, what: TaskFunction[..., object] | Task | Result[object] | str) -> bool:
        """Is a function, or a task (itself, its handle or its id), revoked: would it be stopped now, or was it?"""
        if isinstance(what, TaskFunction):
            return what.is_revoked()
        return self._engine.is_revoked(RevocationTarget(function=False, key=what if isinstance(what, str) else what.id))

    # Locks ---------------------------------------------------------------------------------------------------------

    def lock_task(self, name: str, ttl: float | timedelta | None = None) -> TaskLock:
        """A lock, as a decorator (under ``@queue.task()``) or a context manager. Taken, it ends an attempt `locked`.

        `ttl`: seconds after which it is free, held or not; default: as long as its holder lives.
        """
        return TaskLock(self._engine, name, None if ttl is None else duration(ttl, "ttl"))

    def is_locked(self, name: str) -> bool:
        """Does anybody hold this lock?"""
        return self.lock_task(name).is_locked()

    def flush_locks(self, *names: str) -> list[str]:
        """Free these locks, or all, whoever holds them; the names of those that were taken."""
        taken = {lock.name for lock in self._engine.storage.locks(self._engine.clock.now())}
        gone = sorted(taken & set(names)) if names else sorted(taken)
        self._engine.storage.flush_locks(gone)
        return gone

    # Looking and acting --------------------------------------------------------------------------------------------

    def result(self, id: str, blocking: bool = False, timeout: float | timedelta | None = None) -> object:  # noqa: A002
        """What the task of this id returned: ``handle(id).get(blocking, timeout)``."""
        return self.handle(id).get(blocking, timeout)

    def handle(self, id: str) -> Result[object]:  # noqa: A002
        """The result handle of the task of this id."""
        return Result(self._engine, id)

    def get(self, id: str) -> Task:  # noqa: A002
        """A copy of the task as it is now; raises `UnknownTask`."""
        return self._engine.get(id)

    def history(self, id: str) -> list[Record]:  # noqa: A002
        """The states that the task entered, oldest first; raises `UnknownTask`."""
        return self.handle(id).history()

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state: every state of the table that tasks can rest in is there, in its order."""
        counts = self._engine.storage.counts()
        return {state.name: counts.get(state.name, 0) for state in LIFECYCLE.states if state.kind is not Kind.PASSING}

    def tasks(
        self, state: str | Collection[str] | None = None, limit: int = 100, before: Task | None = None
    ) -> list[Task]:
        """Tasks, the newest first: in one state, in several, or in any; at most `limit`.

        `before`: the last task of the page before. Raises `ConfigurationError` for a state that does not exist.
        """
        names = [state] if isinstance(state, str) else state
        states = None if names is None else [LIFECYCLE.state(name).name for name in names]
        found = self._engine.storage.tasks(states, limit, None if before is None else before.seq)
        return [self._engine.attach_serializer(task) for task in found]

    def retry(self, id: str) -> Result[object]:  # noqa: A002
        """Run a task that rests in an outcome once more, whatever its retries; its handle.

        Raises `UnknownTask`, or `IllegalTransition` if it rests in none.
        """
        self._engine.retry(id)
        return self.handle(id)

    def flush(self) -> None:
        """Empty the queue: tasks in every state, with results and histories, revocations and locks."""
        self._engine.storage.flush()

    def close(self) -> None:
        """Let go of the store's connections. What was enqueued stays."""
        self._engine.heartbeat.close()
        self._engine.storage.close()

    @property
    def storage(self) -> Storage:
        """The adapter, for those who build on it."""
        return self._engine.environment.storage

    @property
    def engine(self) -> Engine:
        """What consumers are built on; not part of the contract with users."""
        return self._engine

    def __repr__(self) -> str:
        return f"<TaskQueue {self.name!r} on {type(self.storage).__name__}>"
