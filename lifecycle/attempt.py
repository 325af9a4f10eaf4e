"""One attempt: call a task's function, and say in the table's terms how that ended."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final

from lifecycle.clock import seconds, timestamp
from lifecycle.engine import Engine
from lifecycle.errors import (
    CancelExecution,
    RateLimitExceeded,
    RetryTask,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
    UnknownTask,
    Unserializable,
)
from lifecycle.guard import Guard
from lifecycle.outcomes import pack_error, pack_value
from lifecycle.policies import Outcome
from lifecycle.table import CANCEL, COMPLETE, FAIL, INTERRUPT, LIFECYCLE, LOCK_OUT, RATE_LIMIT, RETRY, TIME_OUT
from lifecycle.task import Task

__all__ = ["Attempts", "current_task"]

log = logging.getLogger("lifecycle.worker")

current_task: ContextVar[Task | None] = ContextVar("current_task", default=None)
"""The task that runs in this context; ``None`` outside of one."""

_ENDINGS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (RetryTask, RETRY),
    (TaskTimeout, TIME_OUT),
    (TaskLockedException, LOCK_OUT),
    (RateLimitExceeded, RATE_LIMIT),
    (CancelExecution, CANCEL),
    (TaskInterrupted, INTERRUPT),
    (KeyboardInterrupt, INTERRUPT),
    (BaseException, FAIL),  # SystemExit included: a task that calls exit() has failed, its worker has not
)
"""What an exception that leaves a task does to it: the first that fits."""


class Attempts:
    """Makes attempts in the thread of its worker, one at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.guard = Guard()
        """Throws `TaskTimeout` and `TaskInterrupted` into the body that runs."""
        self._loop: asyncio.Runner | None = None

    def run(self, task: Task) -> tuple[Outcome, BaseException | None]:
        """Call the task's function with all that belongs to it, and return how it ended, and what it raised.

        Raises nothing itself, whatever the function does.
        """
        engine, guard = self._engine, self.guard
        value: object = None
        error: BaseException | None = None
        token = current_task.set(task)
        try:
            try:
                function = engine.functions.get(task.name)
                if function is None:
                    known = ", ".join(sorted(engine.functions)) or "none"
                    raise UnknownTask(f"no function is registered as {task.name!r}; there are: {known}")
                args, kwargs = task.call
                for name, hook in engine.hooks.pre_execute.items():
                    self._before(name, hook, task)
                if function.context:
                    kwargs = {**kwargs, "task": task}
                guard.arm(task.timeout, TaskTimeout)
                try:
                    value = function.call(*args, **kwargs)
                    if function.is_async:
                        value = self._await(value)
                finally:
                    guard.disarm()
                outcome = Outcome(COMPLETE, pack_value(task.attempt, engine.serializer.dumps(value)))
            except Unserializable as failure:
                error = Unserializable(failure.reason, f"the result of {task.name}{failure.path}")
                outcome = _ended(task, error)
        except BaseException as failure:  # noqa: BLE001 -- whatever a task raises is its outcome, not ours
            guard.disarm()  # the exception may have come from the guard itself, while it was being disarmed
            error = failure
            outcome = _ended(task, failure)
        finally:
            current_task.reset(token)
        for name, after in engine.hooks.post_execute.items():
            _quietly(name, after, task, value, error)
        return outcome, error

    def close(self) -> None:
        """Let go of the event loop of `async` functions."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _before(self, name: str, hook: Callable[[Task], object], task: Task) -> None:
        try:
            hook(task)
        except CancelExecution:
            raise
        except Exception:
            log.exception("pre-execute hook %s raised before %s; the task runs all the same", name, task)

    def _await(self, value: object) -> object:
        if not inspect.isawaitable(value):
            return value
        if self._loop is None:
            self._loop = asyncio.Runner()  # kept: a loop for each task would cost more than the task
        return self._loop.run(self._awaited(value))

    async def _awaited(self, value: Awaitable[object]) -> object:
        task, loop, guard = asyncio.current_task(), asyncio.get_running_loop(), self.guard
        guard.cancel = lambda: loop.call_soon_threadsafe(task.cancel) if task else None
        try:
            return await value
        except asyncio.CancelledError:
            if guard.thrown is not None:
                raise guard.thrown from None
            raise
        finally:
            guard.cancel = None


def _quietly(name: str, hook: Callable[..., object], *args: object) -> None:
    try:
        hook(*args)
    except Exception:
        log.exception("post-execute hook %s raised after %s; its outcome stands", name, args[0])


def _ended(task: Task, error: BaseException) -> Outcome:
    """What an exception that left a task's function means."""
    trigger = next(trigger for kind, trigger in _ENDINGS if isinstance(error, kind))
    if trigger == INTERRUPT:
        return Outcome(INTERRUPT)
    if isinstance(error, RetryTask):
        delay = None if error.delay is None else seconds(error.delay)
        return Outcome(RETRY, delay=delay, eta=None if error.eta is None else timestamp(error.eta))
    result = pack_error(task, LIFECYCLE.next(task.state, trigger), error)
    if isinstance(error, CancelExecution):
        return Outcome(CANCEL, result, retry=error.retry)
    if isinstance(error, RateLimitExceeded):
        return Outcome(RATE_LIMIT, result, retry=True if error.retry else None, free=error.retry, delay=error.delay)
    return Outcome(trigger, result)
