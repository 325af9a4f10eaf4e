"""The part of `TaskQueue` with which a program declares: tasks, signal handlers and hooks."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from lifecycle.core.task import NO_DELAY, RetryPolicy
from lifecycle.errors import ConfigurationError
from lifecycle.execution.engine import Engine
from lifecycle.execution.signals import Handler, check_signals
from lifecycle.function import Options, TaskFunction, name_of
from lifecycle.validation import checked_priority, due_at, duration, number, whole_number

__all__ = ["Decorators"]

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=Handler)


class _TaskDecorator(Protocol):
    """Turns a function, plain or `async`, into a `TaskFunction` with the same parameters."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...


class _ContextTaskDecorator(Protocol):
    """Turns a function into a `TaskFunction` that may have other parameters: one argument is added at each run."""

    @overload
    def __call__(self, function: Callable[..., Awaitable[R]], /) -> TaskFunction[..., R]: ...
    @overload
    def __call__(self, function: Callable[..., R], /) -> TaskFunction[..., R]: ...


class Decorators:
    """Base class of `TaskQueue`: the decorators, and the methods that take handlers and hooks off again."""

    _engine: Engine

    # Tasks ---------------------------------------------------------------------------------------------------------

    def task(
        self,
        retries: int = 0,
        retry_delay: float | timedelta = 0,
        retry_backoff: float = 0,
        priority: int | None = None,
        expires: datetime | timedelta | float | None = None,
        timeout: float | timedelta | None = None,
        context: bool = False,
        name: str | None = None,
        *,
        retry_max_delay: float | timedelta = 86_400.0,
        retry_jitter: float = 0.0,
    ) -> _TaskDecorator:
        """Return a decorator that makes a function a `TaskFunction`: each call of the function enqueues a task.

        Raises `ConfigurationError`, here for an invalid option, and at the function if its name is in use. Durations
        are seconds or a timedelta.

        :param retries: the number of further attempts after an attempt that did not complete.
        :param retry_delay: time before the first retry.
        :param retry_backoff: factor by which each delay is longer than the delay before; with 0 or 1 all are equal.
        :param retry_max_delay: the longest delay before a retry, jitter included.
        :param retry_jitter: share of the delay, from 0 to 1: a random time up to this share is added.
        :param priority: tasks of a higher priority start first; default: 0.
        :param expires: time after the call, or a datetime, from which on the task does not start any more.
        :param timeout: time that one attempt may take.
        :param context: pass a copy of the task to the function, as the argument ``task``.
        :param name: the function's name in the queue; default: its module and its qualified name.
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
        due_at(expires, 0.0, "expires")  # an invalid value raises here, not only at the first call

        def decorate(function: Callable[..., object]) -> TaskFunction[..., object]:
            if not callable(function):
                raise ConfigurationError(f"task() decorates a function, not {function!r}: write @queue.task()")
            return TaskFunction(self._engine, function, name or name_of(function), options, context=context)

        return decorate  # type: ignore[return-value]  # both overloads of _TaskDecorator

    def context_task(
        self,
        obj: AbstractContextManager[object],
        as_argument: bool = False,
        *,
        retries: int = 0,
        retry_delay: float | timedelta = 0,
        retry_backoff: float = 0,
        priority: int | None = None,
        expires: datetime | timedelta | float | None = None,
        timeout: float | timedelta | None = None,
        name: str | None = None,
        retry_max_delay: float | timedelta = 86_400.0,
        retry_jitter: float = 0.0,
    ) -> _ContextTaskDecorator:
        """Return a decorator like `task` whose function runs inside ``with obj``.

        The other options are those of `task`.

        :param obj: a context manager that can be entered many times; by several threads at once if workers are threads.
        :param as_argument: pass the value of ``with obj as value`` to the function as its first argument, which
            callers leave out.
        """
        decorate = self.task(
            retries, retry_delay, retry_backoff, priority, expires, timeout, name=name,
            retry_max_delay=retry_max_delay, retry_jitter=retry_jitter,
        )  # fmt: skip

        def wrap(function: Callable[..., R]) -> TaskFunction[..., R]:
            @functools.wraps(function)
            def in_context(*args: object, **kwargs: object) -> R:
                with obj as value:
                    return function(value, *args, **kwargs) if as_argument else function(*args, **kwargs)

            @functools.wraps(function)
            async def in_context_async(*args: object, **kwargs: object) -> object:
                with obj as value:
                    call = function(value, *args, **kwargs) if as_argument else function(*args, **kwargs)
                    return await call  # type: ignore[misc]  # R is awaitable here

            wrapper: Callable[..., Any] = in_context_async if inspect.iscoroutinefunction(function) else in_context
            if as_argument:  # callers leave out the first parameter
                signature = inspect.signature(function)
                parameters = list(signature.parameters.values())[1:]
                wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
            return cast("TaskFunction[..., R]", decorate(wrapper))

        return cast(_ContextTaskDecorator, wrap)

    # Signals -------------------------------------------------------------------------------------------------------

    def signal(self, *signals: str) -> Callable[[H], H]:
        """Return a decorator that connects a handler to these signals, or to all signals if none is named.

        The handler is called after the task's new state is stored, in the process that stored the state: as
        ``handler(signal, task)``, and for `SIGNAL_ERROR` as ``handler(signal, task, exc)``. Its return value is
        ignored; an exception from a handler is logged and stops neither the task nor the other handlers.

        Raises `UnknownSignal`.
        """

        def connect(handler: H) -> H:
            self._engine.signals.connect(handler, signals)
            return handler

        check_signals(signals)  # a misspelt name raises where the name stands, not below at the function
        return connect

    def disconnect_signal(self, handler: Handler, *signals: str) -> None:
        """Disconnect a handler from these signals, or from all signals if none is named.

        A handler that is not connected is no error. Raises `UnknownSignal`.
        """
        self._engine.signals.disconnect(handler, signals)

    # Hooks ---------------------------------------------------------------------------------------------------------

    def pre_execute(self, name: str | None = None) -> Callable[[H], H]:
        """Return a decorator that registers ``hook(task)``, called before each task's function.

        The hook may raise `CancelExecution`: the task ends `canceled`, and its function is not called. Any other
        exception is logged, and the task runs.

        :param name: the hook's name; default: its qualified name. A hook of the same name is replaced.
        """
        return self._engine.hooks.register("pre_execute", name)

    def post_execute(self, name: str | None = None) -> Callable[[H], H]:
        """Return a decorator that registers ``hook(task, value, exc)``, called after each task's function.

        `exc` is ``None`` if the function returned `value`; `value` is ``None`` if the function raised `exc`. An
        exception from the hook is logged, and the task's outcome stays.

        :param name: the hook's name; default: its qualified name. A hook of the same name is replaced.
        """
        return self._engine.hooks.register("post_execute", name)

    def on_startup(self, name: str | None = None) -> Callable[[H], H]:
        """Return a decorator that registers ``hook()``, called in each worker of a consumer before its first task.

        :param name: the hook's name; default: its qualified name. A hook of the same name is replaced.
        """
        return self._engine.hooks.register("on_startup", name)

    def on_shutdown(self, name: str | None = None) -> Callable[[H], H]:
        """Return a decorator that registers ``hook()``, called in each worker of a consumer after its last task.

        Not called in a worker that is killed.

        :param name: the hook's name; default: its qualified name. A hook of the same name is replaced.
        """
        return self._engine.hooks.register("on_shutdown", name)

    def unregister_pre_execute(self, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given as the function or its name; return False if the hook is not registered."""
        return self._engine.hooks.unregister("pre_execute", hook)

    def unregister_post_execute(self, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given as the function or its name; return False if the hook is not registered."""
        return self._engine.hooks.unregister("post_execute", hook)

    def unregister_on_startup(self, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given as the function or its name; return False if the hook is not registered."""
        return self._engine.hooks.unregister("on_startup", hook)

    def unregister_on_shutdown(self, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given as the function or its name; return False if the hook is not registered."""
        return self._engine.hooks.unregister("on_shutdown", hook)
