"""Limits of the number of runs in a window of time, shared by all processes of the store."""

import functools
import math
import os
from collections.abc import Callable
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

from lifecycle.errors import ConfigurationError, RateLimitExceeded
from lifecycle.execution.callables import check_callable, own_signature, task_function_in
from lifecycle.execution.engine import Engine
from lifecycle.locks import reserved_name
from lifecycle.storage.base import Lock

__all__ = ["RateLimit"]

P = ParamSpec("P")
R = TypeVar("R")

_KIND: Final = "limit"


class RateLimit:
    """A limit of runs in fixed windows of time: a context manager and a decorator. Made by `Huey.rate_limit`.

    Each run takes one of the window's places, an entry in the store's table of locks that ends with the window.
    """

    def __init__(self, engine: Engine, name: str, limit: int, per: float, *, retry: bool) -> None:
        """`limit`: runs in a window of `per` seconds; `retry`: try a task again in the next window, at no cost."""
        self._engine, self.name, self._limit, self._per, self._retry = engine, name, limit, per, retry

    def acquire(self) -> None:
        """Take a place in this window. Raises `RateLimitExceeded` if none is free."""
        now = self._engine.clock.now()
        end = (math.floor(now / self._per) + 1) * self._per
        taken, owner = self._taken(now), os.urandom(12).hex()
        for place in range(self._limit):
            name = self._place(place)
            if name not in taken and self._engine.storage.lock(Lock(name, owner, end), now):
                return
        raise RateLimitExceeded(self.name, end - now, self._retry)

    def current_usage(self) -> int:
        """Return the number of places that are taken in this window."""
        return len(self._taken(self._engine.clock.now()))

    def reset(self) -> None:
        """Free all places of this window."""
        self._engine.storage.flush_locks(self._taken(self._engine.clock.now()))

    def _taken(self, now: float) -> set[str]:
        prefix = self._place("")
        return {lock.name for lock in self._engine.storage.locks(now) if lock.name.startswith(prefix)}

    def _place(self, number: object) -> str:
        return reserved_name(_KIND, f"{self.name}\x1f{number}")

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep the place: it counts until the window ends."""

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return a function that takes a place before each call.

        Raises `ConfigurationError` for a task, since that would limit the enqueueing and not the run.
        """
        if task_function_in(function) is not None:
            raise ConfigurationError(
                f"rate_limit({self.name!r}): decorates a task already, and would limit the enqueueing; put "
                "@huey.rate_limit below @huey.task()"
            )
        check_callable(function, "function")

        @functools.wraps(function)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            self.acquire()
            return function(*args, **kwargs)

        limited.__signature__ = own_signature(function).replace()  # type: ignore[attr-defined]
        return limited
