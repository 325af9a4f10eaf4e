"""What a decorated function offers: call it, schedule it, revoke it, or run it here."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar

import attrs

from lifecycle.core.policies import Revocation
from lifecycle.core.task import RetryPolicy, Task, new_id
from lifecycle.errors import ConfigurationError
from lifecycle.execution.engine import Engine
from lifecycle.execution.registry import Function
from lifecycle.moments import due_at, duration, moment, number
from lifecycle.result import Result
from lifecycle.storage.base import RevocationTarget

__all__ = ["Options", "TaskFunction", "name_of"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)  # noqa: PLC0105 -- one name for what a function returns

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@attrs.frozen
class Options:
    """How the tasks of a function are treated, unless one of them says otherwise."""

    retries: int
    retry: RetryPolicy
    priority: int
    expires: datetime | timedelta | float | None
    """Seconds and a timedelta count from the call."""
    timeout: float | None
    """Seconds."""


class TaskFunction(Generic[P, R]):
    """A function whose calls become tasks. `call_local` is the plain function."""

    def __init__(
        self, engine: Engine, function: Callable[P, object], name: str, options: Options, *, context: bool
    ) -> None:
        """Registers the function in its queue; raises `ConfigurationError` if the name is another function's."""
        functools.update_wrapper(self, function)
        self._engine, self.name, self.options, self._function = engine, name, options, function
        signature = _signature(function)
        place = _place(signature, name) if context else None
        # What callers see: the task is not theirs to pass.
        parameters = [p for p in signature.parameters.values() if not (context and p.name == "task")]
        self._signature = signature.replace(parameters=parameters)
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        # How many positional arguments fit without a look at the signature; most calls are of this kind.
        simple = all(p in positional for p in required)
        self._fits = range(len([p for p in required if p in positional]), len(positional) + 1) if simple else range(0)
        known = engine.functions.get(name)
        if known is not None and _origin(known.call) != _origin(function):
            raise ConfigurationError(
                f"two functions are named {name!r}, {_origin(known.call)} and {_origin(function)}: give one a name="
            )
        names = tuple(p.name for p in positional)
        is_async = inspect.iscoroutinefunction(function)
        engine.functions[name] = Function(name, function, context, is_async, names, place)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result[R]:
        """Enqueue a call of the function, due at once; raises `TypeError` if the arguments do not fit it."""
        return self._enqueue(self._make(args, kwargs))

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """The task of such a call, not enqueued yet; its fields may still be changed (`TaskQueue.enqueue`)."""
        return self._make(args, kwargs)

    def schedule(  # noqa: C901 -- one line for each option
        self,
        args: Iterable[object] | datetime | timedelta | float | None = None,
        kwargs: Mapping[str, object] | None = None,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        *,
        priority: int | None = None,
        retries: int | None = None,
        retry_delay: float | timedelta | None = None,
        retry_backoff: float | None = None,
        expires: datetime | timedelta | float | None = None,
        timeout: float | timedelta | None = None,
        id: str | None = None,  # noqa: A002 -- Huey's name, kept
    ) -> Result[R]:
        """Enqueue a call for later, at `eta` or after `delay` seconds, and with options of its own.

        Options that are ``None`` are the function's. With neither `eta` nor `delay` the task is due at once; a time in
        the place of `args` is one or the other. Raises `ConfigurationError` if both are given, or an option cannot be.
        """
        if isinstance(args, int | float | timedelta):  # as Huey has it: schedule(60)
            args, delay = None, args
        elif isinstance(args, datetime):
            args, eta = None, args
        if eta is not None and delay is not None:
            raise ConfigurationError(f"{self.name}: give eta or delay, not both")
        task = self._make(tuple(args or ()), dict(kwargs or {}), id)
        if eta is not None:
            task.eta = moment(eta, "eta")
        elif delay is not None:
            task.eta = self._engine.clock.now() + duration(delay, "delay")
        if priority is not None:
            task.priority = priority
        if retries is not None:
            task.retries = retries
        if retry_delay is not None:
            task.retry = attrs.evolve(task.retry, delay=duration(retry_delay, "retry_delay"))
        if retry_backoff is not None:
            task.retry = attrs.evolve(task.retry, backoff=number(retry_backoff, "retry_backoff"))
        if expires is not None:
            task.expires = due_at(expires, self._engine.clock.now(), "expires")
        if timeout is not None:
            task.timeout = duration(timeout, "timeout")
        return self._enqueue(task)

    def map(self, calls: Iterable[object]) -> list[Result[R]]:
        """Enqueue a call for each item, all or none: a tuple is its arguments, anything else its only argument."""
        tasks = [self._make(call if isinstance(call, tuple) else (call,), {}) for call in calls]
        self._engine.enqueue(tasks)
        return [Result(self._engine, task.id) for task in tasks]

    def revoke(self, revoke_until: datetime | float | timedelta | None = None, revoke_once: bool = False) -> None:
        """Run no task of this function: for good, until a moment (or seconds from now), or just not the next."""
        until = due_at(revoke_until, self._engine.clock.now(), "revoke_until")
        self._engine.revoke(self._target, Revocation(until, revoke_once))

    def restore(self) -> bool:
        """Take the revocation back; False if there was none. Tasks that it stopped already stay `revoked`."""
        return self._engine.restore(self._target)

    def is_revoked(self) -> bool:
        """Would a task of this function be stopped now?"""
        return self._engine.is_revoked(self._target)

    def call_local(self, *args: P.args, **kwargs: P.kwargs) -> object:
        """Call the plain function here and now, with no task; what it returns (a coroutine, if it is `async`)."""
        return self._function(*args, **kwargs)

    @property
    def _target(self) -> RevocationTarget:
        return RevocationTarget(function=True, key=self.name)

    def _enqueue(self, task: Task) -> Result[R]:
        self._engine.enqueue((task,))
        return Result(self._engine, task.id)

    def _make(self, args: tuple[object, ...], kwargs: dict[str, object], task_id: str | None = None) -> Task:
        if kwargs or len(args) not in self._fits:
            self._check(args, kwargs)
        options, now = self.options, self._engine.clock.now()
        return Task(
            task_id or new_id(now),
            self.name,
            expires=due_at(options.expires, now, "expires"),
            priority=options.priority,
            retries=options.retries,
            retry=options.retry,
            timeout=options.timeout,
            call=(args, kwargs),
        )

    def _check(self, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Raise `TypeError`, as a call would, if the arguments do not fit: here, not later in some worker."""
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None

    def __repr__(self) -> str:
        return f"<task function {self.name}>"


def name_of(function: Callable[..., object]) -> str:
    """The name of a function's tasks: its module and its own.

    A module that runs as a program is called ``__main__`` there, but by its file's name in a consumer.
    """
    if not hasattr(function, "__qualname__"):
        raise ConfigurationError(f"{function!r} has no name of its own: give it one, task(name=…)")
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else module
    return f"{module}.{function.__qualname__}"


def _signature(function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:  # some builtins tell nobody: anything may fit
        kinds = {"args": inspect.Parameter.VAR_POSITIONAL, "kwargs": inspect.Parameter.VAR_KEYWORD}
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds.items()])


def _place(signature: inspect.Signature, name: str) -> int | None:
    """Where the task goes in a function that wants it; raises `ConfigurationError` if it has no place."""
    parameters = list(signature.parameters.values())
    for place, parameter in enumerate(parameters):
        if parameter.name == "task" and parameter.kind in _POSITIONAL:
            return place
    if any(p.kind is p.VAR_KEYWORD or (p.name == "task" and p.kind is p.KEYWORD_ONLY) for p in parameters):
        return None
    raise ConfigurationError(f"{name}: context=True passes the task as an argument named task; it has none")


def _origin(function: Callable[..., object]) -> tuple[str, str]:
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
