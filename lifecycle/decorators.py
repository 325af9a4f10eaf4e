"""The part of `TaskQueue` with which a program declares: tasks, signal handlers and hooks."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, _GeneratorContextManager
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from lifecycle.core.task import NO_DELAY, RetryPolicy
from lifecycle.errors import ConfigurationError
from lifecycle.execution.callables import check_callable, is_async, origin_of, own_signature
from lifecycle.execution.engine import Engine
from lifecycle.execution.signals import Handler, check_signals
from lifecycle.function import Options, TaskFunction, name_of
from lifecycle.hints import refuses_unknown_options
from lifecycle.validation import (
    checked_priority,
    duration,
    factor,
    flag,
    number,
    refusal,
    split_expiry,
    text,
    time_limit,
    whole_number,
)

__all__ = ["Decorators"]

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=Handler)

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL,
)  # fmt: skip


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

    @overload
    def task(self, function: Callable[P, Awaitable[R]], /) -> TaskFunction[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...
    @overload
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
        max_interruptions: int | None = None,
    ) -> _TaskDecorator: ...
    @refuses_unknown_options
    def task(
        self,
        retries: int | Callable[..., object] = 0,
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
        max_interruptions: int | None = None,
    ) -> TaskFunction[..., object] | _TaskDecorator:
        """Return a decorator that makes a function a `TaskFunction`: each call of the function enqueues a task.

        With all options at their defaults, ``@queue.task`` is enough. Durations are seconds or a timedelta.

        Raises `ConfigurationError`: here for an invalid option, and at the function if its name is in use by another
        function, and if the function is a generator, a method or a task already.

        :param retries: the number of further attempts after an attempt that did not complete.
        :param retry_delay: time before the first retry.
        :param retry_backoff: factor, 1 or more, by which each delay is longer than the delay before; with 0 or 1 all
            are equal.
        :param retry_max_delay: the longest delay before a retry, jitter included.
        :param retry_jitter: share of the delay, from 0 to 1: a random time up to this share is added.
        :param priority: tasks of a higher priority start first; default: 0.
        :param expires: a datetime, or a time from the moment when the task is due: from then on the task does not start
            any more. The time counts from a call, from the call's ETA, and again for each retry.
        :param timeout: time that one attempt may take; ``None`` and 0: any time.
        :param max_interruptions: how often a task whose worker has died is requeued, before it rests `interrupted`;
            default: as the queue says.
        :param context: pass a copy of the task to the function, as the argument ``task``.
        :param name: the function's name in the queue; default: its module and its qualified name.
        """
        if callable(retries):  # @queue.task, without parentheses
            return cast("TaskFunction[..., object]", self.task()(retries))
        if isinstance(retries, str):
            raise ConfigurationError(f"retries={retries!r}: must be a whole number; a name is given as task(name=…)")
        moment, expires_after = (None, None) if expires is None else split_expiry(expires, "expires")
        if expires_after == 0:
            raise refusal(expires, "expires", None, "must be greater than 0 seconds, or no task can ever run")
        flag(context, "context")
        checked_name = None if name is None else text(name, "name")
        policy = RetryPolicy(
            duration(retry_delay, "retry_delay"),
            factor(retry_backoff, "retry_backoff"),
            duration(retry_max_delay, "retry_max_delay"),
            number(retry_jitter, "retry_jitter", at_most=1),
            expires_after,
        )
        options = Options(
            whole_number(retries, "retries"),
            NO_DELAY if policy == NO_DELAY else policy,
            0 if priority is None else checked_priority(priority),
            moment,
            time_limit(timeout, "timeout"),
            None if max_interruptions is None else whole_number(max_interruptions, "max_interruptions"),
        )

        def decorate(function: Callable[..., object]) -> TaskFunction[..., object]:
            check_callable(function, "task", may_be_async=True)
            own_name = checked_name or text(name_of(function), "name")
            return TaskFunction(self._engine, function, own_name, options, context=context)

        return cast(_TaskDecorator, decorate)

    @refuses_unknown_options
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
        max_interruptions: int | None = None,
    ) -> _ContextTaskDecorator:
        """Return a decorator like `task` whose function runs inside ``with obj``.

        The other options are those of `task`, and so are the errors.

        :param obj: a context manager that can be entered many times; by several threads at once if workers are threads.
            An object made by `contextlib.contextmanager` can be entered once, and is refused.
        :param as_argument: pass the value of ``with obj as value`` to the function as its first argument, which
            callers leave out.
        """
        _check_context_manager(obj)
        flag(as_argument, "as_argument")
        decorate = self.task(
            retries, retry_delay, retry_backoff, priority, expires, timeout, name=name,
            retry_max_delay=retry_max_delay, retry_jitter=retry_jitter, max_interruptions=max_interruptions,
        )  # fmt: skip

        def wrap(function: Callable[..., R]) -> TaskFunction[..., R]:
            check_callable(function, "task", may_be_async=True)

            @functools.wraps(function)
            def in_context(*args: object, **kwargs: object) -> R:
                with obj as value:
                    return function(value, *args, **kwargs) if as_argument else function(*args, **kwargs)

            @functools.wraps(function)
            async def in_context_async(*args: object, **kwargs: object) -> object:
                with obj as value:
                    call = function(value, *args, **kwargs) if as_argument else function(*args, **kwargs)
                    return await call  # type: ignore[misc]  # R is awaitable here

            wrapper: Callable[..., Any] = in_context_async if is_async(function) else in_context
            signature = own_signature(function)
            parameters = list(signature.parameters.values())
            if as_argument and (not parameters or parameters[0].kind not in _POSITIONAL):
                raise ConfigurationError(
                    f"task={origin_of(function)}: must take the value of the context manager as its first argument, "
                    f"since as_argument=True, not {signature}"
                )
            taken = as_argument and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL
            wrapper.__signature__ = signature.replace(parameters=parameters[taken:])  # type: ignore[attr-defined]
            return cast("TaskFunction[..., R]", decorate(wrapper))

        return cast(_ContextTaskDecorator, wrap)

    # Signals -------------------------------------------------------------------------------------------------------

    @overload
    def signal(self, handler: H, /) -> H: ...
    @overload
    def signal(self, *signals: str) -> Callable[[H], H]: ...
    def signal(self, *signals: str | H) -> H | Callable[[H], H]:
        """Return a decorator that connects a handler to these signals, or to all signals if none is named.

        ``@queue.signal`` without parentheses connects the handler to all signals. The handler is called after the
        task's new state is stored, in the process that stored the state: as ``handler(signal, task)``, and for
        `SIGNAL_ERROR` as ``handler(signal, task, exc)``. Its return value is ignored; an exception from a handler is
        logged and stops neither the task nor the other handlers.

        Raises `UnknownSignal`, and `ConfigurationError` for a handler that is `async` or that takes other arguments.
        """
        if len(signals) == 1 and callable(signals[0]):
            return self.signal()(signals[0])
        names = check_signals(cast("tuple[str, ...]", signals))  # a misspelt name raises here, not at the function

        def connect(handler: H) -> H:
            self._engine.signals.connect(handler, names)
            return handler

        return connect

    def disconnect_signal(self, handler: Handler, *signals: str) -> None:
        """Disconnect a handler from these signals, or from all signals if none is named.

        A handler that is not connected is no error. Raises `UnknownSignal`.
        """
        self._engine.signals.disconnect(handler, signals)

    # Hooks ---------------------------------------------------------------------------------------------------------

    @overload
    def pre_execute(self, hook: H, /) -> H: ...
    @overload
    def pre_execute(self, name: str | None = None) -> Callable[[H], H]: ...
    def pre_execute(self, name: str | H | None = None) -> H | Callable[[H], H]:
        """Return a decorator that registers ``hook(task)``, called before each task's function.

        The hook may raise `CancelExecution`: the task ends `canceled`, and its function is not called. Any other
        exception is logged, and the task runs.

        Raises `ConfigurationError` for a hook that is `async` or that takes other arguments, and for a name in use.

        :param name: the hook's name, for `unregister_pre_execute`; default: its module and qualified name.
        """
        return self._hook("pre_execute", name)

    @overload
    def post_execute(self, hook: H, /) -> H: ...
    @overload
    def post_execute(self, name: str | None = None) -> Callable[[H], H]: ...
    def post_execute(self, name: str | H | None = None) -> H | Callable[[H], H]:
        """Return a decorator that registers ``hook(task, value, exc)``, called after each task's function.

        `exc` is ``None`` if the function returned `value`; `value` is ``None`` if the function raised `exc`. An
        exception from the hook is logged, and the task's outcome stays.

        Raises `ConfigurationError` for a hook that is `async` or that takes other arguments, and for a name in use.

        :param name: the hook's name, for `unregister_post_execute`; default: its module and qualified name.
        """
        return self._hook("post_execute", name)

    @overload
    def on_startup(self, hook: H, /) -> H: ...
    @overload
    def on_startup(self, name: str | None = None) -> Callable[[H], H]: ...
    def on_startup(self, name: str | H | None = None) -> H | Callable[[H], H]:
        """Return a decorator that registers ``hook()``, called in each worker of a consumer before its first task.

        An `async` hook is awaited in the worker's event loop.

        Raises `ConfigurationError` for a hook that takes arguments, and for a name in use.

        :param name: the hook's name, for `unregister_on_startup`; default: its module and qualified name.
        """
        return self._hook("on_startup", name)

    @overload
    def on_shutdown(self, hook: H, /) -> H: ...
    @overload
    def on_shutdown(self, name: str | None = None) -> Callable[[H], H]: ...
    def on_shutdown(self, name: str | H | None = None) -> H | Callable[[H], H]:
        """Return a decorator that registers ``hook()``, called in each worker of a consumer after its last task.

        An `async` hook is awaited in the worker's event loop. Not called in a worker that is killed.

        Raises `ConfigurationError` for a hook that takes arguments, and for a name in use.

        :param name: the hook's name, for `unregister_on_shutdown`; default: its module and qualified name.
        """
        return self._hook("on_shutdown", name)

    def _hook(self, kind: str, name: str | H | None) -> H | Callable[[H], H]:
        if name is None or isinstance(name, str):
            return self._engine.hooks.register(kind, None if name is None else text(name, "name"))
        hook = name  # the decorator stands without parentheses
        return self._engine.hooks.register(kind, None)(hook)

    def unregister_pre_execute(self, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given as the function or its name; return False if the hook is not registered.

        The last part of the name is enough. Raises `ConfigurationError` if several hooks have the name.
        """
        return self._engine.hooks.unregister("pre_execute", hook)

    def unregister_post_execute(self, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given as the function or its name; return False if the hook is not registered.

        The last part of the name is enough. Raises `ConfigurationError` if several hooks have the name.
        """
        return self._engine.hooks.unregister("post_execute", hook)

    def unregister_on_startup(self, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given as the function or its name; return False if the hook is not registered.

        The last part of the name is enough. Raises `ConfigurationError` if several hooks have the name.
        """
        return self._engine.hooks.unregister("on_startup", hook)

    def unregister_on_shutdown(self, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given as the function or its name; return False if the hook is not registered.

        The last part of the name is enough. Raises `ConfigurationError` if several hooks have the name.
        """
        return self._engine.hooks.unregister("on_shutdown", hook)


def _check_context_manager(obj: object) -> None:
    """Raise `ConfigurationError` for an object that cannot be entered with ``with``, or only once."""
    if isinstance(obj, _GeneratorContextManager):
        raise ConfigurationError(
            f"obj={obj!r}: must be a context manager that can be entered for each task; one made by contextmanager can "
            "be entered once: use a with statement in the function, or a class with __enter__ and __exit__"
        )
    if not (hasattr(type(obj), "__enter__") and hasattr(type(obj), "__exit__")):
        raise ConfigurationError(f"obj={obj!r}: must be a context manager, an object with __enter__ and __exit__")
