"""One attempt of a task: hooks, arguments, the function's end as an outcome of the table. The same for every runner."""

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from copy import copy
from functools import partial
from typing import Final, cast

from lifecycle.core.policies import Outcome
from lifecycle.core.table import CANCEL, COMPLETE, FAIL, INTERRUPT, LIFECYCLE, LOCK_OUT, RATE_LIMIT, RETRY, TIME_OUT
from lifecycle.core.task import Task
from lifecycle.errors import (
    CancelExecution,
    RateLimitExceeded,
    RetryTask,
    StorageError,
    TaskCanceled,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
    UnknownTask,
    Unserializable,
)
from lifecycle.execution.engine import Engine
from lifecycle.execution.registry import Function
from lifecycle.execution.stored_result import pack_error, pack_value
from lifecycle.moments import duration, moment

__all__ = ["Arguments", "attempt", "call_post_hooks", "check_canceled", "current_task", "outcome_of_error"]

log = logging.getLogger("lifecycle.worker")

Arguments = tuple[tuple[object, ...], dict[str, object]]
"""Positional and keyword arguments."""

current_task: ContextVar[Task | None] = ContextVar("current_task", default=None)
"""The task that runs in this context; ``None`` outside of one."""

_TRIGGERS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (RetryTask, RETRY),
    (TaskTimeout, TIME_OUT),
    (TaskLockedException, LOCK_OUT),
    (RateLimitExceeded, RATE_LIMIT),
    (CancelExecution, CANCEL),
    (TaskInterrupted, INTERRUPT),
    (KeyboardInterrupt, INTERRUPT),
    (BaseException, FAIL),  # SystemExit included: a task that calls exit() has failed, its worker has not
)
"""The trigger of an exception that leaves a function: the first that fits."""


def check_canceled() -> None:
    """Raise `TaskCanceled` if the running task was canceled: see `Task.check_canceled`. Outside a task: nothing."""
    task = current_task.get()
    if task is not None and task.canceling:
        raise TaskCanceled


async def attempt(
    engine: Engine,
    task: Task,
    call: Callable[[Function, Arguments], object],
    disarm: Callable[[], object],
    *,
    awaits: bool = False,
) -> tuple[object, Outcome, BaseException | None]:
    """Make one attempt; return the function's value, the outcome, and the exception that the function raised.

    Calls the pre-execute hooks, and gives back the locks that the function has left taken. `call`: calls the function;
    exceptions may be raised in it from outside. `disarm`: called when `call` has raised: from then on, none may come.
    `awaits`: `call` returns an awaitable; without it, this coroutine never suspends.
    Raises only an exception from outside that came before that.
    """
    value: object = None
    error: BaseException | None = None
    try:
        try:
            function, arguments = _prepare(engine, task)
            value = call(function, arguments)
            if awaits:
                value = await cast("Awaitable[object]", value)
            outcome = _completed(engine, task, value)
        finally:
            if task.id in engine.held_locks:
                _release_locks(engine, task)
    except BaseException as failure:  # noqa: BLE001 -- whatever a task raises is its outcome, not ours
        disarm()
        outcome, error = outcome_of_error(task, failure)
    return value, outcome, error


def call_post_hooks(engine: Engine, task: Task, value: object, error: BaseException | None) -> None:
    """Call the post-execute hooks after an attempt; a hook that raises an `Exception` is logged."""
    for name, hook in engine.hooks.post_execute.items():
        try:
            hook(copy(task), value, error)
        except Exception:
            log.exception("post-execute hook %s raised after %s; its outcome stands", name, task)


def outcome_of_error(task: Task, error: BaseException) -> tuple[Outcome, BaseException]:
    """Return the outcome of an exception that left a task's function, and the exception.

    If the exception cannot be used (it asks for a retry at no moment at all, say), the task fails with the reason.
    """
    try:
        return _outcome(task, error), error
    except Exception as fault:  # noqa: BLE001 -- whatever is wrong with the exception
        return Outcome(FAIL, pack_error(task, LIFECYCLE.next(task.state, FAIL), fault)), fault


def _prepare(engine: Engine, task: Task) -> tuple[Function, Arguments]:
    """Call the pre-execute hooks; return the function of a task, and its arguments.

    Raises `UnknownTask`, `Undecodable`, `TaskCanceled`, and `CancelExecution` if a hook does.
    """
    if task.canceling:  # since an attempt that was interrupted, or is retried
        raise TaskCanceled
    function = engine.functions.get(task.name)
    if function is None:
        known = ", ".join(sorted(engine.functions)) or "none"
        raise UnknownTask(f"no function is registered as {task.name!r}; there are: {known}")
    args, kwargs = task.call
    for name, hook in engine.hooks.pre_execute.items():
        try:
            hook(copy(task))
        except CancelExecution:
            raise
        except Exception:
            log.exception("pre-execute hook %s raised before %s; the task runs all the same", name, task)
    if function.context:
        shown = copy(task)  # the function's changes of its task do not reach the worker
        shown.cancel_requested = partial(getattr, task, "canceling")
        place = function.task_position
        if place is not None and place <= len(args):
            args = (*args[:place], shown, *args[place:])
        else:
            kwargs = {**kwargs, "task": shown}
    return function, (args, kwargs)


def _completed(engine: Engine, task: Task, value: object) -> Outcome:
    """Return the outcome of a function that has returned `value`. Raises `Unserializable`."""
    try:
        body = engine.serializer.dumps(value)
    except Unserializable as failure:
        raise Unserializable(failure.reason, f"the result of {task.name}{failure.path}") from None
    return Outcome(COMPLETE, pack_value(task.attempt, body))


def _release_locks(engine: Engine, task: Task) -> None:
    """Give back the locks that the task's function has left taken."""
    for name, owner in engine.held_locks.pop(task.id, ()):
        try:
            engine.storage.unlock(name, owner)
        except StorageError as error:
            engine.deferred.append(partial(engine.storage.unlock, name, owner))
            log.warning("%s has left the lock %r taken; it is given back later: %s", task, name, error)


def _outcome(task: Task, error: BaseException) -> Outcome:
    trigger = next(trigger for kind, trigger in _TRIGGERS if isinstance(error, kind))
    if trigger == INTERRUPT:
        return Outcome(INTERRUPT)
    if isinstance(error, RetryTask):
        delay = None if error.delay is None else duration(error.delay, "RetryTask(delay)")
        return Outcome(RETRY, delay=delay, eta=None if error.eta is None else moment(error.eta, "RetryTask(eta)"))
    result = pack_error(task, LIFECYCLE.next(task.state, trigger), error)
    if isinstance(error, CancelExecution):
        return Outcome(CANCEL, result, retry=error.retry)
    if isinstance(error, RateLimitExceeded):
        return Outcome(
            RATE_LIMIT,
            result,
            retry=True if error.retry else None,
            free=error.retry,
            delay=duration(error.delay, "RateLimitExceeded(delay)"),
        )
    return Outcome(trigger, result)
