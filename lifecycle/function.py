"""Task functions: decorated functions, whose calls are enqueued, scheduled, revoked, or run locally."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Generic, NoReturn, ParamSpec, TypeVar, overload

import attrs

from lifecycle.core.nodes import Place
from lifecycle.core.task import RetryPolicy, Task, new_id
from lifecycle.errors import ConfigurationError
from lifecycle.escaping import printable
from lifecycle.execution.callables import (
    TaskCallable,
    check_callable,
    import_name,
    is_async,
    origin_of,
    own_signature,
)
from lifecycle.execution.engine import Engine
from lifecycle.execution.registry import Function, register
from lifecycle.hints import METHOD_HINTS, known_option, refuses_unknown_options
from lifecycle.result import Result, new_revocation
from lifecycle.storage.base import RevocationTarget
from lifecycle.validation import (
    checked_priority,
    delay_seconds,
    duration,
    factor,
    instance,
    moment,
    refusal,
    split_expiry,
    text,
    time_limit,
    whole_number,
)

__all__ = ["Options", "TaskFunction", "name_of"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)  # noqa: PLC0105 -- one name for what a function returns

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@attrs.frozen
class Options:
    """The options of a function's tasks; the defaults of `TaskFunction.schedule`."""

    retries: int
    retry: RetryPolicy
    """Also has the expiry that counts from the moment when a task is due."""
    priority: int
    expires: float | None
    """Moment of the expiry (UTC seconds), for an expiry that is a fixed moment."""
    timeout: float | None
    """Seconds for one attempt; ``None``: no limit."""
    max_interruptions: int | None = None
    """How often a task is requeued whose worker has died; ``None``: the queue says."""


