"""One attempt of a task: hooks, arguments, and the function's end as an outcome of the table.

Every runner makes an attempt in the same order: `prepare`, call the function, `completed` (or, for any exception,
`outcome_of_error`), `end_attempt`.
"""

import logging
from contextvars import ContextVar
from functools import partial
from typing import Final

import attrs

from lifecycle.core.policies import Outcome
from lifecycle.core.table import CANCEL, COMPLETE, FAIL, INTERRUPT, LIFECYCLE, LOCK_OUT, RATE_LIMIT, RETRY, TIME_OUT
from lifecycle.core.task import Task
from lifecycle.errors import (
    CancelExecution,
    ConfigurationError,
    RateLimitExceeded,
    RetryTask,
    StorageError,
    StorageRefused,
    TaskCanceled,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
    UnknownTask,
    Unserializable,
)
from lifecycle.execution.callables import note_task_attribute, refuse_unrun, unrun_kind
from lifecycle.execution.engine import Engine
from lifecycle.execution.forks import OneProcess
from lifecycle.execution.new_tasks import too_large
from lifecycle.execution.registry import Function
from lifecycle.execution.stored_result import pack_error, pack_value, users_frames
from lifecycle.validation import delay_seconds, moment

__all__ = ["check_canceled", "completed", "current_task", "end_attempt", "outcome_of_error", "prepare", "unstorable"]

log = logging.getLogger("lifecycle.worker")

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


class _CanceledByHook(Exception):
    """Exception around a `CancelExecution` that a hook has raised: without a word about retries there is none."""

    def __init__(self, error: CancelExecution) -> None:
        super().__init__(error)
        self.error = error


def check_canceled() -> None:
    """Raise `TaskCanceled` if the running task was canceled: see `Task.check_canceled`. Outside a task: nothing."""
    task = current_task.get()
    if task is not None and task.canceling:
        raise TaskCanceled


def end_attempt(engine: Engine, task: Task, value: object, error: BaseException | None) -> None:
    """Give back the locks that a task's function has left taken, and call the post-execute hooks.

    A hook that raises an `Exception` is logged.
    """
    if task.id in engine.held_locks:
        _release_locks(engine, task)
    current_task.set(None)
    for hook in engine.hooks.post_execute:
        try:
            with OneProcess():
                refuse_unrun(hook.call(task.view(), value, error))
        except Exception as failure:
            note_task_attribute(failure)
            log.exception("post-execute hook %s raised after %s; its outcome stands", hook.name, task)


def outcome_of_error(task: Task, error: BaseException) -> tuple[Outcome, BaseException]:
    """Return the outcome of an exception that left a task's function, and the exception without the runner's frames.

    If the exception cannot be used (it asks for a retry at no moment at all, say), the task fails with the reason.
    """
    if isinstance(error, _CanceledByHook):
        error, by_hook = error.error, True
    else:
        by_hook = False
    note_task_attribute(error)
    if isinstance(error, TaskTimeout) and not error.args and task.timeout:  # raised in another thread, without a text
        error.args = (f"the attempt ran longer than {task.timeout:g} s",)
    error.__traceback__ = users_frames(error)
    try:
        outcome = _outcome(task, error)
        if by_hook and outcome.retry is None:
            outcome = attrs.evolve(outcome, retry=False)
    except Exception as fault:  # noqa: BLE001 -- whatever is wrong with the exception
        return Outcome(FAIL, pack_error(task, LIFECYCLE.next(task.state, FAIL), fault)), fault
    return outcome, error


def prepare(engine: Engine, task: Task) -> tuple[Function, tuple[object, ...], dict[str, object]]:
    """Call the pre-execute hooks; return the function of a task, and its positional and keyword arguments.

    Raises `UnknownTask`, `Undecodable`, `TaskCanceled`, and `CancelExecution` if a hook does.
    """
    current_task.set(task)
    if task.canceling:  # since an attempt that was interrupted, or is retried
        raise TaskCanceled
    function = engine.functions.get(task.name)
    if function is None:
        known = ", ".join(sorted(engine.functions)) or "none"
        raise UnknownTask(f"no function is registered as {task.name!r}; there are: {known}")
    args, kwargs = task.call
    for hook in engine.hooks.pre_execute:
        try:
            with OneProcess():
                refuse_unrun(hook.call(task.view()))
        except CancelExecution as error:
            raise _CanceledByHook(error) from None
        except Exception as error:
            note_task_attribute(error)
            log.exception("pre-execute hook %s raised before %s; the task runs all the same", hook.name, task)
    if function.context:
        shown = task.view()  # the function's changes of its task do not reach the worker
        shown.cancel_requested = partial(getattr, task, "canceling")
        place = function.task_position
        if place is not None and place <= len(args):
            args = (*args[:place], shown, *args[place:])
        else:
            kwargs = {**kwargs, "task": shown}
    return function, args, kwargs


def completed(engine: Engine, task: Task, value: object) -> tuple[Outcome, BaseException | None]:
    """Return the outcome of a function that has returned `value`, and the error if the value cannot be stored.

    Such a task has failed, and is not retried: the function has done its work, and would return the same again.
    """
    try:
        try:
            body = engine.serializer.dumps(value)
        except Unserializable as failure:
            kind = unrun_kind(value)
            if kind is not None:  # from a plain wrapper of an `async` function, say
                reason = f"the function returned {kind}, so that its code has not run; declare it with async def"
                raise Unserializable(reason, task.name) from None
            raise Unserializable(failure.reason, f"the result of {task.name}{failure.path}") from None
        if len(body) > engine.max_bytes:
            raise too_large(f"the result of {task.name}", body, engine.max_bytes)
    except (Unserializable, StorageRefused) as error:
        return unstorable(task, error), error
    return Outcome(COMPLETE, pack_value(task.attempt, body)), None


def unstorable(task: Task, error: BaseException) -> Outcome:
    """Return the outcome of an attempt whose result cannot be stored because of `error`: a failure without a retry."""
    return Outcome(FAIL, pack_error(task, LIFECYCLE.next(task.state, FAIL), error), retry=False)


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
        delay = None if error.delay is None else delay_seconds(error.delay, "RetryTask(delay)")
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
            delay=delay_seconds(error.delay, "RateLimitExceeded(delay)"),
        )
    permanent = isinstance(error, ConfigurationError) and not isinstance(error, StorageError)
    return Outcome(trigger, result, retry=False if permanent else None)
