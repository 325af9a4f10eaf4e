"""Named locks: one holder at a time, among all hosts that share the store."""

import functools
import os
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar, cast

from lifecycle.errors import ConfigurationError, StorageError, TaskLockedException
from lifecycle.execution.attempt import current_task
from lifecycle.execution.callables import check_callable, is_async, own_signature, refuse_unrun, task_function_in
from lifecycle.execution.engine import Engine
from lifecycle.execution.interruption import shielded
from lifecycle.storage.base import Lock

__all__ = ["RESERVED", "TaskLock", "reserved_name"]

P = ParamSpec("P")
R = TypeVar("R")

RESERVED: Final = "\x1f"
"""The beginning of the names of entries in the table of locks that are no locks: values by key, and used-up limits."""


def reserved_name(kind: str, name: str) -> str:
    """Return the name of an entry of a kind that is no lock."""
    return f"{RESERVED}{kind}{RESERVED}{name}"


class TaskLock:
    """A named lock: a context manager and a decorator. Made by `TaskQueue.lock_task`.

    The holder is a thread, or a task if the lock is acquired inside a task. The lock is not re-entrant: a second
    acquisition by the holder fails like any other.

    A task's lock is freed when its attempt ends, in any way; if its worker is killed, when the worker's lease lapses.
    Outside a task the process keeps its lock until the release, or until the process ends. With a `ttl` the lock is
    free after that time, even if its holder still runs.
    """

    def __init__(self, engine: Engine, name: str, ttl: float | None = None) -> None:
        """`ttl`: seconds after which the lock is free; ``None``: free when its holder ends."""
        self._engine, self.name, self._ttl = engine, name, ttl
        self._owners: dict[tuple[int, str | None], str] = {}
        """Holder → owner, the random id of one acquisition in the store. Threads may share this object, and with a
        `ttl` two of them may believe that they hold the lock."""

    @shielded
    def acquire(self) -> bool:
        """Acquire the lock without waiting; return False if the lock is held already. Raises `StorageError`."""
        engine, task = self._engine, current_task.get()
        now = engine.clock.now()
        owner = os.urandom(12).hex()
        # The heartbeat of this worker extends a task's lock, and the heartbeat of the process extends any other.
        keeper = None if self._ttl is not None else task.worker if task is not None else engine.process_name()
        until = now + (engine.lease if self._ttl is None else self._ttl)
        lock = Lock(self.name, owner, until, keeper, task.id if task is not None else None)
        try:
            acquired = engine.storage.lock(lock, now)
        except StorageError:  # the store may have locked all the same
            self._defer_unlock(owner)
            raise
        if acquired:
            self._forget_owner()  # left from an acquisition whose lock was flushed since
            self._owners[_holder()] = owner
            if task is not None:
                engine.held_locks.setdefault(task.id, []).append((self.name, owner))
            elif self._ttl is None:
                engine.heartbeat.keep(engine.process_name())
        return acquired

    @shielded
    def release(self) -> bool:
        """Release the lock; return False if this thread or task no longer holds the lock through this object.

        Raises `StorageError` if the store cannot be used. The release is then repeated in the background.
        """
        owner = self._owners.get(_holder())
        if owner is None:
            return False
        try:
            return self._engine.storage.unlock(self.name, owner)
        except StorageError:
            self._defer_unlock(owner)
            raise
        finally:
            self._forget_owner()

    def _defer_unlock(self, owner: str) -> None:
        """Repeat the release later, with the heartbeat."""
        engine = self._engine
        engine.deferred.append(lambda: engine.storage.unlock(self.name, owner))

    def _forget_owner(self) -> None:
        """Forget the acquisition of this thread or task, if any, and end its heartbeat."""
        owner, task = self._owners.pop(_holder(), None), current_task.get()
        if owner is not None and task is not None:
            held_locks = self._engine.held_locks
            others = [lock for lock in held_locks.get(task.id, ()) if lock[1] != owner]
            if others:
                held_locks[task.id] = others
            else:
                held_locks.pop(task.id, None)
        elif owner is not None and self._ttl is None:
            self._engine.heartbeat.drop(self._engine.process_name())

    def is_locked(self) -> bool:
        """Return whether the lock is held now, by any holder."""
        return any(lock.name == self.name for lock in self._engine.storage.locks(self._engine.clock.now()))

    def clear(self) -> bool:
        """Free the lock, whatever its holder; return False if the lock was free."""
        return bool(self._engine.storage.flush_locks([self.name]))

    def __enter__(self) -> Self:
        if not self.acquire():
            raise TaskLockedException(f"the lock {self.name!r} is held already: try again after its release")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return a function that calls `function` with the lock held, or raises `TaskLockedException`.

        Each call acquires the lock on its own, so overlapping calls exclude one another.

        Raises `ConfigurationError` for a task, since that would lock the enqueueing and not the run, and for a
        generator function.
        """
        if task_function_in(function) is not None:
            raise ConfigurationError(
                f"lock_task({self.name!r}): decorates a task already, and would lock the enqueueing; "
                "put @queue.lock_task below @queue.task()"
            )
        check_callable(function, "function", may_be_async=True)

        def new_lock() -> TaskLock:
            return TaskLock(self._engine, self.name, self._ttl)  # calls overlap in one thread in an event loop

        if is_async(function):

            @functools.wraps(function)
            async def locked_async(*args: P.args, **kwargs: P.kwargs) -> object:
                with new_lock():
                    return await cast("Awaitable[object]", function(*args, **kwargs))

            return _with_signature(cast("Callable[P, R]", locked_async), function)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with new_lock():
                value = function(*args, **kwargs)
                refuse_unrun(value)
                return value

        return _with_signature(locked, function)


def _with_signature(wrapper: Callable[P, R], function: Callable[..., object]) -> Callable[P, R]:
    """Give a wrapper that passes its arguments on the signature of the function, and return the wrapper."""
    wrapper.__signature__ = own_signature(function).replace()  # type: ignore[attr-defined]
    return wrapper


def _holder() -> tuple[int, str | None]:
    """Return the thread's number, and the id of the running task."""
    task = current_task.get()
    return threading.get_ident(), None if task is None else task.id
