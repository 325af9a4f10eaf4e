"""Locks: one holder at a time, on every host that shares the store."""

import functools
import inspect
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, Self, TypeVar, cast

from lifecycle.errors import StorageError, TaskLockedException
from lifecycle.execution.attempt import current_task
from lifecycle.execution.engine import Engine
from lifecycle.execution.interruption import shielded
from lifecycle.storage.base import Lock

__all__ = ["TaskLock"]

P = ParamSpec("P")
R = TypeVar("R")


class TaskLock:
    """A context manager, and a decorator. Not re-entrant: whoever holds it and asks again is told that it is taken.

    Taken in a task, it is freed when the attempt ends, however it ends; a killed worker's locks go with its lease.
    Taken elsewhere, this process keeps it alive while it lives. With a `ttl` it is free after so many seconds, whoever
    holds it and whatever they do.
    """

    def __init__(self, engine: Engine, name: str, ttl: float | None = None) -> None:
        """`ttl`: seconds; ``None``: as long as it is held by somebody alive."""
        self._engine, self.name, self._ttl = engine, name, ttl
        # Whose hold it is: threads may share the object, and a ttl may end while one of them still thinks it holds.
        self._held: dict[tuple[int, str | None], str] = {}

    @shielded
    def acquire(self) -> bool:
        """Take it; False if somebody has it. Give it back with `release`."""
        engine, task = self._engine, current_task.get()
        now = engine.clock.now()
        owner = os.urandom(12).hex()
        # In a task it lives and dies with the lease of the worker, elsewhere with this process's heartbeat.
        keeper = None if self._ttl is not None else task.worker if task is not None else engine.process_name()
        until = now + (engine.lease if self._ttl is None else self._ttl)
        lock = Lock(self.name, owner, until, keeper, task.id if task is not None else None)
        try:
            taken = engine.storage.lock(lock, now)
        except StorageError:  # it may have been taken all the same
            self._defer_unlock(owner)
            raise
        if taken:
            self._let_go()  # of a hold that somebody has flushed under its feet
            self._held[self._whose()] = owner
            if task is not None:
                engine.held_locks.setdefault(task.id, []).append((self.name, owner))
            elif self._ttl is None:
                engine.heartbeat.keep(engine.process_name())
        return taken

    def _forget(self, task_id: str, owner: str) -> None:
        left = [entry for entry in self._engine.held_locks.get(task_id, ()) if entry[1] != owner]
        if left:
            self._engine.held_locks[task_id] = left
        else:
            self._engine.held_locks.pop(task_id, None)

    @shielded
    def release(self) -> bool:
        """Give it back; False if it was not held by this object, in this thread and task, any more.

        Raises `StorageError` if the store cannot be used; nobody need ask again, it is given back later.
        """
        owner = self._held.get(self._whose())
        if owner is None:
            return False
        try:
            return self._engine.storage.unlock(self.name, owner)
        except StorageError:
            self._defer_unlock(owner)
            raise
        finally:
            self._let_go()

    def _defer_unlock(self, owner: str) -> None:
        """Give it back later."""
        engine = self._engine
        engine.deferred.append(lambda: engine.storage.unlock(self.name, owner))

    def _let_go(self) -> None:
        """Keep alive no more what this thread and task hold by this object, if they do."""
        owner, task = self._held.pop(self._whose(), None), current_task.get()
        if owner is not None and task is not None:
            self._forget(task.id, owner)
        elif owner is not None and self._ttl is None:
            self._engine.heartbeat.drop(self._engine.process_name())

    def _whose(self) -> tuple[int, str | None]:
        task = current_task.get()
        return threading.get_ident(), None if task is None else task.id

    def is_locked(self) -> bool:
        """Does anybody hold it now?"""
        return any(lock.name == self.name for lock in self._engine.storage.locks(self._engine.clock.now()))

    def clear(self) -> bool:
        """Free it, whoever holds it; False if nobody did."""
        return bool(self._engine.storage.flush_locks([self.name]))

    def __enter__(self) -> Self:
        if not self.acquire():
            raise TaskLockedException(f"the lock {self.name!r} is taken")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, run under the lock; raises `TaskLockedException` instead if it is taken."""

        def anew() -> TaskLock:
            return TaskLock(self._engine, self.name, self._ttl)  # calls may overlap, and each holds its own

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def locked_async(*args: P.args, **kwargs: P.kwargs) -> object:
                with anew():
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", locked_async)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with anew():
                return function(*args, **kwargs)

        return locked