class TaskFunction(TaskCallable, Generic[P, R]):
    """A function of a queue: a call enqueues a task and returns its handle. Made by `TaskQueue.task`."""

    def __init__(
        self, engine: Engine, function: Callable[P, object], name: str, options: Options, *, context: bool
    ) -> None:
        """Register the function in its queue.

        Raises `ConfigurationError` for a function that no worker could call, and if another function has the name.
        """
        check_callable(function, "task", may_be_async=True)
        _refuse_method(function)
        origin = origin_of(function)
        signature = own_signature(function)
        functools.update_wrapper(self, function)
        self._engine, self.name, self.options, self._function = engine, name, options, function
        task_position = _task_position(signature, name) if context else None
        # The parameters for callers, who leave out the task.
        parameters = [p for p in signature.parameters.values() if not (context and p.name == "task")]
        self._signature = signature.replace(parameters=parameters)
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        # The numbers of arguments that fit if all are positional. Most calls are so, and need no look at the signature.
        positional_only = all(p in positional for p in required)
        self._fitting_counts = range(len(required), len(positional) + 1) if positional_only else range(0)
        names = tuple(p.name for p in positional)
        new = Function(
            name, function, context, is_async(function), names, task_position, origin, self._signature, options.retries
        )
        register(engine.functions, new)
        if options.max_interruptions is None:
            engine.interruption_limits.pop(name, None)
        else:
            engine.interruption_limits[name] = options.max_interruptions

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Result[R]:
        """Enqueue a call of the function, due at once, and return its handle.

        Raises `TypeError` if the arguments do not fit the function's parameters, and the errors of `TaskQueue.enqueue`.
        """
        task = self._make(args, kwargs)
        self._engine.enqueue((task,), checked=True)
        return Result(self._engine, task.id)

    @overload
    def s(self, /) -> Task: ...
    @overload
    def s(self, /, *args: P.args, **kwargs: P.kwargs) -> Task: ...
    def s(self, /, *args: object, **kwargs: object) -> Task:
        """Return a task for a call of the function, without enqueueing the task.

        Its fields may be changed until `TaskQueue.enqueue`. Arguments may be missing that a step of a workflow gets
        from the step before: `TaskQueue.enqueue` checks that. Raises `TypeError` for too many or unknown arguments.
        """
        is_partial = (kwargs or len(args) not in self._fitting_counts) and self._is_partial(args, kwargs)
        task = self._make(args, kwargs, checked=True)
        task.place = Place(self._engine, is_partial=is_partial)
        return task

    @refuses_unknown_options
    def schedule(
        self,
        args: Sequence[object] | datetime | timedelta | float | None = None,
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
        """Enqueue a call that starts at `eta`, or after `delay`, or at once; return its handle.

        Raises `TypeError` if the arguments do not fit, `ConfigurationError` for `eta` together with `delay` and for an
        invalid option, and the errors of `TaskQueue.enqueue`. Durations are seconds or a timedelta.

        :param args: the positional arguments, as a tuple or a list. Without `eta` and `delay` this may be the `eta` (a
            datetime) or the `delay` (a duration) instead: ``add.schedule(60)``.
        :param kwargs: the keyword arguments, as a mapping.
        :param eta: the earliest start; a naive datetime means local time.
        :param delay: time from now to the earliest start; a delay below 0 means at once, as an `eta` in the past does.
        :param priority: this option and all below replace the function's own options for this call.
        :param expires: a datetime after the `eta`, or the time from the moment when the task is due, and again from the
            moment when a retry is due.
        :param timeout: time that one attempt may take; 0: any time.
        :param id: the task's id, unique in the queue; default: a new id.
        """
        task = self.make(
            args, kwargs, eta, delay, priority=priority, retries=retries, retry_delay=retry_delay,
            retry_backoff=retry_backoff, expires=expires, timeout=timeout, id=id,
        )  # fmt: skip
        self._engine.enqueue((task,))
        return Result(self._engine, task.id)

    def make(  # noqa: C901, PLR0912 -- one line for each option
        self,
        args: Sequence[object] | datetime | timedelta | float | None = None,
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
    ) -> Task:
        """Return the task that `schedule` would enqueue, and raise the errors of its options; nothing is enqueued.

        As for `s`, arguments may be missing that a step of a workflow gets from the step before.
        """
        where = self.name
        if eta is not None and delay is not None:
            raise ConfigurationError(f"{where}: give eta or delay, not both")
        if isinstance(args, datetime | timedelta | int | float):  # the short form of Huey: schedule(60)
            if eta is not None or delay is not None:
                rule = f"is a second time: write schedule(({args!r},), …) if it is an argument of the function"
                raise refusal(args, "args", where, rule)
            args, eta, delay = (None, args, None) if isinstance(args, datetime) else (None, None, args)
        elif args is not None and not isinstance(args, tuple | list):
            raise refusal(args, "args", where, "must be a tuple or a list of the positional arguments, as in (1,)")
        if kwargs is not None:
            instance(kwargs, Mapping, "kwargs", f"must be a mapping of the keyword arguments of {where}")
        positional, by_name = tuple(args or ()), dict(kwargs or {})
        task = self._make(positional, by_name, None if id is None else text(id, "id", where), checked=True)
        is_partial = (by_name or len(positional) not in self._fitting_counts) and self._is_partial(positional, by_name)
        task.place = Place(self._engine, is_partial=bool(is_partial))
        if eta is not None:
            task.eta = moment(eta, "eta", where)
        elif delay is not None:
            task.eta = self._engine.clock.now() + delay_seconds(delay, "delay", where)
        if priority is not None:
            task.priority = checked_priority(priority, where)
        if retries is not None:
            task.retries = whole_number(retries, "retries", where)
        if retry_delay is not None:
            task.retry = attrs.evolve(task.retry, delay=duration(retry_delay, "retry_delay", where))
        if retry_backoff is not None:
            task.retry = attrs.evolve(task.retry, backoff=factor(retry_backoff, "retry_backoff", where))
        if expires is not None:
            task.expires, expires_after = split_expiry(expires, "expires", where)
            if expires_after != task.retry.expires_after:
                task.retry = attrs.evolve(task.retry, expires_after=expires_after)
        if timeout is not None:
            task.timeout = time_limit(timeout, "timeout", where)
        return task

    def map(self, calls: Iterable[object]) -> list[Result[R]]:
        """Enqueue a call for each item in one transaction, all or none, and return the handles.

        A tuple is the positional arguments of a call; any other item is the only argument. Raises the errors of a call.
        """
        if isinstance(calls, str | bytes | Mapping) or not isinstance(calls, Iterable):
            raise refusal(calls, "calls", self.name, "must be an iterable of calls, as in [(1, 2), (3, 4)]")
        tasks = [self._make(call if isinstance(call, tuple) else (call,), {}) for call in calls]
        self._engine.enqueue(tasks, checked=True)
        return [Result(self._engine, task.id) for task in tasks]

    def revoke(self, revoke_until: datetime | float | timedelta | None = None, revoke_once: bool = False) -> None:
        """Revoke the function: its tasks, present and future, become `revoked` instead of starting, until `restore`.

        Each task is revoked when it would start, not before.

        :param revoke_until: revoke only tasks that would start before this moment: a datetime, or a timedelta or
            seconds from now.
        :param revoke_once: revoke only the next task.
        """
        self._engine.revoke(self._target, new_revocation(self._engine, revoke_until, revoke_once))

    def restore(self) -> bool:
        """Take the revocation back; return False if there is none. Tasks in the state `revoked` stay `revoked`."""
        return self._engine.restore(self._target)

    def is_revoked(self) -> bool:
        """Return whether a task of this function that starts now would be revoked."""
        return self._engine.is_revoked(self._target)

    def call_local(self, /, *args: P.args, **kwargs: P.kwargs) -> object:
        """Call the plain function here, without a task; return its value (a coroutine if the function is `async`)."""
        return self._function(*args, **kwargs)

    @property
    def _target(self) -> RevocationTarget:
        return RevocationTarget(function=True, key=self.name)

    @property
    def _short_name(self) -> str:
        return getattr(self._function, "__name__", self.name)

    def _make(
        self, args: tuple[object, ...], kwargs: dict[str, object], task_id: str | None = None, *, checked: bool = False
    ) -> Task:
        if not checked and (kwargs or len(args) not in self._fitting_counts):
            self._check_arguments(args, kwargs)
        options = self.options
        return Task(  # by position as far as possible: a keyword costs as much as two arguments
            task_id or new_id(self._engine.clock.now()), self.name, b"", None, None, options.expires,
            options.priority, options.retries, options.retry, options.timeout, call=(args, kwargs),
        )  # fmt: skip

    def _is_partial(self, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
        """Return whether arguments are missing. Raises `TypeError` if there are too many, or unknown ones."""
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError:
            self._check_arguments(args, kwargs, self._signature.bind_partial)
            return True
        return False

    def _check_arguments(
        self, args: tuple[object, ...], kwargs: dict[str, object], bind: Callable[..., object] | None = None
    ) -> None:
        """Raise the `TypeError` of a plain call if the arguments do not fit: in the caller, not later in a worker."""
        try:
            (bind or self._signature.bind)(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}{self._hint(kwargs)}") from None

    def _hint(self, kwargs: dict[str, object]) -> str:
        """Return a hint for an option of `schedule` among the arguments of a plain call."""
        options = list(inspect.signature(self.schedule).parameters)[2:]
        for name in kwargs:
            if name not in self._signature.parameters and (option := known_option(name, options)) is not None:
                return f"; for options of one call write {self._short_name}.schedule(args, kwargs, {option}=…)"
        return ""

    if not TYPE_CHECKING:  # a type checker would take every attribute for one that exists

        def __getattr__(self, name: str) -> NoReturn:
            """Raise `AttributeError`; for the name of another task queue's method with a hint."""
            hint = METHOD_HINTS.get(name)
            more = "" if hint is None else f": {hint.format(self._short_name)}"
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{more}", name=name, obj=self)

    def __repr__(self) -> str:
        return f"<task function {printable(self.name)}>"


def name_of(function: Callable[..., object]) -> str:
    """Return the default name of a function in its queue: the name of its module and its qualified name.

    For a module that runs as a program (``__main__``) the name of its file is used, as in a consumer. Raises
    `ConfigurationError` for a callable without a name.
    """
    if not hasattr(function, "__qualname__"):
        raise ConfigurationError(f"{function!r} has no name: give it one with task(name=…)")
    return f"{import_name(function.__module__)}.{function.__qualname__}"


def _refuse_method(function: Callable[..., object]) -> None:
    """Raise `ConfigurationError` for a method that is declared in its class: a worker has no object to call it on."""
    within = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not within or within.endswith("<locals>") or inspect.ismethod(function):
        return
    first = next(iter(inspect.signature(function).parameters), None)  # the method's, if a decorator wraps it
    if first in ("self", "cls"):
        raise ConfigurationError(
            f"task={origin_of(function)}: must be no method, since a worker has no object to call it on; make it a "
            "function, or put @staticmethod below @queue.task() and pass the values that it needs"
        )


def _task_position(signature: inspect.Signature, name: str) -> int | None:
    """Return the position of the parameter ``task``; ``None`` if the task is passed as a keyword argument.

    Raises `ConfigurationError` for a function without such a parameter.
    """
    parameters = list(signature.parameters.values())
    for position, parameter in enumerate(parameters):
        if parameter.name == "task" and parameter.kind in _POSITIONAL:
            return position
    if any(p.kind is p.VAR_KEYWORD or (p.name == "task" and p.kind is p.KEYWORD_ONLY) for p in parameters):
        return None
    raise ConfigurationError(f"{name}: context=True needs a parameter named task; add one to the function")
